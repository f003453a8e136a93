"""The contract of `pipeline.interfaces.Store`: what is written, what wins, what is read."""

import itertools
import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.binding import Task
from pipeline.errors import BatchShapeError, EnvironmentFault, Reason, RecordError
from pipeline.filters import parse_filters
from pipeline.records.record import MAX_VERSION
from tests.contract.store_backends import (
    DIMENSION,
    AnyStore,
    Backend,
    Row,
    delete,
    key_id,
    make_batch,
    put,
    stored,
    unit,
)

EXAMPLE = itertools.count()
FULL_CONTRACT = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def version_of(store: AnyStore, task: Task, key: str | int) -> int:
    (point,) = store.retrieve(task.collection, [key_id(key)])
    return point.version


# --------------------------------------------------------------------------------------------- guard


@pytest.mark.parametrize(
    ("before", "replaced"),
    [
        ({"_version": 7}, True),
        ({"_version": 8}, False),
        ({"_version": 9}, False),
        ({"_version": MAX_VERSION}, False),
        ({}, True),
        ({"_version": None}, True),
        ({"_version": "zz"}, True),
        ({"_version": True}, True),
    ],
)
def test_a_stored_point_is_replaced_only_when_its_version_is_older_or_no_number(
    store_backend: Backend, store: AnyStore, task: Task, before: Mapping[str, Any], *, replaced: bool
) -> None:
    store_backend.put_raw(store, task.collection, "k", {**before, "text": "old"})
    store.upsert(make_batch([put("k", 8, text="new")], task))
    (point,) = store.retrieve(task.collection, [key_id("k")])
    assert point.payload["text"] == ("new" if replaced else "old")


def test_an_absent_point_is_inserted(store: AnyStore, task: Task) -> None:
    written = store.upsert(make_batch([put("k", 0, text="x")], task))
    assert written.stale == {task.collection: 0}
    (point,) = store.retrieve(task.collection, [key_id("k")], with_vectors=True)
    assert (point.version, point.deleted, dict(point.payload)) == (0, False, {"_key": "s:k", "text": "x"})
    assert point.vector is not None
    assert np.allclose(point.vector, unit(1.0, 0.0))


def test_neighbouring_versions_below_two_to_the_53_are_told_apart(store: AnyStore, task: Task) -> None:
    store.upsert(make_batch([put("k", MAX_VERSION - 1, text="old")], task))
    store.upsert(make_batch([put("k", MAX_VERSION, text="new")], task))
    (point,) = store.retrieve(task.collection, [key_id("k")])
    assert (point.version, point.payload["text"]) == (MAX_VERSION, "new")


@pytest.mark.parametrize("order", [[7, 6], [6, 7]])
def test_two_versions_of_one_id_in_a_batch_leave_the_newest(store: AnyStore, task: Task, order: list[int]) -> None:
    store.upsert(make_batch([put("k", 5)], task))
    written = store.upsert(make_batch([put("k", version, text=str(version)) for version in order], task))
    (point,) = store.retrieve(task.collection, [key_id("k")])
    assert (point.version, point.payload["text"]) == (7, "7")
    assert written.stale == {task.collection: 1}


def test_of_equal_versions_in_a_batch_the_first_is_kept(store: AnyStore, task: Task) -> None:
    store.upsert(make_batch([put("k", 7, text="first"), put("k", 7, text="second")], task))
    (point,) = store.retrieve(task.collection, [key_id("k")])
    assert point.payload["text"] == "first"


def test_only_older_points_count_as_stale_in_each_collection(store_backend: Backend) -> None:
    store, first, second = store_backend.connect(), store_backend.task("one"), store_backend.task("two")
    store.open([first, second])
    store.upsert(make_batch([put(key, 10) for key in "abc"], first))
    written = store.upsert(make_batch([put("a", 9), put("b", 10), put("c", 11), put("d", 1)], first, second))
    assert written.stale == {first.collection: 1, second.collection: 0}
    assert version_of(store, first, "a") == 10
    assert version_of(store, second, "a") == 9


def test_a_batch_for_two_collections_is_guarded_in_each_by_what_that_one_holds(store_backend: Backend) -> None:
    store, tasks = store_backend.connect(), [store_backend.task(name) for name in ("one", "two", "three")]
    store.open(tasks)
    keys = range(10)
    store.upsert(make_batch([put(key, 5) for key in keys], *tasks))
    store.upsert(make_batch([put(key, 8) for key in keys], *tasks[:2]))
    store.upsert(make_batch([put(key, 9) for key in range(5)], tasks[1]))
    written = store.upsert(make_batch([put(key, 7) for key in range(12)], *tasks))
    assert list(written.stale.values()) == [10, 10, 0]
    new = {key_id(key): (7, False) for key in (10, 11)}
    assert stored(store, tasks[0]) == {key_id(key): (8, False) for key in keys} | new
    assert stored(store, tasks[1]) == {key_id(key): (9 if key < 5 else 8, False) for key in keys} | new
    assert stored(store, tasks[2]) == {key_id(key): (7, False) for key in keys} | new


