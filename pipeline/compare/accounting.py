"""The other half of the promise: a record that can never be stored is in the dead-letter topic."""

import time
from array import array
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipeline.errors import Reason
from pipeline.interfaces import PLACE, DeadLetters, Progress, RecordRange
from pipeline.records.batches import Int64
from pipeline.records.record import DeadLetter, Partition, Position

RECHECK_S = 1.0
"""Between two looks at records the pipeline has not come to; each reads the dead-letter topic again."""

BATCH_LETTERS = 500


class Undecodable:
    """The places of records that are none: 16 bytes each."""

    def __init__(self) -> None:
        self._offsets: dict[Partition, array[int]] = defaultdict(lambda: array("q"))

    def add(self, position: Position) -> None:
        """Notes one."""
        self._offsets[Partition(position.topic, position.partition)].extend((position.offset, position.timestamp_ms))

    def places(self) -> dict[Partition, npt.NDArray[np.void]]:
        """Returns arrays of PLACE in the order they were noted."""
        return {place: np.frombuffer(offsets, PLACE) for place, offsets in self._offsets.items()}


@dataclass(frozen=True, slots=True)
class Accounts:
    """What became of the records that are none."""

    missing: Mapping[Partition, Int64] = field(default_factory=dict)
    """Offsets the pipeline has passed without a dead letter, ascending."""
    num_pending: int = 0
    """The pipeline has not come to them yet."""
    num_unknown: int = 0
    """Older than what retention has left of the dead-letter topic, so nobody can tell."""

    @property
    def num_missing(self) -> int:
        """Records that are nowhere."""
        return sum(map(len, self.missing.values()))

    @property
    def complete(self) -> bool:
        """Whether none is known to be lost or still to come."""
        return not self.num_missing and not self.num_pending


def account(source: RecordRange, undecodable: Undecodable, *, wait_s: float, progress: Progress) -> Accounts:
    """Looks for the dead letter of every place; waits up to `wait_s` for what is pending. Raises like the range."""
    waiting = undecodable.places()
    deadline_s = time.monotonic() + wait_s
    missing: dict[Partition, Int64] = {}
    num_unknown = 0
    while waiting:
        # Before the letters are read: what was finished by then has its letter by then.
        committed = source.committed() or {}
        letters = source.letters()
        if letters is None:
            break
        pending = {}
        for place, rows in waiting.items():
            left = rows[~np.isin(rows, letters.places.get(place, np.empty(0, PLACE)))]
            passed = left["offset"] < committed.get(place, 0)
            told = left["timestamp_ms"] >= letters.kept_since_ms
            num_unknown += int(np.count_nonzero(passed & ~told))
            if len(lost := left["offset"][passed & told]):
                missing[place] = np.sort(np.concatenate([missing.get(place, lost[:0]), lost]))
            if len(later := left[~passed]):
                pending[place] = later
        waiting = pending
        if not waiting or time.monotonic() >= deadline_s:
            break
        progress("waiting for the pipeline to dead-letter what it has not come to", 0, 0)
        time.sleep(RECHECK_S)
    return Accounts(missing, sum(map(len, waiting.values())), num_unknown)


def write_missing(source: RecordRange, accounts: Accounts, dead_letters: DeadLetters, progress: Progress) -> int:
    """Writes the letters that are missing; returns how many. A letter written twice by chance is harmless.

    Raises like the range and like `DeadLetters.send`.
    """
    wanted = {(place.topic, place.number): offsets for place, offsets in accounts.missing.items()}
    waiting: list[DeadLetter] = []
    num_written = 0
    for found in source.read(wanted) if wanted else ():
        if found.error is not None:
            waiting.append(_letter(found.position, found.error, found.detail, found.raw))
        if len(waiting) == BATCH_LETTERS:
            dead_letters.send(waiting)
            num_written, waiting = num_written + len(waiting), []
            progress("writing dead letters", num_written, accounts.num_missing)
    if waiting:
        dead_letters.send(waiting)
    return num_written + len(waiting)


def _letter(
    position: Position,
    reason: Reason,
    detail: str,
    raw: tuple[bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]],
) -> DeadLetter:
    key, value, headers = raw
    return DeadLetter(position, reason, key, value, headers, detail=detail)
