"""What a client of the HTTP API can get wrong, given to the real app over handles of this process."""

import hmac
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np

from pipeline.api.http_app import MAX_BODY_BYTES
from pipeline.errors import TransientError
from tests.bad_input.case import MARKER_SECRET, MARKER_TEXT, Case, Place, leaks, verdict
from tests.bad_input.stream import everything_logged
from tests.unit.test_api import ApiUnderTest, LocalEmbedder

JSON = {"content-type": "application/json"}
KEY = "right-key"
GOOD = {"task": "urgency", "text": "no light"}
Client = Any


@contextmanager
def running(place: Place, **changes: Any) -> Iterator[tuple[ApiUnderTest, Client]]:
    """The app of configs/null.yaml with changes, and a client."""
    api = ApiUnderTest(place.patch)
    try:
        yield api, api.start(**changes)
    finally:
        for replica in api.replicas:
            replica._reporter.close()


def asked(row: int, given: str, expected: str, ask: Callable[[Client], httpx.Response], **changes: Any) -> Case:
    """One request and its status, with the error's code; a good request must still be answered after it."""

    def see(place: Place) -> str:
        with running(place, **changes) as (_, client), everything_logged() as logged:
            answer = ask(client)
            problems = [f"{marker} came back or was logged" for marker in leaks(answer.text + logged())]
            if client.post("/v1/search", json=GOOD, headers={"api-key": KEY}).status_code != 200:
                problems.append("a good request is not answered any more")
        return verdict(told(answer), problems)

    return Case(row, given, expected, see)


def told(answer: httpx.Response) -> str:
    """Status and code."""
    if answer.is_success:
        return str(answer.status_code)
    return f"{answer.status_code} {answer.json()['error']['code']}"


def search(row: int, expected: str, given: str = "", **fields: Any) -> Case:
    """A search that differs from a good one in these fields."""
    shown = given or ", ".join(f"{name}: {value!r}"[:70] for name, value in fields.items())
    sent = {"task": "urgency", **({} if "text" in fields or "id" in fields else {"text": MARKER_TEXT}), **fields}
    return asked(row, shown, expected, lambda client: client.post("/v1/search", json=sent))


def raw(row: int, given: str, expected: str, content: bytes, headers: dict[str, str] | None = None) -> Case:
    """A body as it stands."""
    sent = JSON if headers is None else headers
    return asked(row, given, expected, lambda client: client.post("/v1/search", content=content, headers=sent))


def with_key(given: str, headers: dict[str, str]) -> Case:
    """A request with the wrong credentials."""
    expected = "401 unauthorised"
    return asked(105, given, expected, lambda client: client.get("/v1/tasks", headers=headers), api__api_key=KEY)


def _not_finite(place: Place) -> str:
    with running(place) as (api, client), everything_logged() as logged:
        place.patch.setattr(LocalEmbedder, "embed", lambda *_: [np.full((1, 384), np.nan, np.float32)])
        api.store.failure = AssertionError("the store was asked")
        answer = client.post("/v1/search", json={"task": "urgency", "text": MARKER_TEXT})
        incident = answer.json()["error"]["message"].split()[-1]
        problems = [f"{marker} came back or was logged" for marker in leaks(answer.text + logged())]
        shown = logged()
    if incident not in shown or "ArithmeticError" not in shown:
        problems.append("the incident is not in the log, or the store was asked")
    return verdict(told(answer), problems)


def _fetched(place: Place) -> str:
    calls: list[Any] = []
    with running(place) as (_, client):
        place.patch.setattr(socket.socket, "connect", lambda _self, address: calls.append(address))
        answer = client.post("/v1/search", json={"task": "urgency", "text": "http://169.254.169.254/latest/meta-data"})
    return f"{told(answer)}, {len(calls)} connections"


def _constant_time(place: Place) -> str:
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def spy(given: bytes, expected: bytes) -> bool:
        compared.append((given, expected))
        return compare(given, expected)

    with running(place, api__api_key=KEY) as (_, client):
        place.patch.setattr("pipeline.api.app.hmac.compare_digest", spy)
        answer = client.get("/v1/tasks", headers={"api-key": "wrong"})
    return f"{told(answer)}, {len(compared)} comparison by hmac.compare_digest"


def _full(place: Place) -> str:
    with running(place, api__max_concurrent_requests=1000) as (api, client):
        [gate] = (found.kwargs["dispatch"] for found in api.replicas[0].app.user_middleware)
        gate._num_requests = 1000
        answer = client.post("/v1/search", json=GOOD)
        health = client.get("/healthz").status_code
    return f"{told(answer)}, Retry-After {answer.headers.get('retry-after')}, health {health}"


