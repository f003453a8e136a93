"""The owner of an embedded store, as a restart of its replica finds the directory."""

import asyncio
import threading
from pathlib import Path

import numpy as np
import pytest

from actors.context import ConfigTree, Context
from actors.store_owner import StoreOwner
from pipeline.records import PointBatch, point_id
from tests.config_trees import tree


@pytest.fixture
def source(tmp_path: Path) -> ConfigTree:
    return ConfigTree(tree(store__path=str(tmp_path / "store")), "test.yaml")


def upkeep_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "edge-optimize"]


def test_restarted_owner_serves_and_looks_after_what_an_earlier_one_opened(source: ConfigTree) -> None:
    (task, *_) = Context(source).tasks.values()
    point = point_id("null", "s:T-1")
    batch = PointBatch(
        ids=np.frombuffer(point, np.uint8).reshape(1, 16),
        versions=np.ones(1, np.int64),
        deleted=np.zeros(1, np.bool_),
        payloads=[{"_key": "s:T-1"}],
        vectors={task.collection: np.ones((1, task.dimension), np.float32)},
    )
    first = StoreOwner(source)
    asyncio.run(first.open([task]))
    asyncio.run(first.upsert(batch))
    asyncio.run(first.flush())
    del first  # its directory has one owner at a time

    before = upkeep_threads()
    second = StoreOwner(source)
    assert len(upkeep_threads()) == len(before) + 1
    assert asyncio.run(second.count(task.collection)) == 1
    found = asyncio.run(second.retrieve(task.collection, [point]))
    assert [stored.version for stored in found] == [1]
