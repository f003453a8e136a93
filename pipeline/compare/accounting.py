"""The other half of the promise: a record that cannot be decoded is in the dead-letter topic."""

from array import array
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from pipeline.compare.waiting import Waiting
from pipeline.interfaces import PLACE, DeadLetters, Progress, RecordRange
from pipeline.live.retry import Retrier
from pipeline.records.batches import Int64
from pipeline.records.record import DeadLetter, Partition, Position

BATCH_LETTERS = 500


class Undecodable:
    """The places of records that cannot be decoded: 16 bytes each."""

    def __init__(self) -> None:
        self._offsets: dict[Partition, array[int]] = defaultdict(lambda: array("q"))

    def add(self, position: Position) -> None:
        """Adds one place."""
        self._offsets[Partition(position.topic, position.partition)].extend((position.offset, position.timestamp_ms))

    def places(self) -> dict[Partition, npt.NDArray[np.void]]:
        """Returns arrays of PLACE in the order they were added."""
        return {place: np.frombuffer(offsets, PLACE) for place, offsets in self._offsets.items()}


@dataclass(frozen=True, slots=True)
class Accounts:
    """What became of the records that cannot be decoded."""

    missing: Mapping[Partition, Int64] = field(default_factory=dict)
    """Offsets, ascending, that the pipeline has passed without writing a dead letter."""
    num_pending: int = 0
    """Records the pipeline has not read yet."""
    num_unknown: int = 0
    """Records older than everything that retention has left in the dead-letter topic: their letters may be gone."""

    @property
    def num_missing(self) -> int:
        """Records that are neither stored nor dead-lettered."""
        return sum(map(len, self.missing.values()))

    @property
    def complete(self) -> bool:
        """Whether no record is known to be lost or still to be dead-lettered."""
        return not self.num_missing and not self.num_pending


def account(source: RecordRange, undecodable: Undecodable, waiting: Waiting) -> Accounts:
    """Looks for the dead letter of every place, and waits for pending ones. Raises like the range."""
    left = undecodable.places()
    missing: dict[Partition, Int64] = {}
    num_unknown = 0
    while left:
        # Read before the letters: a record that was finished by then has its letter by then.
        committed = source.committed() or {}
        letters = source.letters()
        if letters is None:  # a file: its bad rows are rejected, nothing else becomes of them
            return Accounts()
        pending = {}
        for place, rows in left.items():
            unwritten = rows[~np.isin(rows, letters.places.get(place, np.empty(0, PLACE)))]
            passed = unwritten["offset"] < committed.get(place, 0)
            told = unwritten["timestamp_ms"] >= letters.kept_since_ms
            num_unknown += int(np.count_nonzero(passed & ~told))
            if len(lost := unwritten["offset"][passed & told]):
                missing[place] = np.sort(np.concatenate([missing.get(place, lost[:0]), lost]))
            if len(later := unwritten[~passed]):
                pending[place] = later
        left = pending
        if not left or not waiting.goes_on("records that it cannot store", sum(map(len, left.values()))):
            break
    return Accounts(missing, sum(map(len, left.values())), num_unknown)


def write_missing(
    source: RecordRange, accounts: Accounts, dead_letters: DeadLetters, retry: Retrier, progress: Progress
) -> int:
    """Writes the missing letters and returns how many there were. A letter that is written twice is harmless.

    Raises like the range and, after what `retry` repeats, like `DeadLetters.send`.
    """
    wanted = {(place.topic, place.number): offsets for place, offsets in accounts.missing.items()}
    waiting: list[DeadLetter] = []
    num_written = 0
    for found in source.read(wanted) if wanted else ():
        if found.error is not None:
            key, value, headers = found.raw
            waiting.append(DeadLetter(found.position, found.error, key, value, headers, detail=found.detail))
        if len(waiting) == BATCH_LETTERS:
            retry("dead_letters", partial(dead_letters.send, waiting))
            num_written, waiting = num_written + len(waiting), []
            progress("writing dead letters", num_written, accounts.num_missing)
    if waiting:
        retry("dead_letters", partial(dead_letters.send, waiting))
    return num_written + len(waiting)