def _store_away(place: Place) -> str:
    with running(place) as (api, client), everything_logged() as logged:
        api.store.failure = TransientError(MARKER_SECRET)
        answer = client.post("/v1/search", json={"task": "urgency", "text": MARKER_TEXT})
        problems = [f"{marker} came back or was logged" for marker in leaks(answer.text + logged())]
        api.store.failure = None
        if client.post("/v1/search", json=GOOD).status_code != 200:
            problems.append("it does not answer when the store is back")
    return verdict(f"{told(answer)}, Retry-After {answer.headers.get('retry-after')}", problems)


INVALID = "400 invalid_request"
NESTED: Any = {"must": {"must": {"must": {"key": MARKER_TEXT}}}}

CASES = [
    search(99, "400 empty_text", text=""),
    search(99, "400 empty_text", text=" \n\t"),
    search(99, "413 text_too_large", given="a query of 40 KB", text=MARKER_TEXT * 3_000),
    raw(99, "a body of 10 MB", "413 body_too_large", b" " * 10_000_000),
    raw(99, f"a body of {MAX_BODY_BYTES + 1:,} bytes", "413 body_too_large", b" " * (MAX_BODY_BYTES + 1)),
    raw(99, "text/plain", "415 not_json", b"{}", {"content-type": "text/plain"}),
    raw(99, "no content type", "415 not_json", b"{}", {}),
    raw(99, "invalid UTF-8", INVALID, b'{"task": "urgency", "text": "\xff\xfe"}'),
    raw(99, "a lone surrogate", "400 invalid_text", b'{"task": "urgency", "text": "\\ud800"}'),
    raw(99, "100,000 brackets", INVALID, b"[" * 100_000),
    raw(99, "broken JSON", INVALID, f'{{"text": "{MARKER_TEXT}'.encode()),
    *(search(100, INVALID, limit=limit) for limit in (0, -1, "5", None, 3.7, True)),
    *(search(100, "400 limit_too_large", limit=limit) for limit in (10**9, 10**40)),
    search(101, "404 unknown_task", task="nosuchtask"),
    asked(
        101,
        "an unknown task of /v1/embeddings",
        "404 unknown_task",
        lambda client: client.post("/v1/embeddings", json={"model": "nosuchtask", "input": MARKER_TEXT}),
    ),
    search(102, "400 unknown_filter", filter={"salary": 1}),
    search(102, "400 unknown_filter", filter={"_state": "deleted"}),
    search(102, INVALID, given="10,000 conditions", filter={f"f{number}": 1 for number in range(10_000)}),
    search(102, INVALID, given="nested conditions", filter={"urgency": NESTED}),
    search(102, INVALID, given="a geo condition", filter={"urgency": {"geo_radius": {"radius": 1}}}),
    search(102, INVALID, given="any of 200 values", filter={"urgency": ["x"] * 200}),
    search(102, INVALID, filter={"urgency": 2**70}),
    Case(103, "a query the model gives NaN for", "500 internal", _not_finite),
    Case(104, "a URL as the text", "200, 0 connections", _fetched),
    with_key("no key", {}),
    with_key("an empty key", {"api-key": ""}),
    with_key("a foreign key", {"api-key": MARKER_SECRET}),
    with_key("a part of the key", {"api-key": KEY[:-1]}),
    with_key("Basic instead of Bearer", {"authorization": f"Basic {KEY}"}),
    Case(105, "how keys are compared", "401 unauthorised, 1 comparison by hmac.compare_digest", _constant_time),
    Case(
        106,
        "a client that goes away before its answer",
        "what waits for the model is not computed",
        proven_by="tests/e2e/test_search_api.py::test_work_of_a_client_that_has_gone_is_not_done",
    ),
    Case(107, "1,000 requests at once", "429 too_many_requests, Retry-After 1, health 200", _full),
    *(search(108, INVALID, task=name) for name in ("", "../urgency", "a/b", "urgency\n", "\u00fc", "t" * 300, 7)),
    asked(108, "/v1/search/..%2f..%2fetc", "404 not_found", lambda client: client.get("/v1/search/..%2f..%2fetc")),
    Case(109, "the store is away", "503 unavailable, Retry-After 1", _store_away),
    Case(
        110,
        "the alias moves while queries run",
        "one consistent answer",
        proven_by="tests/contract/test_qdrant_store.py::test_a_moved_alias_is_noticed_after_a_moment_and_never_mixes_answers",
    ),
    Case(
        111,
        "deleted points, on both stores",
        "never found",
        proven_by="tests/contract/test_store.py::test_deleted_points_are_never_found_nor_counted",
    ),
]
