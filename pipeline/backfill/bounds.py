"""How large a carrier's batches are, and how much of them is in flight."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pipeline.records.record import Delivery

BATCH_S = 2.0
"""How long a batch may take, the wait behind others in the queues included, before batches stop growing."""

GROWTH = 4
BATCH_VECTOR_BYTES = 8 << 20
"""Batches grow to so many times `limits.max_batch_records`, or to so many bytes of vectors."""


class BatchSize:
    """How many rows make a batch: `limits.max_batch_records`, and more where batches are quick.

    What a batch costs beside its rows, above all calls between processes, is paid less often then. Where a model is
    slow a batch stays as it is: it is what a killed run repeats, and what progress moves by.
    """

    def __init__(self, fewest: int, row_bytes: int | None) -> None:
        """Takes the size to begin with, and the bytes of a row's vectors; None: the size stays."""
        self._fewest = fewest
        self._most = fewest if row_bytes is None else max(fewest, min(GROWTH * fewest, BATCH_VECTOR_BYTES // row_bytes))
        self.rows = fewest

    def adapt(self, num_rows: int, seconds: float) -> None:
        """Learns how long a batch took."""
        fitting = int(num_rows * BATCH_S / max(seconds, 1e-6))
        self.rows = min(max(fitting, self._fewest), self._most)


class Room:
    """Bounds bytes and batches in flight. A batch larger than the bound goes alone. Thread-safe."""

    def __init__(self, num_bytes: int, num_batches: int) -> None:
        self._free_bytes = self._num_bytes = num_bytes
        self._free_batches = num_batches
        self._changed = threading.Condition()

    def take(self, batch: Sequence[Delivery]) -> int:
        """Waits for room; returns the bytes to give back."""
        wanted = min(sum(delivery.num_bytes for delivery in batch), self._num_bytes)
        with self._changed:
            self._changed.wait_for(lambda: self._free_batches > 0 and self._free_bytes >= wanted)
            self._free_batches -= 1
            self._free_bytes -= wanted
        return wanted

    @contextmanager
    def giving_back(self, taken: int) -> Iterator[None]:
        """Gives a batch's room back at the end of the block."""
        try:
            yield
        finally:
            with self._changed:
                self._free_batches += 1
                self._free_bytes += taken
                self._changed.notify_all()
