"""Source against store: every kind of difference is found, settled and mended, and nothing else is."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.compare.report import RepairedTask
from pipeline.compare.source_keys import NUM_RUNS, SourceKeys, newest, raw_ids, run_of
from pipeline.records.record import Position
from tests.fakes import DIMENSION, vector
from tests.unit.comparing import (
    IDS,
    TASK,
    World,
    at,
    faults,
    forty_keys,
    id_of,
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return forty_keys(tmp_path)


def test_equal_is_equal(world: World) -> None:
    report = world.verify()
    assert report.equal
    assert (report.num_keys, report.num_tombstones, report.num_checked) == (39, 1, 39)
    assert world.dead_letters == {"invalid_json": 1}


def test_every_kind_is_found_and_mended(world: World) -> None:
    points = world.store.collection
    del points[id_of("k0")], points[id_of("k1")]
    points[id_of("k2")] = (1, False, vector(TASK.prompt, "old 2"))
    points[id_of("k3")] = (2, True, None)
    points[id_of("k4")] = (2, False, vector("another task", "text 4"))
    points[b"x" * 16] = (7, False, vector(TASK.prompt, "x"))
    report = world.verify()
    expected = dict.fromkeys(["missing", "stale", "extra", "wrong_state", "tombstone_missing", "wrong_vector"], 1)
    assert faults(report) == expected
    assert world.repair(report, delete_extras=False) == RepairedTask(written=5, deleted=0, left=1)
    again = world.verify()
    assert faults(again) == {"extra": 1}
    assert world.repair(again, delete_extras=True) == RepairedTask(written=0, deleted=1, left=0)
    assert points[b"x" * 16][1]
    assert world.verify().equal


def test_a_repair_never_goes_over_a_newer_point(world: World) -> None:
    points = world.store.collection
    points[id_of("k2")] = (1, False, vector(TASK.prompt, "old 2"))
    report = world.verify()
    points[id_of("k2")] = (3, False, vector(TASK.prompt, "newer"))
    world.repair(report, delete_extras=False)
    assert points[id_of("k2")][0] == 3


def test_what_the_group_has_not_committed_is_pending_and_not_repaired(world: World) -> None:
    del world.store.collection[id_of("k5")]
    world.source.finished = 45
    report = world.verify()
    assert faults(report) == {"pending": 1}
    assert not report.equal
    world.repair(report, delete_extras=True)
    assert id_of("k5") not in world.store.collection


def test_what_the_pipeline_writes_meanwhile_is_no_fault(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    points = world.store.collection
    late = points.pop(id_of("k5"))
    world.source.finished = 45
    world.wait_s = 10.0

    def finish(_: float) -> None:
        points[id_of("k5")] = late
        world.source.finished = 81

    monkeypatch.setattr("pipeline.compare.waiting.time.sleep", finish)
    assert world.verify().equal


def test_a_point_from_beyond_the_range_is_no_extra(world: World) -> None:
    row = vector(TASK.prompt, "x")
    for number, offset in enumerate([81, 5]):
        raw = bytes([number]) * 16
        world.store.collection[raw] = (9, False, row)
        world.store.sources[raw] = f"tickets:0:{offset}"
    report = world.verify()
    assert faults(report) == {"extra": 1}
    assert [fault["id"] for fault in report.examples(5, lambda _: "")] == ["01010101-0101-0101-0101-010101010101"]
    assert report.num_newer == 1


def test_a_point_of_another_source_is_counted_and_never_extra(world: World) -> None:
    """What a backfill wrote for keys that no topic has."""
    for number in range(3):
        raw = bytes([number]) * 16
        world.store.collection[raw] = (9, False, vector(TASK.prompt, "x"))
        world.store.sources[raw] = f"history.parquet@0123abcd#0:{number}"
    report = world.verify()
    assert report.equal
    assert (report.num_elsewhere, report.num_points) == (3, 42)
    world.repair(report, delete_extras=True)
    assert not world.store.collection[b"\0" * 16][1]


def test_a_newer_point_is_no_fault(world: World) -> None:
    world.store.collection[id_of("k6")] = (99, False, vector(TASK.prompt, "later"))
    report = world.verify()
    assert report.equal
    assert report.num_newer == 1


def test_a_record_in_the_dead_letter_topic_is_not_expected(world: World) -> None:
    world.store.collection[id_of("k7")] = (1, False, vector(TASK.prompt, "old 7"))
    world.source.refused = {("tickets", 0, 47): "invalid_embedding"}
    assert world.verify().equal
    assert world.dead_letters == {"invalid_json": 1, "invalid_embedding": 1}


def test_of_equal_versions_the_first_counts(tmp_path: Path) -> None:
    world = World(tmp_path, [at("k", 1, 0, "first"), at("k", 1, 1, "second")])
    assert world.verify().equal
    world.store.collection[id_of("k")] = (1, False, vector(TASK.prompt, "second"))
    assert faults(world.verify()) == {"wrong_vector": 1}


def test_a_foreign_collection_is_named_and_left_alone(world: World) -> None:
    world.store.foreign = "foreign fingerprint"
    report = world.verify()
    assert (report.fingerprint_fault, report.equal) == ("foreign fingerprint", False)


def test_a_collection_that_does_not_exist_misses_every_key(world: World) -> None:
    world.store.exists = False
    world.store.points.clear()
    report = world.verify(sample=0)
    assert faults(report) == {"missing": 39, "tombstone_missing": 1}


def test_before_the_pipeline_has_written_anything_what_it_has_not_come_to_is_pending(world: World) -> None:
    world.store.exists = False
    world.store.points.clear()
    world.source.finished = 0
    assert faults(world.verify(sample=0)) == {"pending": 40}
    world.source.finished = 45
    assert faults(world.verify(sample=0)) == {"missing": 4, "tombstone_missing": 1, "pending": 35}


def test_a_sample_has_its_size(world: World) -> None:
    assert world.verify(sample=7).num_checked == 7


def test_runs_hold_every_entry_in_the_order_of_ids(tmp_path: Path) -> None:
    keys = SourceKeys(tmp_path, IDS, ["tickets"])
    ids = [bytes([n]) + b"\0" * 15 for n in range(256)]
    for point in reversed(ids):
        keys.add(point, 1, Position("tickets", 0, 0, 0), deleted=False)
        keys.add(point, 2, Position("tickets", 0, 1, 0), deleted=False)
    keys.flush()
    runs = [newest(keys.run(number)) for number in range(NUM_RUNS)]
    entries = np.concatenate(runs)
    assert raw_ids(entries["id"]) == ids
    assert set(entries["version"].tolist()) == {2}
    assert run_of(entries["id"]).tolist() == [n // 4 for n in range(256)]
    assert DIMENSION == 8
