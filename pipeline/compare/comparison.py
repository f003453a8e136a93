"""Compares a source with the store, task by task, in bounded memory and while the pipeline runs.

The source's range is noted first, as a key space on disk; then each collection is read in the order
of ids and held against it, run by run. What differs is looked at again, after the group's committed
offsets were read: below them everything is finished, so only there a difference is a fault. What
lies above is pending, and what the store took from beyond the range's end is no difference at all.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from uuid import UUID

import numpy as np
import numpy.typing as npt

from pipeline.compare.accounting import Undecodable
from pipeline.compare.keyspace import ENTRY, NUM_RUNS, Entries, KeySpace, newest, places, raw_ids, run_of
from pipeline.errors import EnvironmentFault
from pipeline.interfaces import Progress, RecordRange, Store, StoredPoint
from pipeline.records.record import Partition, point_id
from pipeline.tasks import Task

PAGE_POINTS = 1_000
"""Points of one read: below the sizes at which stores slow down, and a tenth of a second of their time."""

RECHECK_S = 0.5
"""Between two looks at records the pipeline has not finished yet."""

_REPORT_RECORDS = 10_000


class Kind(IntEnum):
    """How a point can differ from the source."""

    MISSING = 0
    STALE = 1
    EXTRA = 2
    WRONG_STATE = 3
    """The right version, but live where the source deleted it or the other way round."""
    TOMBSTONE_MISSING = 4
    WRONG_VECTOR = 5
    """Not the vector the task gives its text: damaged, or of a foreign fingerprint; points carry none to tell."""
    PENDING = 6
    """The pipeline has not come to the record yet."""


FAULT = np.dtype([*ENTRY.descr, ("kind", "<u1"), ("stored", "<i8")])
"""An entry of the source, its kind, and the stored version, -1 without. An extra's has only id and versions."""

STORED = np.dtype([("id", "S16"), ("version", "<i8"), ("deleted", "?")])


@dataclass(slots=True)
class TaskReport:
    """What was found of one task."""

    task: Task
    num_keys: int = 0
    """Keys the source says are live."""
    num_tombstones: int = 0
    """Deleted keys whose tombstone stands in the store."""
    num_newer: int = 0
    """Points the store took from beyond the range, or whose record could be retained no longer."""
    num_checked: int = 0
    """Vectors computed again."""
    fingerprint_fault: str = ""
    """Why the collection is not this task's; then nothing else was compared."""
    faults: list[Entries] = field(default_factory=list)
    """Arrays of FAULT."""
    sample: Entries = field(default_factory=lambda: np.empty(0, ENTRY))
    """Entries of live keys whose vectors are to be checked, by id."""

    @property
    def counts(self) -> dict[str, int]:
        """Faults by kind."""
        found = Counter(kind for faults in self.faults for kind in faults["kind"].tolist())
        return {kind.name.lower(): found[kind] for kind in Kind}

    @property
    def equal(self) -> bool:
        """Whether the store holds what the source says."""
        return not self.fingerprint_fault and not any(map(len, self.faults))

    def select(self, *kinds: Kind) -> Entries:
        """Returns the faults of some kinds by id."""
        rows = np.concatenate([np.empty(0, FAULT), *self.faults])
        rows = rows[np.isin(rows["kind"], kinds)]
        return np.asarray(rows[np.argsort(rows["id"])])

    def examples(self, limit: int, topics: Sequence[str]) -> list[dict[str, object]]:
        """Returns the first faults of each kind: id, versions and the record's place, never its text."""
        rows = [row for kind in Kind for row in self.select(kind)[:limit]]
        return [
            {
                "id": str(UUID(bytes=row["id"].ljust(16, b"\0"))),
                "kind": Kind(row["kind"]).name.lower(),
                "version": None if row["kind"] == Kind.EXTRA else int(row["version"]),
                "stored_version": None if row["stored"] < 0 else int(row["stored"]),
                "record": None
                if row["kind"] == Kind.EXTRA
                else f"{topics[row['topic']]}:{row['partition']}:{row['offset']}",
            }
            for row in rows
        ]


@dataclass(slots=True)
class SourceReport:
    """What was found in the source."""

    num_records: int = 0
    dead_letters: Counter[str] = field(default_factory=Counter)
    """By reason: refused by the decoder, or found in the dead-letter topic."""
    undecodable: Undecodable = field(default_factory=Undecodable)
    """Of these, the places of those the decoder refused."""


