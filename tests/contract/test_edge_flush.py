"""A flush of the embedded store: what it syncs, and that nobody waits for the disk but its caller."""

import os
import threading
from pathlib import Path

import pytest

from pipeline.binding import Task
from tests.contract.store_backends import EdgeBackend, key_id, make_batch, make_task, put, stored


@pytest.fixture
def task() -> Task:
    return make_task("urgency")


def test_flushing_syncs_only_what_was_written_since(edge_backend: EdgeBackend, task: Task) -> None:
    store = edge_backend.connect()
    store.open([task])
    shard = store._shards[task.collection]  # type: ignore[union-attr]  # the embedded store
    store.flush()
    assert not shard._unflushed
    store.upsert(make_batch([put("k", 1)], task))
    assert shard._unflushed
    store.flush()
    assert not shard._unflushed


def test_a_flush_waits_for_a_slow_disk_without_holding_up_a_write(
    edge_backend: EdgeBackend, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Edge's own flush would hold the interpreter lock meanwhile, and with it everything."""
    store = edge_backend.connect()
    store.open([task])
    store.upsert(make_batch([put("k", 1)], task))
    shard = store._shards[task.collection]  # type: ignore[union-attr]  # the embedded store
    syncing, disk, sync = threading.Event(), threading.Event(), os.fsync
    synced: set[str] = set()
    before = {file.name for file in shard._path.rglob("*") if file.is_file()}

    def slow(file: int) -> None:
        syncing.set()
        assert disk.wait(20)
        synced.add(Path(f"/proc/self/fd/{file}").readlink().name)
        sync(file)

    with monkeypatch.context() as busy:
        busy.setattr(os, "fsync", slow)
        thread = threading.Thread(target=store.flush)
        thread.start()
        assert syncing.wait(20)
        store.upsert(make_batch([put("k", 2)], task))
        assert stored(store, task) == {key_id("k"): (2, False)}
        disk.set()
        thread.join(20)
    assert synced >= before
    assert not shard._unflushed  # what was written meanwhile included
