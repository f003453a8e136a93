"""Turns completions in any order into offsets that may be committed: the first leg of the promise."""

import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock

from pipeline.clock import Clock
from pipeline.errors import OwnershipError
from pipeline.records.record import Partition, Receipt, Witness


@dataclass(frozen=True, slots=True)
class Watermark:
    """The next offset to read, and a point that was stored before it was taken."""

    offset: int
    witness: Witness | None = None


@dataclass(slots=True)
class _Assignment:
    """One stay of a partition with this member, from assignment to revocation."""

    epoch: int
    durable: Watermark | None = None
    unfinished: deque[Receipt] = field(default_factory=deque)
    """In offset order. Finished receipts stay until every earlier one is finished too."""
    offset: int | None = None
    committed: int | None = None
    witness: Witness | None = None

    def advance(self) -> Watermark | None:
        """Moves the watermark over everything finished without a gap; returns it if it is ahead of what is durable."""
        self.pop_finished()
        durable = self.durable and self.durable.offset
        return None if self.offset is None or self.offset == durable else Watermark(self.offset, self.witness)

    def pop_finished(self) -> None:
        """Moves the watermark over everything finished without a gap."""
        while self.unfinished and self.unfinished[0].finished:
            self.offset = self.unfinished.popleft().offset + 1

    def to_commit(self) -> Watermark | None:
        """Returns what is durable and not committed yet."""
        return self.durable if self.durable is not None and self.durable.offset != self.committed else None


@dataclass(frozen=True, slots=True)
class Watermarks:
    """Watermarks on their way to be durable: taken with `OffsetTracker.advance`, given back to `secure` afterwards."""

    offsets: Mapping[Partition, int]
    witnesses: Collection[tuple[Partition, Witness]]
    """Points the store must hold before the offsets may be committed: the newest stored one of each partition, and the
    one committed before it. The older one is asked for too: a store that was restored from an older state and written
    to since holds the newest, but lacks the older."""
    moved: Sequence[tuple[_Assignment, Watermark]]

    def __bool__(self) -> bool:
        return bool(self.offsets)