def test_a_batch_larger_than_one_request_is_guarded_throughout(store: AnyStore, task: Task) -> None:
    store.upsert(make_batch([put(key, 10) for key in range(1_500)], task))
    written = store.upsert(make_batch([put(key, 9 + key % 3) for key in range(1_500)], task))
    assert written.stale == {task.collection: 500}
    expected = {key_id(key): (max(10, 9 + key % 3), False) for key in range(1_500)}
    assert stored(store, task) == expected


@FULL_CONTRACT
@given(
    batches=st.lists(
        st.lists(
            st.tuples(st.sampled_from("abcd"), st.integers(0, 6), st.booleans()),
            min_size=1,
            max_size=8,
        ),
        min_size=1,
        max_size=6,
    )
)
def test_any_sequence_of_batches_ends_like_a_dict_of_newest_versions(
    store: AnyStore, task: Task, batches: list[list[tuple[str, int, bool]]]
) -> None:
    example = next(EXAMPLE)
    model: dict[bytes, tuple[int, bool]] = {}
    for drawn in batches:
        before = dict(model)
        batch = [(f"{example}{key}", version, gone) for key, version, gone in drawn]
        for key, version, gone in batch:
            if version > model.get(key_id(key), (-1, False))[0]:
                model[key_id(key)] = (version, gone)
        rows = [delete(key, version) if gone else put(key, version) for key, version, gone in batch]
        written = store.upsert(make_batch(rows, task))
        newest = {key: max(row[1] for row in batch if row[0] == key) for key in {row[0] for row in batch}}
        lost = sum(before.get(key_id(key), (-1, False))[0] > version for key, version in newest.items())
        assert written.stale == {task.collection: lost + len(batch) - len(newest)}
        found = store.retrieve(task.collection, [key_id(f"{example}{key}") for key in "abcd"])
        assert {point.id: (point.version, point.deleted) for point in found} == model


