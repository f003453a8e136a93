"""The HTTP API with handles that answer from this process: who is let in, and how failures look from outside."""

import asyncio
import inspect
import re
from collections.abc import Callable, Generator, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError
from structlog.testing import capture_logs

from actors.api import Api
from actors.monitor import Monitor
from pipeline.api.http_app import MAX_BODY_BYTES
from pipeline.binding import bind_tasks
from pipeline.config.load import ConfigTree
from pipeline.config.pipeline import Config
from pipeline.engine.entry import identify, load_engine, load_tokenizer
from pipeline.errors import EnvironmentFault, TransientError
from pipeline.records.batches import Embeddings, Float32, PointBatch, Priority, TokenBatch
from pipeline.records.record import point_id
from tests.config_trees import tree
from tests.fakes import FakeStore

KEY = "a-key"
QUERY = {"task": "urgency", "text": "no light"}


class LocalHandle:
    """A Serve handle around an object of this process: `.method.remote(...)` answers at once, or fails as told."""

    def __init__(self, target: Any) -> None:
        self._target = target
        self.failure: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._target, name)
        return SimpleNamespace(remote=lambda *args, **kwargs: LocalAnswer(method, args, kwargs, self.failure))


class LocalAnswer:
    """What `remote` returns: to wait for from a thread, or from an event loop."""

    def __init__(
        self, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], failure: Exception | None
    ) -> None:
        self._method, self._args, self._kwargs = method, args, kwargs
        self._failure = failure

    def result(self, timeout_s: float | None = None) -> Any:  # noqa: ARG002 - nothing is waited for
        return asyncio.run(self._finish())

    def __await__(self) -> Generator[Any, None, Any]:
        return self._finish().__await__()

    async def _finish(self) -> Any:
        if self._failure is not None:
            raise self._failure
        value = self._method(*self._args, **self._kwargs)
        return await value if inspect.iscoroutine(value) else value


class LocalEmbedder:
    """The null engine, called as an embedder's replica is."""

    def __init__(self, config: Config) -> None:
        self._engine = load_engine(config.models["null"], config.tasks)

    def embed(self, batch: TokenBatch, priority: Priority) -> Embeddings:
        assert priority is Priority.QUERY
        (rows,) = self._engine.begin([batch]).results()
        assert isinstance(rows, list)
        return rows


class _Replica(Api.func_or_class):  # type: ignore[name-defined,misc]  # what a Deployment wraps
    """An Api as a replica's process has it, with the app that `serve.ingress` copied."""

    def __del__(self) -> None:
        """Serve's own is a coroutine, which nobody here would await."""


Replica: Any = _Replica


