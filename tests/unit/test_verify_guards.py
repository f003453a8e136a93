"""What a comparison does about outages, and before it deletes anything."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.compare.extras import Extras, approved
from pipeline.compare.findings import FAULT, DifferenceKind, TaskFindings
from pipeline.compare.patience import PatientRange, PatientStore, patient
from pipeline.compare.report import RepairedTask
from pipeline.errors import ConfigError, TransientError
from pipeline.interfaces import CollectionState, StoredPoint, Written
from pipeline.records.batches import PointBatch
from tests.unit.comparing import (
    TASK,
    ComparableFake,
    World,
    faults,
    forty_keys,
    id_of,
    quiet,
)


class BlinkingStore(ComparableFake):
    """Does not answer the first call of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.blinked: set[str] = set()

    def _blink(self, kind: str) -> None:
        if kind not in self.blinked:
            self.blinked.add(kind)
            raise TransientError("the store is away")

    def inspect(self, tasks: object) -> Mapping[str, CollectionState]:
        self._blink("inspect")
        return super().inspect(tasks)

    def repair(self, batch: PointBatch) -> Written:
        self._blink("repair")
        return super().repair(batch)

    def open(self, tasks: Any) -> None:
        self._blink("open")
        super().open(tasks)

    def count(self, collection: str) -> int:
        self._blink("count")
        return super().count(collection)

    def flush(self) -> None:
        self._blink("flush")
        super().flush()

    def retrieve(self, collection: str, ids: object, *, with_vectors: bool = False) -> list[StoredPoint]:
        self._blink("retrieve")
        return super().retrieve(collection, ids, with_vectors=with_vectors)

    def scroll(
        self, collection: str, after: bytes | None, limit: int, *, with_vectors: bool = False
    ) -> list[StoredPoint]:
        self._blink("scroll")
        return super().scroll(collection, after, limit, with_vectors=with_vectors)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return forty_keys(tmp_path)


def test_blips_of_the_store_and_of_the_brokers_are_ridden_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.live.retry.FIRST_WAIT_S", 0.0001)
    blinking = BlinkingStore()
    blinking.points = world.store.points
    world.source.blips = [0, 7, 7, 60]
    world.store = blinking
    waits: list[str] = []
    retry = patient(lambda doing, _done, _total: waits.append(doing))
    world.compared, world.range = PatientStore(blinking, retry), PatientRange(world.source, retry)
    del blinking.collection[id_of("k1")]
    report = world.verify()
    assert world.source.blips == []
    assert faults(report) == {"missing": 1}
    assert world.repair(report, delete_extras=False) == RepairedTask(written=1, deleted=0, left=0)
    assert blinking.blinked == {"inspect", "count", "scroll", "retrieve", "open", "repair", "flush"}
    assert set(waits) == {"waiting for the store", "waiting for the brokers"}


def test_an_outage_beyond_patience_ends_the_comparison(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.compare.patience.PATIENCE_S", 0.0)
    monkeypatch.setattr("pipeline.live.retry.FIRST_WAIT_S", 0.0001)
    world.compared = PatientStore(BlinkingStore(), patient(quiet))
    with pytest.raises(TransientError, match="the store is away"):
        world.verify()


def extras_of(number: int, points: int) -> TaskFindings:
    found = TaskFindings(TASK, num_points=points)
    extra = np.zeros(number, FAULT)
    extra["id"], extra["kind"] = [b"%016d" % n for n in range(number)], DifferenceKind.EXTRA
    found.faults.append(extra)
    return found


def test_more_than_a_tenth_of_a_collection_is_deleted_by_force_only() -> None:
    asked: list[Extras] = []

    def approve(found: Sequence[Extras]) -> bool:
        asked.extend(found)
        return True

    assert approved([extras_of(4, 40), extras_of(0, 9)], {}, approve, force=False)
    assert asked == [Extras("urgency", 4, 40)]
    with pytest.raises(ConfigError, match="5 of 40 points are extra, more than a tenth"):
        approved([extras_of(1, 40), extras_of(5, 40)], {}, approve, force=False)
    assert approved([extras_of(5, 40)], {}, approve, force=True)
    assert not approved([extras_of(1, 40)], {}, lambda _: False, force=True)
    assert not approved([extras_of(0, 40)], {}, approve, force=True)