def note_source(pipeline: str, source: RecordRange, keys: KeySpace, progress: Progress) -> SourceReport:
    """Fills the key space with the range. Raises like the range."""
    report = SourceReport()
    letters = source.letters()
    refused = letters.refused if letters else {}
    total = source.num_records
    for found in source.read():
        report.num_records += 1
        if report.num_records % _REPORT_RECORDS == 0:
            progress("reading the source", report.num_records, total)
        record, position = found.record, found.position
        if record is None:
            report.dead_letters[str(found.error)] += 1
            report.undecodable.add(position)
            continue
        reason = refused.get((position.topic, position.partition, position.offset)) if refused else None
        if reason is not None:
            report.dead_letters[reason] += 1
        keys.add(
            point_id(pipeline, record.key),
            record.version,
            position,
            deleted=record.deleted,
            refused=reason is not None,
        )
    keys.flush()
    return report


class Comparison:
    """One comparison of a key space with a store. Use from one thread."""

    def __init__(self, keys: KeySpace, source: RecordRange, store: Store, *, wait_s: float, progress: Progress) -> None:
        """`wait_s` bounds the wait for records the pipeline has not finished; what is left then is pending."""
        self._keys = keys
        self._source = source
        self._store = store
        self._wait_s = wait_s
        self._progress = progress

    def compare(self, task: Task, topics: Sequence[str], sample: int | None) -> TaskReport:
        """Returns what differs; `topics` are those whose records the task embeds.

        Args:
            task: Whose collection is read.
            topics: Names known to the key space.
            sample: Vectors to choose for a later check, None for all.
        """
        report = TaskReport(task)
        try:
            missing = self._store.inspect([task])[task.name].startswith("new")
        except EnvironmentFault as error:
            report.fingerprint_fault = str(error)
            return report
        numbers = self._keys.number_of(topics)
        stored_runs = _no_runs() if missing else self._stored_runs(task)
        differing = []
        sampler = _Sampler(0 if missing else sample)
        for number, stored in enumerate(stored_runs):
            entries = self._keys.run(number)
            entries = entries[np.isin(entries["topic"], numbers)]
            expected = newest(entries)
            differing.append(_differences(expected, entries["id"], stored, report))
            sampler.offer(expected[~expected["deleted"]])
        found = np.concatenate(differing)
        report.sample = sampler.chosen()
        if len(found):
            report.faults.append(found if missing else self._settle(task, found, report))
        return report

    def _stored_runs(self, task: Task) -> Iterator[Entries]:
        """Yields NUM_RUNS arrays of STORED by id, in the order of runs."""
        number, held, num_read = 0, [np.empty(0, STORED)], 0
        total = self._store.count(task.collection)
        after: bytes | None = None
        while page := self._store.scroll(task.collection, after, PAGE_POINTS):
            after = page[-1].id
            num_read += len(page)
            self._progress(f"reading {task.name}", num_read, max(total, num_read))
            rows = np.array([(point.id, point.version, point.deleted) for point in page], STORED)
            runs = run_of(rows["id"])
            for run in np.unique(runs).tolist():
                while number < run:
                    yield np.concatenate(held)
                    number, held = number + 1, [np.empty(0, STORED)]
                held.append(rows[runs == run])
        while number < NUM_RUNS:
            yield np.concatenate(held)
            number, held = number + 1, [np.empty(0, STORED)]

    def _settle(self, task: Task, found: Entries, report: TaskReport) -> Entries:
        """Looks at differences again until they are faults or none, or the wait is over."""
        deadline_s = time.monotonic() + self._wait_s
        settled = [np.empty(0, FAULT)]
        while len(found):
            # Before the store is read: what was finished by then must be readable.
            committed = self._source.committed()
            again = [self._look_again(task, found[at : at + PAGE_POINTS], committed, report) for at in _pages(found)]
            found = np.concatenate(again)
            pending = found["kind"] == Kind.PENDING
            settled.append(found[~pending])
            found = found[pending]
            if not len(found) or time.monotonic() >= deadline_s:
                break
            self._progress(f"waiting for the pipeline to finish {len(found):,} records of {task.name}", 0, 0)
            time.sleep(RECHECK_S)
        return np.concatenate([*settled, found])

    def _look_again(
        self, task: Task, found: Entries, committed: Mapping[Partition, int] | None, report: TaskReport
    ) -> Entries:
        points = {point.id: point for point in self._store.retrieve(task.collection, raw_ids(found["id"]))}
        kept = found.copy()
        remains = np.ones(len(found), np.bool_)
        for row, raw in enumerate(raw_ids(found["id"])):
            point = points.get(raw)
            if found["kind"][row] == Kind.EXTRA:
                remains[row] = point is not None and not point.deleted and not self._is_outside(point)
                report.num_newer += point is not None and not remains[row]
                continue
            kind = _kind(found[row], point)
            remains[row] = kind is not None
            if kind is not None:
                topic = self._keys.topics[found["topic"][row]]
                finished = None if committed is None else committed.get(Partition(topic, int(found["partition"][row])))
                done = committed is None or (finished is not None and found["offset"][row] < finished)
                kept["kind"][row] = kind if done else Kind.PENDING
                kept["stored"][row] = -1 if point is None else point.version
        return np.asarray(kept[remains])

    def _is_outside(self, point: StoredPoint) -> bool:
        """Whether the point's own record is outside of the range: too new, or not retained any more."""
        topic, _, rest = str(point.payload.get("_source", "")).rpartition(":")[0].rpartition(":")
        offset = str(point.payload.get("_source", "")).rpartition(":")[2]
        if not rest.isdigit() or not offset.isdigit():
            return False
        place = Partition(topic, int(rest))
        known = place in self._source.ends
        return known and not self._source.begins[place] <= int(offset) < self._source.ends[place]


