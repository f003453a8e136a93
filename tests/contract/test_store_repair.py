"""`repair` of both stores: over the same version, never over a newer one."""

import numpy as np
import pytest

from pipeline.binding import Task
from tests.contract.store_backends import AnyStore, Backend, delete, key_id, make_batch, put, unit


@pytest.mark.parametrize(("stored", "replaced"), [(7, True), (8, True), (9, False)])
def test_a_repair_replaces_what_is_no_newer(store: AnyStore, task: Task, stored: int, *, replaced: bool) -> None:
    store.upsert(make_batch([("k", stored, unit(0.0, 1.0), {"text": "old"})], task))
    store.repair(make_batch([("k", 8, unit(1.0), {"text": "mended"})], task))
    (point,) = store.retrieve(task.collection, [key_id("k")], with_vectors=True)
    assert (point.version, point.payload["text"]) == ((8, "mended") if replaced else (9, "old"))
    assert point.vector is not None
    assert np.allclose(point.vector, unit(1.0) if replaced else unit(0.0, 1.0))


def test_an_upsert_leaves_an_equal_version_alone(store: AnyStore, task: Task) -> None:
    store.upsert(make_batch([put("k", 8, text="first")], task))
    store.upsert(make_batch([put("k", 8, text="second")], task))
    (point,) = store.retrieve(task.collection, [key_id("k")])
    assert point.payload["text"] == "first"


def test_a_repair_inserts_what_is_absent_and_counts_what_is_newer(store: AnyStore, task: Task) -> None:
    store.upsert(make_batch([put("newer", 9), put("same", 5)], task))
    written = store.repair(make_batch([put("newer", 5), put("same", 5), put("absent", 5)], task))
    assert written.stale == {task.collection: 1}
    found = store.retrieve(task.collection, [key_id("newer"), key_id("same"), key_id("absent")])
    assert sorted(point.version for point in found) == [5, 5, 9]


def test_a_repair_turns_a_point_into_a_tombstone_of_its_version_and_back(store: AnyStore, task: Task) -> None:
    store.upsert(make_batch([put("k", 8, text="live")], task))
    store.repair(make_batch([delete("k", 8)], task))
    assert store.count(task.collection) == 0
    store.repair(make_batch([put("k", 8, text="live")], task))
    assert store.count(task.collection) == 1


def test_inspecting_tells_whether_there_is_a_collection(store_backend: Backend, store: AnyStore, task: Task) -> None:
    other = store_backend.task("other")
    assert store.inspect([task])[task.name].exists
    assert not store.inspect([other])[other.name].exists
