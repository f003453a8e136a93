"""Every key of a source in bounded memory: 40 bytes per record on disk, split by the first bits of the point's id."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.records.batches import Bool, Int64
from pipeline.records.record import PointIds, Position, Record

NUM_RUNS = 64
"""Ids are uniform, so one run in memory is a 64th of the source: 60 MB for 100 million records."""

_BUFFER_ENTRIES = 65_536

Entries = npt.NDArray[np.void]
"""(n,) of ENTRY."""

ENTRY = np.dtype(
    [
        ("id", "S16"),
        ("version", "<i8"),
        ("topic", "<u2"),
        ("partition", "<i4"),
        ("offset", "<i8"),
        ("deleted", "?"),
        ("refused", "?"),
    ]
)
"""`topic` is a number, see `SourceKeys.topics`; `refused`: the record is in the dead-letter topic, not in the store."""


class SourceKeys:
    """What a source says about every key. Filled once, then read run by run in the order of ids. One thread."""

    def __init__(self, directory: Path, ids: PointIds, topics: Sequence[str]) -> None:
        """Keeps its runs in an empty directory, which the caller removes; `ids` names the records' points."""
        self.topics = tuple(topics)
        self._ids = ids
        self._directory = directory
        self._numbers = {topic: number for number, topic in enumerate(self.topics)}
        self._buffer: list[tuple[bytes, int, int, int, int, bool, bool]] = []

    def id_of(self, record: Record) -> bytes:
        """Returns the id of a record's point."""
        return self._ids.of(record.position.topic, record.key)

    def add(self, point: bytes, version: int, position: Position, *, deleted: bool, refused: bool = False) -> None:
        """Adds one record. Of equal versions of a key the one added first counts."""
        self._buffer.append(
            (
                point,
                version,
                self._numbers[position.topic],
                position.partition,
                position.offset,
                deleted,
                refused,
            )
        )
        if len(self._buffer) >= _BUFFER_ENTRIES:
            self.flush()

    def flush(self) -> None:
        """Writes the buffer to disk. Call it before `run`."""
        entries = np.array(self._buffer, ENTRY)
        self._buffer.clear()
        runs = run_of(entries["id"])
        order = np.argsort(runs, kind="stable")
        borders = np.searchsorted(runs[order], np.arange(NUM_RUNS + 1))
        for number in range(NUM_RUNS):
            rows = entries[order[borders[number] : borders[number + 1]]]
            if len(rows):
                with self._path(number).open("ab") as file:
                    file.write(rows.tobytes())

    def run(self, number: int) -> Entries:
        """Returns a run's entries by id, and of one id the newest first, of equal versions the first added."""
        path = self._path(number)
        if not path.exists():
            return np.empty(0, ENTRY)
        entries = np.fromfile(path, ENTRY)
        return np.asarray(entries[np.lexsort((-entries["version"], entries["id"]))])

    def number_of(self, topics: Iterable[str]) -> npt.NDArray[np.intp]:
        """Returns the topics' numbers."""
        return np.array([self._numbers[topic] for topic in topics], np.intp)

    def _path(self, number: int) -> Path:
        return self._directory / f"{number:02}.run"


def run_of(ids: npt.NDArray[np.bytes_]) -> npt.NDArray[np.uint8]:
    """Returns the number of the run each id belongs to."""
    first = np.ascontiguousarray(ids).view(np.uint8).reshape(-1, 16)[:, 0]
    return np.asarray(first // (256 // NUM_RUNS))


def newest(entries: Entries) -> Entries:
    """Returns the first entry of each id that was not refused: of a run, the version the store must hold."""
    entries = entries[~entries["refused"]]
    return np.asarray(entries[_first_of_each(entries["id"])])


def places(haystack: npt.NDArray[np.bytes_], ids: npt.NDArray[np.bytes_]) -> tuple[npt.NDArray[np.intp], Bool]:
    """Returns the index of each id in a sorted array, and whether it is there."""
    found = np.searchsorted(haystack, ids)
    inside = found < len(haystack)
    found = np.where(inside, found, 0)
    present = inside & (haystack[found] == ids) if len(haystack) else np.zeros(len(ids), np.bool_)
    return found, present


def raw_ids(ids: npt.NDArray[np.bytes_]) -> list[bytes]:
    """Returns ids as bytes, all 16 of them: numpy itself drops zeros at the end."""
    raw = np.ascontiguousarray(ids).tobytes()
    return [raw[start : start + 16] for start in range(0, len(raw), 16)]


def by_partition(entries: Entries, topics: Sequence[str]) -> dict[tuple[str, int], Int64]:
    """Returns the entries' offsets, ascending and unique, by topic and partition."""
    grouped = {}
    for topic, partition in np.unique(entries[["topic", "partition"]]).tolist():
        rows = (entries["topic"] == topic) & (entries["partition"] == partition)
        grouped[topics[topic], partition] = np.unique(entries["offset"][rows])
    return grouped


def _first_of_each(ids: npt.NDArray[np.bytes_]) -> Bool:
    first = np.ones(len(ids), np.bool_)
    first[1:] = ids[1:] != ids[:-1]
    return first
