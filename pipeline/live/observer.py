"""What the core loop tells the metrics: everything that is counted, timed or shown on its way."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np

from pipeline.binding import Task
from pipeline.clock import WallClock
from pipeline.interfaces import Written
from pipeline.live.buffer import DeliveryBuffer
from pipeline.live.offsets import OffsetTracker
from pipeline.metrics import IngestMetrics
from pipeline.records.batches import PointBatch, TokenBatch
from pipeline.records.record import DeadLetter, Delivery, Partition


class Observer:
    """Hears what happens in the core loop. Its methods do nothing: override those of interest.

    Thread-safe but for `received` and `turned`, which the poll loop calls.
    """

    def received(self, deliveries: Sequence[Delivery]) -> None:
        """Deliveries were polled."""

    def turned(self, buffer: DeliveryBuffer, tracker: OffsetTracker, lag: Mapping[Partition, int]) -> None:
        """The poll loop has made a turn."""

    def retried(self, component: str) -> None:
        """A call is repeated after an outage or a lost answer."""

    def dropped(self, topic: str, num_records: int) -> None:
        """Records belong to partitions that were revoked since the poll."""

    def conflicted(self, topic: str, num_records: int) -> None:
        """Records have the key and version of an earlier one and another content."""

    def misspelt(self, topic: str, num_records: int) -> None:
        """Records have a Kafka key that spells another key than their field."""

    def embedding(self, model: str) -> AbstractContextManager[object]:  # noqa: ARG002 - nobody is told
        """Encloses one call to an embedder, waiting included."""
        return nullcontext()

    def embedded(self, topic: str, tasks: Iterable[Task], tokens: TokenBatch) -> None:
        """The texts of a token batch are embedded; its prompts are those of the tasks, in order."""

    def writing(self, topic: str) -> AbstractContextManager[object]:  # noqa: ARG002 - nobody is told
        """Encloses one guarded write of a batch."""
        return nullcontext()

    def written(self, topic: str, tasks: Iterable[Task], points: PointBatch, written: Written) -> None:
        """Points are written, or were stale."""

    def superseded(self, topic: str, tasks: Iterable[Task], num_records: int) -> None:
        """Records are stale: their own batch has newer ones."""

    def dead_lettered(self, topic: str, letters: Iterable[DeadLetter]) -> None:
        """Dead letters are acknowledged."""

    def searchable(self, topic: str, tasks: Iterable[Task], produced_ms: Iterable[int]) -> None:
        """Records are stored; Kafka says when each was produced, -1 is unknown."""


class IngestObserver(Observer):
    """Updates an ingestor's metrics, once per batch. Thread-safe but for `received` and `turned`: the poll loop's."""

    def __init__(self, metrics: IngestMetrics, wall_clock: WallClock = time.time) -> None:
        self._metrics = metrics
        self._wall_clock = wall_clock
        self._produced_ms: dict[str, int] = {}
        """Topic -> when its last record read was produced."""

    # -- the poll loop

    def received(self, deliveries: Sequence[Delivery]) -> None:
        """Counts what was polled."""
        for topic, num_records in Counter(delivery.position.topic for delivery in deliveries).items():
            self._metrics.received.labels(topic).inc(num_records)
        dropped = Counter(
            (delivery.position.topic, name)
            for delivery in deliveries
            if delivery.record is not None and delivery.record.dropped
            for name in delivery.record.dropped
        )
        for (topic, name), num_values in dropped.items():
            self._metrics.payload_dropped.labels(topic, name).inc(num_values)
        self._produced_ms.update((delivery.position.topic, delivery.position.timestamp_ms) for delivery in deliveries)

    def turned(self, buffer: DeliveryBuffer, tracker: OffsetTracker, lag: Mapping[Partition, int]) -> None:
        """Shows how far behind each topic is, and what is in flight."""
        self._metrics.in_flight_bytes.set(buffer.num_bytes)
        self._metrics.paused.set(buffer.full)
        self._metrics.watermark_age.set(tracker.watermark_age_s())
        for partition, num_records in lag.items():
            self._metrics.lag.labels(partition.topic, partition.number).set(num_records)
        behind = {partition.topic for partition, num_records in lag.items() if num_records}
        behind |= {partition.topic for partition in tracker.unfinished()}
        for topic, produced_ms in self._produced_ms.items():
            age_s = max(0.0, self._wall_clock() - produced_ms / 1000) if topic in behind else 0.0
            self._metrics.lag_seconds.labels(topic).set(age_s)

    def retried(self, component: str) -> None:
        """Counts a repetition after an outage or a lost answer."""
        self._metrics.retries.labels(component).inc()

    # -- batch threads

    def dropped(self, topic: str, num_records: int) -> None:
        """Counts records of partitions that were revoked since the poll."""
        self._metrics.dropped.labels(topic).inc(num_records)

    def conflicted(self, topic: str, num_records: int) -> None:
        """Counts records with the key and version of an earlier one and another content."""
        self._metrics.conflicts.labels(topic).inc(num_records)

    def misspelt(self, topic: str, num_records: int) -> None:
        """Counts records whose Kafka key spells another key than their field."""
        self._metrics.misspelt_keys.labels(topic).inc(num_records)

    def embedding(self, model: str) -> AbstractContextManager[object]:
        """Times one call to an embedder, waiting included."""
        return self._metrics.embed_latency.labels(model).time()

    def embedded(self, topic: str, tasks: Iterable[Task], tokens: TokenBatch) -> None:
        """Counts the texts of a token batch as embedded; its prompts are those of the tasks, in order."""
        for task, truncated in zip(tasks, tokens.truncated, strict=True):
            self._metrics.embedded.labels(topic, task.name).inc(tokens.num_texts)
            if num_tokens := int(truncated.sum()):
                self._metrics.truncated.labels(topic, task.name).inc(num_tokens)
                self._metrics.truncated_records.labels(topic, task.name).inc(int(np.count_nonzero(truncated)))

    def writing(self, topic: str) -> AbstractContextManager[object]:
        """Times one guarded write of a batch."""
        return self._metrics.store_latency.labels(topic).time()

    def written(self, topic: str, tasks: Iterable[Task], points: PointBatch, written: Written) -> None:
        """Counts the points of a write."""
        num_deleted = int(points.deleted.sum())
        for task in tasks:
            self._metrics.stale.labels(topic, task.name).inc(written.stale.get(task.collection, 0))
            self._metrics.written.labels(topic, task.name).inc(len(points) - num_deleted)
            self._metrics.deleted.labels(topic, task.name).inc(num_deleted)

    def superseded(self, topic: str, tasks: Iterable[Task], num_records: int) -> None:
        """Counts records that a newer one of their own batch made stale."""
        for task in tasks:
            self._metrics.stale.labels(topic, task.name).inc(num_records)

    def dead_lettered(self, topic: str, letters: Iterable[DeadLetter]) -> None:
        """Counts acknowledged dead letters."""
        for letter in letters:
            self._metrics.dead_letters.labels(topic, letter.reason).inc()

    def searchable(self, topic: str, tasks: Iterable[Task], produced_ms: Iterable[int]) -> None:
        """Notes the freshness of records, by when Kafka says each was produced; -1 is unknown and left out."""
        now_s = self._wall_clock()
        ages_s = [now_s - produced / 1000 for produced in produced_ms if produced > 0]
        for task in tasks:
            freshness = self._metrics.freshness.labels(topic, task.name)
            for age_s in ages_s:
                freshness.observe(age_s)
