"""What the tests of the API ask: records to search, and requests it refuses with the code it must say."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from actors.reporting import REPORT_INTERVAL_S
from pipeline.api.http_app import MAX_BODY_BYTES
from pipeline.binding import bind_task
from pipeline.config.load import load_config
from pipeline.engine.entry import identify
from pipeline.stores.open import open_store
from tests.e2e.harness import InProcessApp

MINILM = {
    "model": "packaged:all-MiniLM-L6-v2",
    "num_cpus": 0.5,
    "threads": 2,
    "overrides": {
        "instruction_style": "free_form",
        "query_template": "{instruction}: {text}",
        "document_template": "{instruction}: {text}",
    },
}
STATES: list[dict[str, Any]] = [
    {"body": "The server room is on fire", "urgency": "high", "language": "en", "minutes": 5, "open": True},
    {"body": "Smoke comes out of the server room", "urgency": "high", "language": "en", "minutes": 60, "open": True},
    {"body": "My invoice shows the wrong address", "urgency": "low", "language": "en", "minutes": 600, "open": True},
    {"body": "Die Rechnung hat eine falsche Anschrift", "urgency": "low", "language": "de", "minutes": 900},
    {"body": "How do I change my password?", "urgency": "medium", "language": "en", "minutes": 30, "open": False},
    {"body": "The coffee machine is empty", "urgency": "low", "language": "en", "minutes": 10, "open": False},
]

FILTERS: list[tuple[dict[str, Any], set[int]]] = [
    ({"urgency": "high"}, {0, 1}),
    ({"urgency": ["high", "medium"]}, {0, 1, 4}),
    ({"urgency": "low", "language": "de"}, {3}),
    ({"minutes": 60}, {1}),
    ({"minutes": {"gte": 30, "lt": 600}}, {1, 4}),
    ({"minutes": {"gt": 600}}, {3}),
    ({"open": False}, {4, 5}),
    ({"urgency": "unheard of"}, set()),
]
"""Which of the states meet a filter, by number."""

PATHS = {"/v1/search", "/v1/embeddings", "/v1/tasks", "/v1/status", "/healthz", "/readyz", "/metrics"}

WRONG_SEARCHES: list[tuple[Any, ...]] = [
    ({}, "invalid_request"),
    ({"text": ""}, "empty_text"),
    ({"text": " \n\t"}, "empty_text"),
    ({"text": None}, "invalid_request"),
    ({"text": 7}, "invalid_request"),
    ({"text": ["a"]}, "invalid_request"),
    ({"text": "a", "id": "b"}, "invalid_request"),
    ({"id": True}, "invalid_request"),
    ({"id": 1.5}, "invalid_request"),
    ({"text": "a", "limit": 0}, "invalid_request"),
    ({"text": "a", "limit": -1}, "invalid_request"),
    ({"text": "a", "limit": 10**9}, "limit_too_large"),
    ({"text": "a", "limit": 10**40}, "limit_too_large"),
    ({"text": "a", "limit": "5"}, "invalid_request"),
    ({"text": "a", "limit": None}, "invalid_request"),
    ({"text": "a", "limit": 3.7}, "invalid_request"),
    ({"text": "a", "limit": True}, "invalid_request"),
    ({"text": "a", "lmit": 5}, "invalid_request"),
    ({"text": "a", "filter": []}, "invalid_request"),
    ({"text": "a", "filter": {"salary": 1}}, "unknown_filter"),
    ({"text": "a", "filter": {"_key": "s:gone"}}, "unknown_filter"),
    ({"text": "a", "filter": {"_state": "deleted"}}, "unknown_filter"),
    ({"text": "a", "filter": {"urgency": {"must": {"key": "urgency"}}}}, "invalid_request"),
    ({"text": "a", "filter": {"urgency": {}}}, "invalid_request"),
    ({"text": "a", "filter": {"urgency": []}}, "invalid_request"),
    ({"text": "a", "filter": {"urgency": None}}, "invalid_request"),
    ({"text": "a", "filter": {"urgency": ["x"] * 200}}, "invalid_request"),
    ({"text": "a", "filter": {f"f{number}": 1 for number in range(10_000)}}, "invalid_request"),
    ({"text": "a", "filter": {"minutes": {"gte": "5"}}}, "invalid_request"),
    ({"text": "a", "filter": {"minutes": 2**70}}, "invalid_request"),
    ({"text": "a", "filter": {"minutes": 1.5}}, "invalid_request"),
    ({"text": "a", "filter": {"minutes": [1, "2"]}}, "invalid_request"),
    ({"text": "a", "filter": {"minutes": [1.5]}}, "invalid_request"),
    ({"text": "a", "filter": {"minutes": {"gte": 10**400}}}, "invalid_request"),
    ({"text": "a", "filter": {"minutes": {"gte": True}}}, "invalid_request"),
    ({"text": "a", "filter": {"minutes": {"gte": 1, "near": 2}}}, "invalid_request"),
]

WRONG_BODIES: list[tuple[Any, ...]] = [
    (b"{}", {}, 415, "not_json"),
    (b"{}", {"content-type": "text/plain"}, 415, "not_json"),
    (b"task=urgency", {"content-type": "application/x-www-form-urlencoded"}, 415, "not_json"),
    (b"", {"content-type": "application/json"}, 400, "invalid_request"),
    (b"{", {"content-type": "application/json"}, 400, "invalid_request"),
    (b"null", {"content-type": "application/json"}, 400, "invalid_request"),
    (b"[" * 100_000, {"content-type": "application/json"}, 400, "invalid_request"),
    (b'{"task": "urgency", "text": "\xff\xfe"}', {"content-type": "application/json"}, 400, "invalid_request"),
    (b'{"task": "urgency", "text": "\\ud800"}', {"content-type": "application/json"}, 400, None),
    (b'{"task": "urgency", "text": "a", "limit": NaN}', {"content-type": "application/json"}, 400, None),
    (b" " * (MAX_BODY_BYTES + 1), {"content-type": "application/json"}, 413, "body_too_large"),
    (b" " * 10_000_000, {"content-type": "application/json"}, 413, "body_too_large"),
]

WRONG_EMBEDDINGS: list[tuple[Any, ...]] = [
    ({}, "invalid_request"),
    ({"input": ""}, "empty_text"),
    ({"input": ["a", " "]}, "empty_text"),
    ({"input": []}, "invalid_request"),
    ({"input": ["a"] * 2049}, "invalid_request"),
    ({"input": [1, 2, 3]}, "invalid_request"),
    ({"input": [["a"]]}, "invalid_request"),
    ({"input": "a", "encoding_format": "hex"}, "invalid_request"),
    ({"input": "a", "input_type": "passage"}, "invalid_request"),
    ({"input": "a", "dimensions": 5}, "invalid_dimensions"),
    ({"input": "a", "dimensions": "384"}, "invalid_request"),
]


def give_alias_to_an_earlier_instruction(path: Path) -> None:
    """Leaves the store as a run with another instruction of the task `moved` would have."""
    config = load_config(path)
    earlier = config.tasks["moved"].model_copy(update={"instruction": "As it was asked before"})
    store = open_store(config.store, config.pipeline)
    store.open([bind_task("moved", earlier, identify(config.models["hash"]))])
    store.close()


def samples(app: InProcessApp, name: str) -> Iterator[Sample]:
    """Returns what `/metrics` says of one family."""
    for family in text_string_to_metric_families(app.http.get("/metrics").text):
        if family.name == name:
            yield from family.samples


def num_queries(app: InProcessApp, model: str) -> int:
    """Returns how many texts a model has embedded for queries, once the number stands still."""
    wanted = {"model": model, "priority": "query"}.items()
    before = -1.0
    while True:
        now = sum(sample.value for sample in samples(app, "refract_embeddings") if wanted <= sample.labels.items())
        if now == before:
            return int(now)
        before = now
        time.sleep(2.5 * REPORT_INTERVAL_S)


def search(app: InProcessApp, task: str = "urgency", **body: Any) -> httpx.Response:
    return app.http.post("/v1/search", json={"task": task, **body})


def keys(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [hit["key"] for hit in answer.json()["hits"]]


def text_of(app: InProcessApp, number: int) -> str:
    text = app.journal.expected("urgency", f"A-{number}").text
    assert text is not None
    return text