def test_concurrent_writers_never_lower_a_version(store: AnyStore, task: Task) -> None:
    seen: dict[int, list[int]] = {key: [] for key in range(40)}

    def write(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(12):
            rows: list[Row] = []
            for key in rng.sample(range(40), 25):
                version = rng.randrange(1_000)
                seen[key].append(version)
                rows.append(delete(key, version) if rng.random() < 0.2 else put(key, version))
            store.upsert(make_batch(rows, task))

    def watch(_: int) -> None:
        highest: dict[bytes, int] = {}
        for _ in range(30):
            for point in store.scroll(task.collection, None, 100):
                assert point.version >= highest.get(point.id, -1)
                highest[point.id] = point.version

    with ThreadPoolExecutor(5) as pool:
        jobs = [pool.submit(write, seed) for seed in range(4)] + [pool.submit(watch, 0)]
        for job in jobs:
            job.result()
    found = {point: version for point, (version, _) in stored(store, task).items()}
    assert found == {key_id(key): max(versions) for key, versions in seen.items() if versions}


# ---------------------------------------------------------------------------------------- tombstones


def test_a_deleted_point_stays_deleted_against_an_older_upsert(store: AnyStore, task: Task) -> None:
    store.upsert(make_batch([put("k", 5)], task))
    store.upsert(make_batch([delete("k", 7)], task))
    written = store.upsert(make_batch([put("k", 6)], task))
    assert stored(store, task) == {key_id("k"): (7, True)}
    assert written.stale == {task.collection: 1}
    assert store.count(task.collection) == 0


def test_a_newer_upsert_revives_a_deleted_point(store: AnyStore, task: Task) -> None:
    store.upsert(make_batch([delete("k", 7)], task))
    store.upsert(make_batch([put("k", 8)], task))
    assert stored(store, task) == {key_id("k"): (8, False)}
    assert [hit.id for hit in store.search(task, unit(1.0), 5, ())] == [key_id("k")]


def test_a_delete_of_an_unknown_key_is_stored(store: AnyStore, task: Task) -> None:
    store.upsert(make_batch([delete("k", 7)], task))
    (point,) = store.retrieve(task.collection, [key_id("k")], with_vectors=True)
    assert (point.version, point.deleted, point.vector) == (7, True, None)


def test_deleted_points_are_never_found_nor_counted(store: AnyStore, task: Task) -> None:
    store.upsert(make_batch([put(key, 5, team="red") for key in range(6)], task))
    store.upsert(make_batch([delete(key, 6) for key in range(0, 6, 2)], task))
    alive = {key_id(key) for key in range(1, 6, 2)}
    assert {hit.id for hit in store.search(task, unit(1.0), 100, ())} == alive
    assert {hit.id for hit in store.search(task, unit(1.0), 100, parse_filters({"team": "red"}, task.payload))} == alive
    assert store.count(task.collection) == 3
    assert len(store.scroll(task.collection, None, 100)) == 6


def test_purging_removes_only_tombstones_that_are_no_newer(store: AnyStore, task: Task) -> None:
    store.upsert(make_batch([delete("old", 5), delete("newer", 9), put("live", 5), put("revived", 6)], task))
    versions = {key_id(key): 5 for key in ("old", "newer", "live", "revived", "unknown")}
    assert store.purge_tombstones(task.collection, versions) == 1
    assert stored(store, task) == {
        key_id("newer"): (9, True),
        key_id("live"): (5, False),
        key_id("revived"): (6, False),
    }


# ------------------------------------------------------------------------------------------- refusals

BAD_VECTORS = {
    "nan": np.array([1, np.nan, 0, 0], np.float32),
    "inf": np.array([np.inf, 0, 0, 0], np.float32),
    "zero": np.zeros(DIMENSION, np.float32),
    "tiny": np.full(DIMENSION, 1e-30, np.float32),
}


@pytest.mark.parametrize("bad", BAD_VECTORS)
def test_a_vector_without_direction_is_refused_alone_and_named_among_several(
    store: AnyStore, task: Task, bad: str
) -> None:
    row: Row = ("bad", 1, BAD_VECTORS[bad], {})
    with pytest.raises(RecordError) as alone:
        store.upsert(make_batch([row], task))
    assert alone.value.reason is Reason.INVALID_EMBEDDING
    with pytest.raises(BatchShapeError, match="rows 1 of 3"):
        store.upsert(make_batch([put("a", 1), row, put("c", 1)], task))
    assert stored(store, task) == {}


def test_the_vector_of_a_tombstone_is_not_looked_at(store: AnyStore, task: Task) -> None:
    batch = make_batch([delete("k", 1)], task)
    batch.vectors[task.collection][:] = np.nan
    store.upsert(batch)
    assert stored(store, task) == {key_id("k"): (1, True)}


def test_vectors_of_another_width_are_nobodys_record_but_an_environment_fault(store: AnyStore, task: Task) -> None:
    batch = make_batch([put("k", 1)], task)
    wide = np.ones((1, DIMENSION + 1), np.float32)
    with pytest.raises(EnvironmentFault, match=f"vectors of {DIMENSION} values, got {DIMENSION + 1}"):
        store.upsert(type(batch)(batch.ids, batch.versions, batch.deleted, batch.payloads, {task.collection: wide}))


@pytest.mark.parametrize("version", [-1, MAX_VERSION + 1])
def test_a_version_outside_the_exact_range_is_refused(store: AnyStore, task: Task, version: int) -> None:
    with pytest.raises(RecordError) as caught:
        store.upsert(make_batch([put("k", version)], task))
    assert caught.value.reason is Reason.INVALID_VERSION


@pytest.mark.parametrize("value", [float("nan"), "\ud800", object()], ids=["nan", "surrogate", "object"])
def test_a_payload_the_store_cannot_hold_is_refused(store: AnyStore, task: Task, value: object) -> None:
    with pytest.raises(RecordError) as caught:
        store.upsert(make_batch([put("k", 1, field=value)], task))
    assert caught.value.reason is Reason.REFUSED_BY_STORE
    with pytest.raises(BatchShapeError):
        store.upsert(make_batch([put("k", 1, field=value), put("l", 1)], task))


def test_writing_to_a_collection_that_does_not_exist_is_an_environment_fault(
    store_backend: Backend, store: AnyStore
) -> None:
    with pytest.raises(EnvironmentFault, match="does not exist"):
        store.upsert(make_batch([put("k", 1)], store_backend.task("unopened")))


@pytest.mark.parametrize("vector", [np.zeros(DIMENSION, np.float32), np.full(DIMENSION, np.nan, np.float32)])
def test_a_query_without_direction_is_refused(store: AnyStore, task: Task, vector: Any) -> None:
    with pytest.raises(RecordError):
        store.search(task, vector, 5, ())


def test_a_query_of_another_width_is_refused(store: AnyStore, task: Task) -> None:
    with pytest.raises(EnvironmentFault, match="query has shape"):
        store.search(task, np.ones(DIMENSION + 1, np.float32), 5, ())