class OffsetTracker:
    """Knows, per held partition, the lowest offset that is not finished.

    The watermark is Kafka's next offset to read: one above the last record below which everything
    delivered is finished. It follows the offsets delivered, so gaps (compaction, aborted
    transactions) need no counting. An offset is committed only when its record is finished for all
    tasks, and so is every earlier one of its partition, and the store has been flushed since: a
    watermark is taken (`advance`), made durable by the caller, and then offered for commit
    (`secure`, `durable`). What finishes between the two waits for the next round.

    Each assignment of a partition is an epoch of its own. What was delivered in an earlier epoch may
    finish whenever it likes: it moves nothing, because the partition may belong to somebody else.

    Thread-safe: the poll loop, the batch threads and the rebalance listener all call it.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._held: dict[Partition, _Assignment] = {}
        self._epoch = 0

    def assign(self, partition: Partition, position: int | None = None, witness: Witness | None = None) -> None:
        """Starts a new epoch for a partition; `position` is the committed offset it starts from, if any."""
        with self._lock:
            self._epoch += 1
            durable = None if position is None else Watermark(position, witness)
            self._held[partition] = _Assignment(
                self._epoch, durable, offset=position, committed=position, witness=witness
            )

    def add(self, partition: Partition, offset: int) -> Receipt:
        """Registers a delivered offset. Offsets of one partition must come in rising order.

        Raises OwnershipError for a partition that is not held: its records are somebody else's to read.
        """
        with self._lock:
            assignment = self._held.get(partition)
            if assignment is None:
                raise OwnershipError(f"{partition.topic}[{partition.number}] is not held")
            receipt = Receipt(partition, offset, assignment.epoch, self._clock())
            assignment.unfinished.append(receipt)
            return receipt

    def finish(self, receipts: Iterable[Receipt], witnesses: Mapping[Partition, Witness] | None = None) -> None:
        """Marks offsets as finished: stored, proven older, or durably dead-lettered. From any thread.

        Receipts of an ended epoch are ignored: their assignment, and the deque they stood in, is gone.
        `witnesses` are points among them that the store holds now.
        """
        with self._lock:
            for receipt in receipts:
                receipt.finished = True
            for partition, witness in (witnesses or {}).items():
                if partition in self._held:
                    self._held[partition].witness = witness

    def pass_over(self, positions: Mapping[Partition, int]) -> None:
        """Moves the watermark to where reading goes on, in partitions of which everything delivered is finished.

        What lies between its last record and the position is no record: nobody would finish it.
        """
        with self._lock:
            for partition, position in positions.items():
                held = self._held.get(partition)
                if held is not None:
                    held.pop_finished()
                    if not held.unfinished and (held.offset is None or held.offset < position):
                        held.offset = position

    def advance(self) -> Watermarks:
        """Moves every watermark over what is finished; returns those that are ahead of what is durable."""
        with self._lock:
            moved = [(place, held, mark) for place, held in self._held.items() if (mark := held.advance()) is not None]
            return Watermarks(
                {place: mark.offset for place, _, mark in moved},
                {
                    (place, found.witness)
                    for place, held, mark in moved
                    for found in (mark, held.durable)
                    if found is not None and found.witness is not None
                },
                [(held, mark) for _, held, mark in moved],
            )

    def secure(self, watermarks: Watermarks) -> None:
        """Notes that all below these watermarks would survive a power loss: they may be committed.

        One thread takes and secures them. Partitions that went meanwhile are skipped, even if they are held again.
        """
        with self._lock:
            for assignment, mark in watermarks.moved:
                assignment.durable = mark

    def durable(self) -> dict[Partition, Watermark]:
        """Returns what may be committed now: durable watermarks that moved since `committed`."""
        with self._lock:
            return self._to_commit(self._held)

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        """Notes what the broker has accepted. A partition lost meanwhile is skipped."""
        with self._lock:
            for partition, offset in offsets.items():
                assignment = self._held.get(partition)
                if assignment is not None:
                    assignment.committed = offset

    def revoke(self, partitions: Iterable[Partition]) -> dict[Partition, Watermark]:
        """Ends the epochs and returns what may be committed for them, as one atomic step.

        Whatever finishes or becomes durable afterwards is ignored: this is the last word of this member. What is
        finished and not durable yet is read again by the next owner.
        """
        with self._lock:
            ended = {partition: self._held.pop(partition) for partition in partitions if partition in self._held}
            return self._to_commit(ended)

    def lose(self, partitions: Iterable[Partition]) -> None:
        """Ends the epochs; nothing may be committed, somebody else may own the partitions already."""
        with self._lock:
            for partition in partitions:
                self._held.pop(partition, None)

    def is_current(self, receipt: Receipt) -> bool:
        """Whether the receipt's epoch still runs. A quick check before costly work; the guard is the fence."""
        assignment = self._held.get(receipt.partition)
        return assignment is not None and assignment.epoch == receipt.epoch

    def held(self) -> frozenset[Partition]:
        """Returns the partitions held now."""
        with self._lock:
            return frozenset(self._held)

    def unfinished(self) -> dict[Partition, int]:
        """Returns how many delivered offsets the watermark of each partition still waits for, where it waits at all."""
        with self._lock:
            waiting = {
                partition: sum(not receipt.finished for receipt in assignment.unfinished)
                for partition, assignment in self._held.items()
            }
        return {partition: number for partition, number in waiting.items() if number}

    def watermark_age_s(self) -> float:
        """Returns how long the oldest unfinished offset has been waiting; 0 when all are finished."""
        with self._lock:
            oldest = [
                next((receipt.delivered_s for receipt in assignment.unfinished if not receipt.finished), None)
                for assignment in self._held.values()
            ]
        now_s = self._clock()
        return max((now_s - delivered_s for delivered_s in oldest if delivered_s is not None), default=0.0)

    @staticmethod
    def _to_commit(assignments: Mapping[Partition, _Assignment]) -> dict[Partition, Watermark]:
        found = {partition: assignment.to_commit() for partition, assignment in assignments.items()}
        return {partition: mark for partition, mark in found.items() if mark is not None}
