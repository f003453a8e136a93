"""A source and a store that agree until a test damages one of them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.binding import Task
from pipeline.compare.comparison import Comparison, note_source
from pipeline.compare.findings import TaskFindings
from pipeline.compare.joined import Reading
from pipeline.compare.mending import mend
from pipeline.compare.patience import ComparedStore
from pipeline.compare.report import RepairedTask
from pipeline.compare.revisit import Revisit
from pipeline.compare.source_keys import SourceKeys
from pipeline.compare.vector_check import check_vectors
from pipeline.compare.waiting import Waiting
from pipeline.errors import EnvironmentFault, Reason, TransientError
from pipeline.interfaces import CollectionState, Found, Letters, Origin, RecordRange, StoredPoint, Written
from pipeline.records.batches import Float32, Int64, PointBatch, Priority
from pipeline.records.record import Partition, PointIds, Position, Record, point_id
from tests.fakes import FakeEmbedder, FakeStore, FakeTokenizer, record, task, vector

PIPELINE = "p"
IDS = PointIds(PIPELINE, {"tickets": "tickets"})
TASK = task()
PLACE = Partition("tickets", 0)


class FakeRange:
    """Records of one partition; everything below `finished` is committed."""

    def __init__(self, records: list[Record | Reason], begin: int = 0) -> None:
        self.found = [
            Found(Position(*PLACE, begin + number, 0), *((item, None) if isinstance(item, Record) else (None, item)))
            for number, item in enumerate(records)
        ]
        self.begins: Mapping[Partition, int] = {PLACE: begin}
        self.ends: Mapping[Partition, int] = {PLACE: begin + len(records)}
        self.finished = begin + len(records)
        self.refused: dict[tuple[str, int, int], str] = {}
        self.blips: list[int] = []
        """Offsets at which reading is interrupted, once each."""

    @property
    def num_records(self) -> int:
        return len(self.found)

    def read(
        self, wanted: Mapping[tuple[str, int], Int64] | None = None, after: Position | None = None
    ) -> Iterator[Found]:
        for found in self.found:
            if after is not None and found.position.offset <= after.offset:
                continue
            if self.blips and found.position.offset >= self.blips[0]:
                self.blips.pop(0)
                raise TransientError("no answer from the brokers")
            if wanted is None or found.position.offset in wanted.get(("tickets", 0), ()):
                yield found

    def origin_of(self, source: str) -> Origin:
        if "#" in source:
            return Origin.ELSEWHERE
        offset = int(source.rpartition(":")[2] or self.begins[PLACE])
        return Origin.INSIDE if self.begins[PLACE] <= offset < self.ends[PLACE] else Origin.OUTSIDE

    def committed(self) -> Mapping[Partition, int] | None:
        return {PLACE: self.finished}

    def letters(self) -> Letters | None:
        return Letters({}, self.refused, 0)


class ComparableFake(FakeStore):
    """`before_look` runs once, between the scan and the second look, as the pipeline might."""

    def __init__(self) -> None:
        super().__init__()
        self.exists = True
        self.foreign = ""
        self.sources: dict[bytes, str] = {}

    def inspect(self, tasks: object) -> Mapping[str, CollectionState]:  # noqa: ARG002
        if self.foreign:
            raise EnvironmentFault(self.foreign)
        return {TASK.name: CollectionState(self.exists, TASK.alias)}

    def repair(self, batch: PointBatch) -> Written:
        for collection, rows in batch.vectors.items():
            points = self.points.setdefault(collection, {})
            for row, raw in enumerate(batch.ids):
                version, deleted = int(batch.versions[row]), bool(batch.deleted[row])
                if raw.tobytes() not in points or points[raw.tobytes()][0] <= version:
                    points[raw.tobytes()] = (version, deleted, None if deleted else rows[row].copy())
        return Written({})

    def retrieve(self, collection: str, ids: object, *, with_vectors: bool = False) -> list[StoredPoint]:
        return self._sourced(super().retrieve(collection, ids, with_vectors=with_vectors))  # type: ignore[arg-type]

    def scroll(
        self, collection: str, after: bytes | None, limit: int, *, with_vectors: bool = False
    ) -> list[StoredPoint]:
        return self._sourced(super().scroll(collection, after, limit, with_vectors=with_vectors))

    def _sourced(self, found: list[StoredPoint]) -> list[StoredPoint]:
        return [
            StoredPoint(
                point.id, point.version, point.deleted, {"_source": self.sources.get(point.id, "")}, point.vector
            )
            for point in found
        ]

    @property
    def collection(self) -> dict[bytes, tuple[int, bool, np.ndarray | None]]:
        return self.points.setdefault(TASK.collection, {})


def id_of(key: str) -> bytes:
    return point_id(PIPELINE, "tickets", f"s:{key}")


def at(key: str, version: int, offset: int, text: str | None = "hello") -> Record:
    return record(key, version, text, offset=offset)


class FakeEncoder:
    def encode(self, task: Task, texts: Sequence[str]) -> Float32:
        [rows] = FakeEmbedder().embed("m", FakeTokenizer().encode(texts, [task.prompt]), Priority.BACKFILL)
        return rows


class World:
    """A range and a store that agree until a test damages one of them."""

    def __init__(self, directory: Path, records: list[Record | Reason]) -> None:
        self.source = FakeRange(records)
        self.store: ComparableFake = ComparableFake()
        self.compared: ComparedStore | None = None
        self.range: RecordRange = self.source
        self.keys = SourceKeys(directory, IDS, ["tickets"])
        self.wait_s = 0.0
        self.told: list[tuple[str, int, int]] = []
        """What the waits said of themselves."""
        for item in records:
            if isinstance(item, Record):
                self.put(item)

    def put(self, item: Record) -> None:
        key = point_id(PIPELINE, "tickets", item.key)
        if self.store.collection.get(key, (-1,))[0] < item.version:
            row = None if item.text is None else vector(TASK.prompt, item.text)
            self.store.collection[key] = (item.version, item.deleted, row)

    def verify(self, sample: int | None = None) -> TaskFindings:
        self.dead_letters = note_source(self.range, self.keys, quiet).dead_letters
        waiting = Waiting(self.wait_s, lambda: True, lambda *step: self.told.append(step))
        self.comparison = Comparison(self.keys, self.range, self.compared or self.store, waiting, quiet)
        found = self.comparison.compare(TASK, Reading(["tickets"], [], [self.range]), sample)
        check_vectors([found], self.revisit, self.compared or self.store)
        return found

    def repair(self, found: TaskFindings, *, delete_extras: bool) -> RepairedTask:
        [repaired] = mend([found], self.revisit, self.compared or self.store, delete_extras=delete_extras).values()
        return repaired

    @property
    def revisit(self) -> Revisit:
        return Revisit(self.range, self.keys, FakeEncoder(), quiet)


def quiet(doing: str, done: int, total: int) -> None:
    pass


def faults(report: TaskFindings) -> dict[str, int]:
    return {kind: count for kind, count in report.counts.items() if count}


def forty_keys(tmp_path: Path) -> World:
    """Forty keys in two versions each, one of them deleted, and a record that is none."""
    records: list[Record | Reason] = [at(f"k{n}", 1, n, f"old {n}") for n in range(40)]
    records += [at(f"k{n}", 2, 40 + n, f"text {n}" if n else None) for n in range(40)]
    return World(tmp_path, [*records, Reason.INVALID_JSON])
