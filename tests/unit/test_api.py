"""The HTTP API with handles that answer from this process: who is let in, and how failures look from outside."""

import asyncio
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from ray import serve

import actors.api
from actors.api import Api
from actors.context import ConfigTree
from actors.monitor import Monitor
from pipeline.config.app import Config
from pipeline.engine.load import identify, load_engine, load_tokenizer
from pipeline.records import Embeddings, PointBatch, Priority, TokenBatch, point_id
from pipeline.tasks import bind_tasks
from tests.config_trees import tree
from tests.fakes import FakeStore

Serve = Callable[..., TestClient]


class LocalHandle:
    """A Serve handle around an object of this process: `.method.remote(...)` answers at once, or fails as told."""

    def __init__(self, target: Any) -> None:
        self._target = target
        self.failure: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *args, **kwargs: self._answer(getattr(self._target, name), args, kwargs))

    def _answer(self, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> "LocalAnswer":
        if self.failure is not None:
            raise self.failure
        return LocalAnswer(method(*args, **kwargs))


class LocalAnswer:
    """What `remote` returns: to wait for from a thread, or from an event loop."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def result(self, timeout_s: float | None = None) -> Any:  # noqa: ARG002 - it is here already
        return self._value

    def __await__(self) -> Iterator[Any]:
        return self._finish().__await__()  # type: ignore[return-value]  # a coroutine's

    async def _finish(self) -> Any:
        return await self._value if asyncio.iscoroutine(self._value) else self._value


class LocalEmbedder:
    """The null engine, called as an embedder's replica is."""

    def __init__(self, config: Config) -> None:
        self._engine = load_engine(config.models["null"], config.tasks)

    def embed(self, batch: TokenBatch, priority: Priority) -> Embeddings:
        assert priority is Priority.QUERY
        (rows,) = self._engine.begin([batch]).results()
        assert isinstance(rows, list)
        return rows


@pytest.fixture
def store() -> LocalHandle:
    return LocalHandle(FakeStore())


@pytest.fixture
def serve_app(monkeypatch: pytest.MonkeyPatch, store: LocalHandle) -> Iterator[Serve]:
    """Starts the API with changes to its configuration, over one record with the key "T-1"."""
    clients: list[TestClient] = []

    def start(**changes: Any) -> TestClient:
        source = ConfigTree(tree(**changes), "test.yaml")
        config = source.load()
        fill(store, config)
        monkeypatch.setattr(actors.api, "Reporter", lambda *_: None)
        handle: Any = LocalHandle(LocalEmbedder(config))
        replica: Any = object.__new__(Api.func_or_class)  # type: ignore[attr-defined]  # a Deployment
        # What a replica's process does: the wrapper of `serve.ingress` takes its own copy of the FastAPI app.
        asyncio.run(type(replica).__init__(replica, source, {"null": handle}, store, LocalHandle(Monitor()), handle))
        monkeypatch.setattr(serve, "get_replica_context", lambda: SimpleNamespace(servable_object=replica))
        client = TestClient(replica.app, raise_server_exceptions=False)
        clients.append(client)
        return client

    yield start
    for client in clients:
        client.close()


def fill(store: LocalHandle, config: Config) -> None:
    tasks = bind_tasks(config, {"null": identify(config.models["null"])})
    text = "no light"
    vectors = {}
    for task in tasks.values():
        tokens = load_tokenizer(config.models["null"], config.tasks).encode([text], [task.prompt])
        (vectors[task.collection],) = load_engine(config.models["null"], config.tasks).begin([tokens]).results()[0]  # type: ignore[index,misc]
    store.upsert.remote(
        PointBatch(
            ids=np.frombuffer(point_id(config.pipeline, "s:T-1"), np.uint8).reshape(1, 16),
            versions=np.ones(1, np.int64),
            deleted=np.zeros(1, np.bool_),
            payloads=[{"_key": "s:T-1", "title": "no light"}],
            vectors=vectors,
        )
    )


QUERY = {"task": "urgency", "text": "no light"}


def test_search_answers_through_the_handles(serve_app: Serve) -> None:
    (hit,) = serve_app().post("/v1/search", json=QUERY).json()["hits"]
    assert hit["score"] == pytest.approx(1.0)