class ApiUnderTest:
    """Starts the API over one stored record and holds what stands behind it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.store = LocalHandle(FakeStore())
        self.replicas: list[Any] = []

    def start(self, **changes: Any) -> TestClient:
        """Returns a client of the API of configs/null.yaml with changes."""
        source = ConfigTree(tree(**changes), "test.yaml")
        config = source.load()
        self.embedder = LocalHandle(LocalEmbedder(config))
        self._fill(config)
        replica = Replica.__new__(Replica)
        context = SimpleNamespace(servable_object=replica, replica_tag="api-1")
        self._monkeypatch.setattr(serve, "get_replica_context", lambda: context)
        handles = ({"null": self.embedder}, self.store, LocalHandle(Monitor()), LocalHandle(None))
        asyncio.run(Replica.__init__(replica, source, *handles))
        replica._set_asgi_app(replica.__serve_build_asgi_app__())  # as Serve does after the constructor
        self.replicas.append(replica)
        return TestClient(replica.app, raise_server_exceptions=False)

    def _fill(self, config: Config) -> None:
        tasks = bind_tasks(config, {"null": identify(config.models["null"])}).values()
        tokens = load_tokenizer(config.models["null"], config.tasks).encode(
            ["no light"], [task.prompt for task in tasks]
        )
        rows: list[Float32] = self.embedder.embed.remote(tokens, Priority.QUERY).result()
        points = PointBatch(
            ids=np.frombuffer(point_id(config.pipeline, "tickets", "s:T-1"), np.uint8).reshape(1, 16),
            versions=np.ones(1, np.int64),
            deleted=np.zeros(1, np.bool_),
            payloads=[{"_key": "s:T-1"}],
            vectors={task.collection: row for task, row in zip(tasks, rows, strict=True)},
        )
        self.store.upsert.remote(points).result()


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiUnderTest]:
    made = ApiUnderTest(monkeypatch)
    yield made
    for replica in made.replicas:
        replica._reporter.close()


def error_of(answer: Any) -> tuple[int, str]:
    """Returns status and code of a refusal."""
    assert set(answer.json()) == {"error"}, answer.text
    return answer.status_code, answer.json()["error"]["code"]


def test_search_answers_through_the_handles(api: ApiUnderTest) -> None:
    (hit,) = api.start().post("/v1/search", json=QUERY).json()["hits"]
    assert hit["score"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    "headers", [{"api-key": KEY}, {"authorization": f"Bearer {KEY}"}, {"authorization": f"bearer {KEY}"}]
)
def test_the_key_opens_every_route(api: ApiUnderTest, headers: dict[str, str]) -> None:
    client = api.start(api__api_key=KEY)
    assert client.post("/v1/search", json=QUERY, headers=headers).status_code == 200
    assert client.get("/v1/tasks", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"api-key": ""},
        {"api-key": KEY[:-1]},
        {"api-key": f"{KEY} "[::-1]},
        {"authorization": KEY},
        {"authorization": f"Basic {KEY}"},
    ],
)
@pytest.mark.parametrize(
    "path", ["/v1/tasks", "/v1/status", "/metrics", "/docs/oauth2-redirect", "/redoc", "/nowhere", "/healthz/"]
)
def test_without_the_key_only_health_and_the_description_answer(
    api: ApiUnderTest, headers: dict[str, str], path: str
) -> None:
    client = api.start(api__api_key=KEY)
    assert error_of(client.get(path, headers=headers)) == (401, "unauthorised")
    assert client.get("/healthz", headers=headers).status_code == 200
    assert client.get("/readyz", headers=headers).status_code == 503
    assert client.get("/docs", headers=headers).status_code == 200
    assert "/v1/search" in client.get("/openapi.json", headers=headers).json()["paths"]


@pytest.mark.parametrize(
    ("headers", "content", "refusal"),
    [
        ({"content-type": "text/plain"}, b"{}", (415, "not_json")),
        ({}, b"{}", (415, "not_json")),
        ({"content-type": "application/json"}, b" " * (MAX_BODY_BYTES + 1), (413, "body_too_large")),
        ({"content-type": "application/json", "content-length": "-1"}, b"{}", (411, "length_required")),
        ({"content-type": "application/json; charset=utf-8"}, b"{}", (400, "invalid_request")),
    ],
)
def test_bodies_are_refused_before_they_are_read(
    api: ApiUnderTest, headers: dict[str, str], content: bytes, refusal: tuple[int, str]
) -> None:
    assert error_of(api.start().post("/v1/search", content=content, headers=headers)) == refusal


@pytest.mark.parametrize(
    ("route", "sent", "message"),
    [
        ("search", {**QUERY, "filter": {"team": None}}, "filter.team: expected a text, a number, true or false"),
        ("search", {**QUERY, "filter": {"team": {"gt": []}}}, "filter.team: expected a text, a number, true or false"),
        ("search", {**QUERY, "filter": {"team": ["x"] * 129}}, "filter.team: at most 128 values"),
        ("search", {**QUERY, "filter": {"team": "x" * 1025}}, "filter.team: a text has at most 1,024 characters"),
        ("search", {**QUERY, "filter": {"language": {}}}, "filter on 'language': an untyped field takes a text"),
        ("search", {"task": "urgency", "id": 1.5}, "id: expected a text or an integer"),
        ("embeddings", {"model": "urgency", "input": [1]}, "input: expected a text, or a list of 1 to 2,048 texts"),
        ("embeddings", {"model": "urgency", "input": []}, "input: expected a text, or a list of 1 to 2,048 texts"),
    ],
)
def test_what_is_wrong_with_a_request_is_said_in_words(
    api: ApiUnderTest, route: str, sent: dict[str, Any], message: str
) -> None:
    answer = api.start().post(f"/v1/{route}", json=sent)
    assert answer.status_code == 400
    said = answer.json()["error"]["message"]
    assert said.startswith(message)
    assert not any(internal in said for internal in ("function-", "union", "constrained", "list["))


def test_requests_beyond_the_bound_are_turned_away_and_told_when_to_come_back(api: ApiUnderTest) -> None:
    client = api.start(api__max_concurrent_requests=1)
    (gate,) = (found.kwargs["dispatch"] for found in api.replicas[0].app.user_middleware)
    gate._num_requests = 1
    answer = client.post("/v1/search", json=QUERY)
    assert error_of(answer) == (429, "too_many_requests")
    for route in ("/metrics", "/v1/status", "/v1/tasks", "/healthz"):
        assert client.get(route).status_code == 200, route
    assert answer.headers["retry-after"] == "1"
    gate._num_requests = 0
    assert client.post("/v1/search", json=QUERY).status_code == 200
    assert gate._num_requests == 0


@pytest.mark.parametrize(
    ("failure", "refusal"),
    [
        (TransientError("away"), (503, "unavailable")),
        (RayActorError(), (503, "unavailable")),
        (TimeoutError(), (503, "unavailable")),
        (BackPressureError(num_queued_requests=1, max_queued_requests=1), (503, "unavailable")),
        (EnvironmentFault("alias 'urgency' points to a collection of another fingerprint"), (503, "out_of_service")),
    ],
)
@pytest.mark.parametrize("component", ["store", "embedder"])
def test_outages_are_told_apart_from_faults(
    api: ApiUnderTest, component: str, failure: Exception, refusal: tuple[int, str]
) -> None:
    client = api.start()
    getattr(api, component).failure = failure
    answer = client.post("/v1/search", json=QUERY)
    assert error_of(answer) == refusal
    assert ("retry-after" in answer.headers) == (refusal[1] == "unavailable")


def test_bug_is_told_by_number_and_without_what_was_asked(api: ApiUnderTest) -> None:
    client = api.start()
    api.store.failure = ValueError("no light")
    with capture_logs() as logs:
        answer = client.post("/v1/search", json=QUERY)
    assert error_of(answer) == (500, "internal")
    assert logs[0]["incident"] in answer.json()["error"]["message"]
    assert logs[0]["error"] == "ValueError"
    assert "no light" not in answer.text + str(logs)


def test_vector_that_is_not_finite_is_a_bug_and_reaches_no_store(
    api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = api.start()
    monkeypatch.setattr(LocalEmbedder, "embed", lambda *_: [np.full((1, 384), np.nan, np.float32)])
    api.store.failure = AssertionError("the store was asked")
    with capture_logs() as logs:
        assert error_of(client.post("/v1/search", json=QUERY)) == (500, "internal")
    assert logs[0]["error"] == "ArithmeticError"


def test_limit_above_the_configured_one_is_refused(api: ApiUnderTest) -> None:
    client = api.start(api__max_limit=5)
    assert client.post("/v1/search", json={**QUERY, "limit": 5}).status_code == 200
    assert error_of(client.post("/v1/search", json={**QUERY, "limit": 6})) == (400, "limit_too_large")


def test_requests_are_counted_by_route_not_by_path(api: ApiUnderTest) -> None:
    client = api.start()
    (replica,) = api.replicas
    client.get("/v1/nowhere/1")
    client.get("/v1/nowhere/2")
    client.post("/v1/search", json=QUERY)
    client.post("/v1/search", json={})
    api.store.failure = ValueError("a bug")
    client.post("/v1/search", json=QUERY)
    replica._reporter.send()
    counted = {
        tuple(re.findall(r'(?:route|status)="([^"]*)"', line)): float(line.rpartition(" ")[2])
        for line in client.get("/metrics").text.splitlines()
        if line.startswith("refract_requests_total")
    }
    expected = {("other", "404"): 2, ("/v1/search", "200"): 1, ("/v1/search", "400"): 1, ("/v1/search", "500"): 1}
    assert counted == expected


def test_what_replicas_report_is_what_metrics_and_status_show(api: ApiUnderTest) -> None:
    client = api.start()
    (replica,) = api.replicas
    client.post("/v1/search", json=QUERY)
    replica._reporter.send()
    shown = client.get("/metrics").text
    assert 'refract_requests_total{process="api",replica="api-1",route="/v1/search",status="200"} 1.0' in shown
    assert 'refract_ready{process="api",replica="api-1"} 1.0' in shown
    assert "refract_app_ready 0.0" in shown
    status = client.get("/v1/status").json()
    assert (status["ready"], status["reason"]) == (False, "0 of 1 ingestors are up")
    assert client.get("/readyz").json() == {"ready": False, "reason": "0 of 1 ingestors are up"}
