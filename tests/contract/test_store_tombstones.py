"""Tombstones of every store: they say when they were written, are listed apart, and are purged only while unchanged."""

import time

from pipeline.binding import Task
from tests.contract.store_backends import AnyStore, Backend, delete, key_id, make_batch, put, stored


def test_a_tombstone_says_when_it_was_written(store: AnyStore, task: Task) -> None:
    before_ms = time.time() * 1000 - 1
    store.upsert(make_batch([delete("gone", 5), put("live", 5)], task))
    gone, live = store.retrieve(task.collection, [key_id("gone")]) + store.retrieve(task.collection, [key_id("live")])
    assert gone.deleted_ms is not None
    assert before_ms <= gone.deleted_ms <= time.time() * 1000 + 1
    assert live.deleted_ms is None
    assert gone.payload == {"_key": "s:gone"}


def test_a_repeated_delete_keeps_the_time_of_the_first(store: AnyStore, task: Task) -> None:
    store.upsert(make_batch([("gone", 5, None, {"_deleted_at": 1_000})], task))
    store.upsert(make_batch([delete("gone", 5)], task))
    assert [point.deleted_ms for point in store.tombstones(task.collection, None, 9)] == [1_000]
    store.upsert(make_batch([delete("gone", 6)], task))
    assert [point.deleted_ms for point in store.tombstones(task.collection, None, 9)] != [1_000]


def test_a_tombstone_from_before_times_were_stored_has_none(
    store_backend: Backend, store: AnyStore, task: Task
) -> None:
    for key, time_ms in (("old", None), ("odd", "yesterday"), ("yes", True)):
        given = {} if time_ms is None else {"_deleted_at": time_ms}
        store_backend.put_raw(store, task.collection, key, {"_version": 5, "_state": "deleted", **given})
    assert [point.deleted_ms for point in store.tombstones(task.collection, None, 9)] == [None] * 3


def test_tombstones_are_listed_in_the_order_of_ids_and_nothing_else_is(store: AnyStore, task: Task) -> None:
    """250: more than one page of strict mode."""
    store.upsert(make_batch([put(f"live {number}", 1) for number in range(250)], task))
    store.upsert(make_batch([delete(number, 1) for number in range(250)], task))
    ids = sorted(key_id(number) for number in range(250))
    assert [point.id for point in store.tombstones(task.collection, None, 1_000)] == ids
    found: list[bytes] = []
    while page := store.tombstones(task.collection, found[-1] if found else None, 60):
        found += [point.id for point in page]
        assert len(page) <= 60
    assert found == ids


def test_a_listed_tombstone_that_was_purged_does_not_disturb_the_listing(store: AnyStore, task: Task) -> None:
    store.upsert(make_batch([delete(number, 1) for number in range(6)], task))
    first = store.tombstones(task.collection, None, 3)
    assert store.purge_tombstones(task.collection, {point.id: point.version for point in first}) == 3
    rest = store.tombstones(task.collection, first[-1].id, 9)
    assert [point.id for point in rest] == sorted(stored(store, task))


def test_a_state_that_arrives_between_listing_and_purge_survives(store: AnyStore, task: Task) -> None:
    store.upsert(make_batch([delete(key, 5) for key in ("gone", "revived", "again")], task))
    listed = {point.id: point.version for point in store.tombstones(task.collection, None, 9)}
    store.upsert(make_batch([put("revived", 6), delete("again", 7)], task))
    assert store.purge_tombstones(task.collection, listed) == 1
    assert stored(store, task) == {key_id("revived"): (6, False), key_id("again"): (7, True)}
