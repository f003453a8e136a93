"""Stores for the contract suites: every test with `store_backend` runs against each kind."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.binding import Task
from tests.contract.store_backends import AnyStore, Backend, EdgeBackend, QdrantBackend, StrictQdrantBackend
from tests.qdrant_server.process import QdrantServer


@pytest.fixture(scope="session")
def qdrant_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantServer]:
    server = QdrantServer(tmp_path_factory.mktemp("qdrant") / "data").start()
    yield server
    server.stop()


@pytest.fixture
def edge_backend(tmp_path: Path) -> Iterator[EdgeBackend]:
    backend = EdgeBackend(tmp_path / "edge")
    yield backend
    backend.close()


@pytest.fixture
def qdrant_backend(qdrant_server: QdrantServer) -> Iterator[QdrantBackend]:
    backend = QdrantBackend(qdrant_server.url)
    yield backend
    qdrant_server.faults.clear()
    backend.close()


@pytest.fixture
def strict_backend(qdrant_server: QdrantServer) -> Iterator[StrictQdrantBackend]:
    backend = StrictQdrantBackend(qdrant_server.url)
    yield backend
    backend.close()


@pytest.fixture(params=["edge", "qdrant", "strict", "url", "strict-url"])
def store_backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    if not request.param.endswith("url"):
        yield request.getfixturevalue(f"{request.param}_backend")
        return
    url = os.environ.get("QDRANT_URL")
    if not url:
        pytest.skip("QDRANT_URL names no Qdrant server (http://host:6334)")
    backend = StrictQdrantBackend(url) if request.param.startswith("strict") else QdrantBackend(url)
    yield backend
    backend.close()


@pytest.fixture
def task(store_backend: Backend) -> Task:
    return store_backend.task()


@pytest.fixture
def store(store_backend: Backend, task: Task) -> AnyStore:
    opened = store_backend.connect()
    opened.open([task])
    return opened
