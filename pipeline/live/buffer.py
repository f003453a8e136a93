"""Holds what was polled and not yet taken, bounded in bytes, and forms the batches that leave."""

from collections import deque
from collections.abc import Iterable, Sequence
from threading import Condition

from pipeline.records.record import Delivery

DELIVERY_BYTES = 1_024
"""What a delivery occupies beside its bytes: some objects, and a short text once more. Of small records it is most."""


class DeliveryBuffer:
    """Between the poll loop, which fills it, and the batch threads, which empty it.

    Batching is adaptive without a linger: a batch thread that has room takes what is there at once,
    so an idle system is fast; while all threads are busy the next batch grows, so a busy one is
    efficient. A batch holds one topic's deliveries, in delivery order; topics are served by the
    age of their first delivery.

    `num_bytes` counts records, and DELIVERY_BYTES for each, from `put` until `release`, so it bounds
    memory from the poll to the finished write. Thread-safe.
    """

    def __init__(self, max_bytes: int, max_batch_records: int) -> None:
        self._max_bytes = max_bytes
        self._max_batch_records = max_batch_records
        self._changed = Condition()
        self._waiting: dict[str, deque[tuple[int, Delivery]]] = {}
        self._sequence = 0
        self._num_bytes = 0
        self._closed = False

    @property
    def num_bytes(self) -> int:
        """Bytes of records polled and not yet released, with what carries them."""
        return self._num_bytes

    @property
    def full(self) -> bool:
        """Whether the source should be paused."""
        return self._num_bytes >= self._max_bytes

    def put(self, deliveries: Iterable[Delivery]) -> None:
        """Adds deliveries; never blocks, because the caller must keep polling. The bound is kept by pausing."""
        with self._changed:
            for delivery in deliveries:
                self._sequence += 1
                waiting = self._waiting.setdefault(delivery.position.topic, deque())
                waiting.append((self._sequence, delivery))
                self._num_bytes += delivery.num_bytes + DELIVERY_BYTES
            self._changed.notify_all()

    def take(self, timeout_s: float) -> list[Delivery]:
        """Returns the next batch, or an empty list after `timeout_s` or once the buffer is closed."""
        with self._changed:
            if not self._closed and not any(self._waiting.values()):
                self._changed.wait(timeout_s)
            heads = [(waiting[0][0], topic) for topic, waiting in self._waiting.items() if waiting]
            if self._closed or not heads:
                return []
            waiting = self._waiting[min(heads)[1]]
            return [waiting.popleft()[1] for _ in range(min(len(waiting), self._max_batch_records))]

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Gives the bytes of taken deliveries back, whatever became of them."""
        with self._changed:
            self._num_bytes -= sum(delivery.num_bytes + DELIVERY_BYTES for delivery in deliveries)

    def close(self) -> None:
        """Drops what nobody took and wakes every waiting thread. What was dropped is read again later."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
