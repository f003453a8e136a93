"""The index of a fresh collection is put off while it is filled, and restored whatever happened in between."""

import pytest

from pipeline.backfill.bulk import finish_index
from pipeline.binding import Task
from pipeline.interfaces import DeferrableIndex
from pipeline.stores.qdrant import QdrantStore
from pipeline.stores.qdrant_bulk import DEFERRED
from tests.contract.store_backends import QdrantBackend, make_batch, put


@pytest.fixture
def task(qdrant_backend: QdrantBackend) -> Task:
    return qdrant_backend.task()


@pytest.fixture
def store(qdrant_backend: QdrantBackend, task: Task) -> QdrantStore:
    opened = qdrant_backend.connect()
    assert isinstance(opened, QdrantStore)
    opened.open([task])
    return opened


def links(store: QdrantStore, task: Task) -> int:
    return int(store._index._info(task.collection).config.hnsw_config.m)


def test_a_fresh_collection_gets_its_links_back(store: QdrantStore, task: Task) -> None:
    before = links(store, task)
    assert before > 0
    assert store.defer_index(task)
    assert links(store, task) == 0
    shown: list[tuple[str, int, int]] = []
    assert finish_index(store, [task], lambda *step: shown.append(step)) == [task.name]
    assert links(store, task) == before
    assert DEFERRED not in store._collections.get(task.collection).metadata
    assert shown == [(f"building the index of {task.name}", 0, 1)]
    assert finish_index(store, [task], lambda *_step: None) == []


def test_what_a_crashed_run_put_off_the_next_one_restores(
    qdrant_backend: QdrantBackend, store: QdrantStore, task: Task
) -> None:
    before = links(store, task)
    store.defer_index(task)
    store.upsert(make_batch([put("a", 1)], task))
    later = qdrant_backend.connect()
    assert isinstance(later, QdrantStore)
    later.open([task])
    assert later.defer_index(task)  # still put off, although there are points now
    assert links(later, task) == 0
    assert finish_index(later, [task], lambda *_step: None) == [task.name]
    assert links(later, task) == before


def test_the_index_of_a_collection_with_points_stays(store: QdrantStore, task: Task) -> None:
    before = links(store, task)
    store.upsert(make_batch([put("a", 1)], task))
    assert not store.defer_index(task)
    assert links(store, task) == before


def test_only_the_server_builds_an_index(store: QdrantStore) -> None:
    assert isinstance(store, DeferrableIndex)
    assert finish_index(object(), [], lambda *_step: None) == []
