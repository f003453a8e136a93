"""The owner of an embedded store, as a restart of its replica finds the directory."""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray import serve

from actors.callers import Wait
from actors.monitor import Monitor
from actors.remote import RemoteStore
from actors.store_owner import StoreOwner
from pipeline.binding import Task
from pipeline.config.load import ConfigTree
from pipeline.context import Context
from pipeline.metrics import samples
from pipeline.records.batches import PointBatch
from pipeline.records.record import point_id
from tests.config_trees import tree
from tests.unit.test_api import LocalHandle

POINT = point_id("null", "tickets", "s:T-1")


@pytest.fixture
def source(tmp_path: Path) -> ConfigTree:
    return ConfigTree(tree(store__path=str(tmp_path / "store")), "test.yaml")


def batch_of(task: Task) -> PointBatch:
    return PointBatch(
        ids=np.frombuffer(POINT, np.uint8).reshape(1, 16),
        versions=np.ones(1, np.int64),
        deleted=np.zeros(1, np.bool_),
        payloads=[{"_key": "s:T-1"}],
        vectors={task.collection: np.ones((1, task.dimension), np.float32)},
    )


def test_a_write_does_not_wait_for_flushes_however_many_hang(
    source: ConfigTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    (task, *_) = Context(source).tasks.values()
    disk = threading.Event()

    async def write_beside(owner: StoreOwner) -> None:
        await owner.open([task])
        with monkeypatch.context() as slow:
            slow.setattr(owner._store, "flush", lambda: disk.wait(20))
            flushes = [asyncio.create_task(owner.flush()) for _ in range(8)]
            await asyncio.wait_for(owner.upsert(batch_of(task)), 10)
            disk.set()
            await asyncio.gather(*flushes)

    asyncio.run(write_beside(StoreOwner(source)))


def upkeep_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "edge-optimize"]


def test_restarted_owner_serves_and_looks_after_what_an_earlier_one_opened(source: ConfigTree) -> None:
    (task, *_) = Context(source).tasks.values()
    first = StoreOwner(source)
    asyncio.run(first.open([task]))
    asyncio.run(first.upsert(batch_of(task)))
    asyncio.run(first.flush())
    del first  # its directory has one owner at a time

    before = upkeep_threads()
    second = StoreOwner(source)
    assert len(upkeep_threads()) == len(before) + 1
    assert asyncio.run(second.count(task.collection)) == 1
    found = asyncio.run(second.retrieve(task.collection, [POINT]))
    assert [stored.version for stored in found] == [1]


def test_the_app_hears_how_full_the_disk_of_its_store_is(source: ConfigTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "get_replica_context", lambda: SimpleNamespace(replica_tag="store-1"))
    monitor = Monitor()
    handle: Any = LocalHandle(monitor)
    owner = StoreOwner(source, handle)
    owner._reporter.send()
    [report] = asyncio.run(monitor.reports())
    assert report.snapshot.process == "store"
    path = source.load().store.path  # type: ignore[union-attr]  # an embedded store
    [free] = samples([report.snapshot], "refract_store_free_bytes", path=str(path))
    [size] = samples([report.snapshot], "refract_store_size_bytes", path=str(path))
    assert 0 < free.value <= size.value
    owner._reporter.close()


class LocalCaller:
    """Implements Caller: the owner in this process."""

    def __init__(self, owner: StoreOwner) -> None:
        self._owner = owner

    def ask(self, method: str, *args: Any, **kwargs: Any) -> Wait:
        answer = asyncio.run(getattr(self._owner, method)(*args, **kwargs))
        return lambda _timeout_s: answer


def test_tombstones_are_listed_dated_and_purged_through_the_owner(source: ConfigTree) -> None:
    (task, *_) = Context(source).tasks.values()
    store = RemoteStore(LocalCaller(StoreOwner(source)))
    assert not store.inspect([task])[task.name].exists
    store.open([task])
    assert store.inspect([task])[task.name].exists
    dead = replace(batch_of(task), deleted=np.ones(1, np.bool_), payloads=[{"_deleted_at": 1_000}])
    store.upsert(dead)
    assert [point.deleted_ms for point in store.tombstones(task.collection, None, 9)] == [1_000]
    store.repair(replace(dead, payloads=[{"_deleted_at": 2_000}]))
    assert [point.deleted_ms for point in store.tombstones(task.collection, None, 9)] == [2_000]
    assert store.tombstones(task.collection, POINT, 9) == []
    assert store.purge_tombstones(task.collection, {POINT: 0}) == 0
    assert store.purge_tombstones(task.collection, {POINT: 1}) == 1
    assert store.retrieve(task.collection, [POINT]) == []