class _Sampler:
    """Keeps so many entries, each as likely as any other; None keeps all."""

    def __init__(self, size: int | None) -> None:
        self._size = size
        self._random = np.random.default_rng()
        self._kept = [np.empty(0, ENTRY)]
        self._draws = [np.empty(0)]

    def offer(self, entries: Entries) -> None:
        if self._size == 0:
            return
        self._kept.append(entries)
        self._draws.append(self._random.random(len(entries)))
        if self._size is not None:
            kept, draws = np.concatenate(self._kept), np.concatenate(self._draws)
            lowest = np.argsort(draws)[: self._size]
            self._kept, self._draws = [kept[lowest]], [draws[lowest]]

    def chosen(self) -> Entries:
        kept = np.concatenate(self._kept)
        return np.asarray(kept[np.argsort(kept["id"])])


def _differences(expected: Entries, known: npt.NDArray[np.bytes_], stored: Entries, report: TaskReport) -> Entries:
    """Returns the FAULT rows of one run, and counts what agrees.

    `known` are the run's ids with those whose records were all refused: their points are no extras.
    """
    found, present = places(stored["id"], expected["id"])
    rows = np.zeros(len(expected), FAULT)
    for name in ENTRY.names or ():
        rows[name] = expected[name]
    rows["stored"] = -1
    rows["kind"] = np.where(expected["deleted"], Kind.TOMBSTONE_MISSING, Kind.MISSING)
    wrong = ~present
    if len(stored):
        version = stored["version"][found]
        rows["stored"][present] = version[present]
        stale = present & (version < expected["version"])
        same = present & (version == expected["version"])
        other = same & (stored["deleted"][found] != expected["deleted"])
        rows["kind"][stale] = Kind.STALE
        rows["kind"][other] = Kind.WRONG_STATE
        wrong |= stale | other
        report.num_newer += int(np.count_nonzero(present & (version > expected["version"])))
        report.num_tombstones += int(np.count_nonzero(same & expected["deleted"] & ~other))
    report.num_keys += int(np.count_nonzero(~expected["deleted"]))
    _, is_known = places(known, stored["id"])
    strange = stored[~is_known & ~stored["deleted"]]
    extra = np.zeros(len(strange), FAULT)
    extra["id"], extra["stored"], extra["kind"] = strange["id"], strange["version"], Kind.EXTRA
    return np.concatenate([rows[wrong], extra])


def _kind(entry: np.void, point: StoredPoint | None) -> Kind | None:
    """Returns how a point differs from the source's newest, None when it does not or is newer."""
    if point is None:
        return Kind.TOMBSTONE_MISSING if entry["deleted"] else Kind.MISSING
    if point.version != entry["version"]:
        return Kind.STALE if point.version < entry["version"] else None
    return Kind.WRONG_STATE if point.deleted != entry["deleted"] else None


def _no_runs() -> Iterator[Entries]:
    return (np.empty(0, STORED) for _ in range(NUM_RUNS))


def _pages(rows: Entries) -> range:
    return range(0, len(rows), PAGE_POINTS)
