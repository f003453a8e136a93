"""Compares a source with the store, task by task, in bounded memory and while the pipeline runs.

The source's range is noted first, as source keys on disk; then each collection is read in the order
of ids and compared with it, run by run. What differs is looked at again, after the group's committed
offsets were read: below them everything is finished, so only there a difference is a fault. What
lies above is pending. A point without a record in the range is extra only where its own record would have to be in
the range: one from beyond its end, or from a source that is not compared, such as a file, is no difference.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from pipeline.binding import Task
from pipeline.compare.findings import FAULT, DifferenceKind, SourceFindings, TaskFindings
from pipeline.compare.joined import Reading
from pipeline.compare.patience import ComparedStore
from pipeline.compare.source_keys import ENTRY, NUM_RUNS, Entries, SourceKeys, newest, places, raw_ids, run_of
from pipeline.compare.waiting import Waiting
from pipeline.errors import EnvironmentFault
from pipeline.interfaces import Origin, Progress, RecordRange, StoredPoint
from pipeline.records.record import Partition

PAGE_POINTS = 1_000
"""Points of one read: below the sizes at which stores slow down, and a tenth of a second of their time."""

_REPORT_RECORDS = 10_000


STORED = np.dtype([("id", "S16"), ("version", "<i8"), ("deleted", "?"), ("origin", "<u1")])
"""`origin` is an Origin."""


def note_source(source: RecordRange, keys: SourceKeys, progress: Progress) -> SourceFindings:
    """Reads the whole range into the source keys. Raises like the range."""
    noted = SourceFindings()
    letters = source.letters()
    refused = letters.refused if letters else {}
    total = source.num_records
    for found in source.read():
        noted.num_records += 1
        if noted.num_records % _REPORT_RECORDS == 0:
            progress("reading the source", noted.num_records, total)
        record, position = found.record, found.position
        if record is None:
            noted.dead_letters[str(found.error)] += 1
            if position.partition >= 0:  # a file's bad rows are rejected, nothing else becomes of them
                noted.undecodable.add(position)
            continue
        reason = refused.get((position.topic, position.partition, position.offset)) if refused else None
        if reason is not None:
            noted.dead_letters[reason] += 1
        keys.add(
            keys.id_of(record),
            record.version,
            position,
            deleted=record.deleted,
            refused=reason is not None,
        )
    keys.flush()
    return noted


def _source_of(point: StoredPoint) -> str:
    return str(point.payload.get("_source", ""))


class Comparison:
    """One comparison of source keys with a store. Use from one thread."""

    def __init__(
        self, keys: SourceKeys, source: RecordRange, store: ComparedStore, waiting: Waiting, progress: Progress
    ) -> None:
        """`waiting` bounds the wait for records the pipeline has not finished; what is left then is pending."""
        self._keys = keys
        self._source = source
        self._store = store
        self._waiting = waiting
        self._progress = progress

    def compare(self, task: Task, reading: Reading, sample: int | None) -> TaskFindings:
        """Returns what differs between the source and one task's collection.

        Args:
            task: The task whose collection is read.
            reading: What of the source counts for the task.
            sample: How many vectors to choose for a later check; None for all.
        """
        findings = TaskFindings(task)
        try:
            exists = self._store.inspect([task])[task.name].exists
        except EnvironmentFault as error:
            findings.fingerprint_fault = str(error)
            return findings
        numbers = self._keys.number_of(reading.topics)
        stored_runs = self._stored_runs(reading, findings) if exists else _no_runs()
        differing = []
        sampler = _Sampler(sample if exists else 0)
        for number, stored in enumerate(stored_runs):
            entries = self._keys.run(number)
            counts = (entries["partition"] >= 0) | np.isin(entries["partition"], reading.files)
            entries = entries[counts & np.isin(entries["topic"], numbers)]
            expected = newest(entries)
            differing.append(_differences(expected, entries["id"], stored, findings))
            sampler.offer(expected[~expected["deleted"]])
        found = np.concatenate(differing)
        findings.sample = sampler.chosen()
        if len(found):
            findings.faults.append(self._settle(reading, found, findings) if exists else self._unwritten(found))
        return findings

    def _stored_runs(self, reading: Reading, findings: TaskFindings) -> Iterator[Entries]:
        """Yields NUM_RUNS arrays of STORED by id, in the order of runs."""
        task = findings.task
        number, held, num_read = 0, [np.empty(0, STORED)], 0
        total = self._store.count(task.collection)
        after: bytes | None = None
        while page := self._store.scroll(task.collection, after, PAGE_POINTS):
            after = page[-1].id
            num_read += len(page)
            self._progress(f"reading {task.name}", num_read, max(total, num_read))
            origins = [reading.origin_of(_source_of(point)) for point in page]
            findings.note_elsewhere(
                _source_of(point)
                for point, origin in zip(page, origins, strict=True)
                if origin is Origin.ELSEWHERE and not point.deleted
            )
            rows = np.array(
                [(point.id, point.version, point.deleted, origin) for point, origin in zip(page, origins, strict=True)],
                STORED,
            )
            runs = run_of(rows["id"])
            for run in np.unique(runs).tolist():
                while number < run:
                    yield np.concatenate(held)
                    number, held = number + 1, [np.empty(0, STORED)]
                held.append(rows[runs == run])
        while number < NUM_RUNS:
            yield np.concatenate(held)
            number, held = number + 1, [np.empty(0, STORED)]

    def _settle(self, reading: Reading, found: Entries, findings: TaskFindings) -> Entries:
        """Looks at differences again until each is a fault or gone, or the wait is over."""
        settled = [np.empty(0, FAULT)]
        while len(found):
            # Read before the store: what was finished by then must be readable.
            committed = self._source.committed()
            again = [
                self._look_again(reading, found[at : at + PAGE_POINTS], committed, findings) for at in _pages(found)
            ]
            found = np.concatenate(again)
            pending = found["kind"] == DifferenceKind.PENDING
            settled.append(found[~pending])
            found = found[pending]
            if not len(found) or not self._waiting.goes_on(f"records of {findings.task.name}", len(found)):
                break
        return np.concatenate([*settled, found])

    def _unwritten(self, found: Entries) -> Entries:
        """Returns what a collection lacks that does not exist: nothing was written, so nothing is looked at again."""
        committed = self._source.committed()
        kept = found.copy()
        kept["kind"][[not self._is_finished(row, committed) for row in found]] = DifferenceKind.PENDING
        return np.asarray(kept)

    def _look_again(
        self, reading: Reading, found: Entries, committed: Mapping[Partition, int] | None, findings: TaskFindings
    ) -> Entries:
        collection = findings.task.collection
        points = {point.id: point for point in self._store.retrieve(collection, raw_ids(found["id"]))}
        kept = found.copy()
        remains = np.ones(len(found), np.bool_)
        for row, raw in enumerate(raw_ids(found["id"])):
            point = points.get(raw)
            if found["kind"][row] == DifferenceKind.EXTRA:
                live = point is not None and not point.deleted
                remains[row] = point is not None and live and reading.origin_of(_source_of(point)) is Origin.INSIDE
                findings.num_newer += live and not remains[row]
                continue
            kind = _kind(found[row], point)
            remains[row] = kind is not None
            if kind is not None:
                is_finished = self._is_finished(found[row], committed)
                kept["kind"][row] = kind if is_finished else DifferenceKind.PENDING
                kept["stored"][row] = -1 if point is None else point.version
        return np.asarray(kept[remains])

    def _is_finished(self, record: np.void, committed: Mapping[Partition, int] | None) -> bool:
        """Whether the pipeline has committed a record, of ENTRY or FAULT."""
        if committed is None:
            return True
        place = Partition(self._keys.topics[record["topic"]], int(record["partition"]))
        return int(record["offset"]) < committed.get(place, 0)


class _Sampler:
    """Keeps `size` entries, each as likely as any other; None keeps all."""

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


def _differences(expected: Entries, known: npt.NDArray[np.bytes_], stored: Entries, findings: TaskFindings) -> Entries:
    """Returns the FAULT rows of one run, and counts what agrees.

    `known` are all ids of the run, those whose records were all refused included: their points are not extra.
    """
    found, present = places(stored["id"], expected["id"])
    rows = np.zeros(len(expected), FAULT)
    for name in ENTRY.names or ():
        rows[name] = expected[name]
    rows["stored"] = -1
    rows["kind"] = np.where(expected["deleted"], DifferenceKind.TOMBSTONE_MISSING, DifferenceKind.MISSING)
    wrong = ~present
    if len(stored):
        version = stored["version"][found]
        rows["stored"][present] = version[present]
        stale = present & (version < expected["version"])
        same = present & (version == expected["version"])
        other = same & (stored["deleted"][found] != expected["deleted"])
        rows["kind"][stale] = DifferenceKind.STALE
        rows["kind"][other] = DifferenceKind.WRONG_STATE
        wrong |= stale | other
        findings.num_newer += int(np.count_nonzero(present & (version > expected["version"])))
        findings.num_tombstones += int(np.count_nonzero(same & expected["deleted"] & ~other))
    findings.num_keys += int(np.count_nonzero(~expected["deleted"]))
    _, is_known = places(known, stored["id"])
    strange = stored[~is_known & ~stored["deleted"]]
    findings.num_points += int(np.count_nonzero(~stored["deleted"]))
    findings.num_newer += int(np.count_nonzero(strange["origin"] == Origin.OUTSIDE))
    findings.num_elsewhere += int(np.count_nonzero(strange["origin"] == Origin.ELSEWHERE))
    strange = strange[strange["origin"] == Origin.INSIDE]
    extra = np.zeros(len(strange), FAULT)
    extra["id"], extra["stored"], extra["kind"] = strange["id"], strange["version"], DifferenceKind.EXTRA
    return np.concatenate([rows[wrong], extra])


def _kind(entry: np.void, point: StoredPoint | None) -> DifferenceKind | None:
    """Returns how a point differs from the source's newest record; None when it is equal or newer."""
    if point is None:
        return DifferenceKind.TOMBSTONE_MISSING if entry["deleted"] else DifferenceKind.MISSING
    if point.version != entry["version"]:
        return DifferenceKind.STALE if point.version < entry["version"] else None
    return DifferenceKind.WRONG_STATE if point.deleted != entry["deleted"] else None


def _no_runs() -> Iterator[Entries]:
    return (np.empty(0, STORED) for _ in range(NUM_RUNS))


def _pages(rows: Entries) -> range:
    return range(0, len(rows), PAGE_POINTS)
