"""What the tests of the API ask: records to search, and requests it refuses with the code it must say."""

from typing import Any

import httpx

from actors.api import MAX_BODY_BYTES
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
    ({"input": ["a"] * 257}, "invalid_request"),
    ({"input": [1, 2, 3]}, "invalid_request"),
    ({"input": [["a"]]}, "invalid_request"),
    ({"input": "a", "encoding_format": "hex"}, "invalid_request"),
    ({"input": "a", "input_type": "passage"}, "invalid_request"),
    ({"input": "a", "dimensions": 5}, "invalid_dimensions"),
    ({"input": "a", "dimensions": "384"}, "invalid_request"),
]


def search(app: InProcessApp, task: str = "urgency", **body: Any) -> httpx.Response:
    return app.http.post("/v1/search", json={"task": task, **body})


def keys(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [hit["key"] for hit in answer.json()["hits"]]


def text_of(app: InProcessApp, number: int) -> str:
    text = app.journal.expected("urgency", f"A-{number}").text
    assert text is not None
    return text
