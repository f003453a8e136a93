"""Turns completions in any order into offsets that may be committed: the first leg of the promise."""

import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from threading import Lock

from pipeline.errors import OwnershipError
from pipeline.interfaces import Clock
from pipeline.records import Partition, Receipt, Witness


@dataclass(slots=True)
class _Assignment:
    """One stay of a partition with this member, from assignment to revocation."""

    epoch: int
    unfinished: deque[Receipt] = field(default_factory=deque)
    """In offset order. Finished receipts stay until every earlier one is finished too."""
    watermark: int | None = None
    committed: int | None = None
    witness: Witness | None = None

    def advance(self) -> int | None:
        """Moves the watermark over everything finished without a gap, and returns it if it is worth committing."""
        while self.unfinished and self.unfinished[0].finished:
            self.watermark = self.unfinished.popleft().offset + 1
        return self.watermark if self.watermark != self.committed else None


class OffsetTracker:
    """Knows, per held partition, the lowest offset that is not finished.

    The watermark is Kafka's next offset to read: one above the last record below which everything
    delivered is finished. It follows the offsets delivered, so gaps (compaction, aborted
    transactions) need no counting. An offset is committed only when its record is finished for all
    tasks, and so is every earlier one of its partition.

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
            self._held[partition] = _Assignment(self._epoch, watermark=position, committed=position, witness=witness)

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

    def watermarks(self) -> dict[Partition, int]:
        """Returns the next offset to read of each held partition whose watermark moved since `committed`."""
        with self._lock:
            return self._advance(self._held)

    def witnesses(self) -> dict[Partition, Witness]:
        """Returns the point stored last for each held partition, where one is known."""
        with self._lock:
            return {place: held.witness for place, held in self._held.items() if held.witness is not None}

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        """Notes what the broker has accepted. A partition lost meanwhile is skipped."""
        with self._lock:
            for partition, offset in offsets.items():
                assignment = self._held.get(partition)
                if assignment is not None:
                    assignment.committed = offset

    def revoke(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Ends the epochs and returns what may be committed for them, as one atomic step.

        Whatever finishes afterwards is ignored, so the returned offsets are the last word of this member.
        """
        with self._lock:
            ended = {partition: self._held.pop(partition) for partition in partitions if partition in self._held}
            return self._advance(ended)

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

    def num_unfinished(self) -> int:
        """Returns how many delivered offsets the watermarks still wait for."""
        with self._lock:
            return sum(not receipt.finished for assignment in self._held.values() for receipt in assignment.unfinished)

    def watermark_age_s(self) -> float:
        """Returns how long the oldest unfinished offset has been waiting; 0 when there is none."""
        with self._lock:
            oldest = min(
                (
                    next((receipt.delivered_s for receipt in assignment.unfinished if not receipt.finished), now)
                    for now in (self._clock(),)
                    for assignment in self._held.values()
                ),
                default=self._clock(),
            )
            return max(0.0, self._clock() - oldest)

    @staticmethod
    def _advance(assignments: Mapping[Partition, _Assignment]) -> dict[Partition, int]:
        moved = {partition: assignment.advance() for partition, assignment in assignments.items()}
        return {partition: offset for partition, offset in moved.items() if offset is not None}
