"""What happens to one batch of deliveries: refracted into a point per task, written, and only then finished."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import structlog

from pipeline import failpoints
from pipeline.clock import WallClock
from pipeline.errors import Action, EnvironmentFault, Reason, RecordError, RefractError, action_for
from pipeline.interfaces import DeadLetters, Embedder, PointWriter, Tokenizer
from pipeline.live.crashes import PROBE_TEXT, Suspects
from pipeline.live.offsets import OffsetTracker
from pipeline.live.retry import Retrier
from pipeline.live.witness import witness_tags
from pipeline.metrics import IngestMetrics
from pipeline.records.batches import Bool, Embeddings, Float32, PointBatch, Priority
from pipeline.records.record import DeadLetter, Delivery, Partition, Record, Witness, point_id
from pipeline.tasks import Task

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a pipeline does with its topics."""

    pipeline: str
    tasks: Mapping[str, Sequence[Task]]
    """Topic -> its tasks."""
    tokenizers: Mapping[str, Tokenizer]
    """Model name -> tokenizer."""


@dataclass(slots=True)
class _Item:
    """A delivery on its way to becoming a point."""

    delivery: Delivery
    record: Record
    id: bytes


class Refractor:
    """Carries batches of one topic from delivery to finished, for all of the topic's tasks at once.

    After `process` returns, every delivery of the batch is durable in all collections, proven older,
    or acknowledged in the dead-letter topic, and its receipt is finished. If it raises, none is.
    Thread-safe: batch threads share one instance.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        embedder: Embedder,
        store: PointWriter,
        dead_letters: DeadLetters,
        tracker: OffsetTracker,
        retry: Retrier,
        metrics: IngestMetrics,
        wall_clock: WallClock = time.time,
        priority: Priority = Priority.LIVE,
    ) -> None:
        self._plan = plan
        self._tags = {topic: witness_tags(tasks) for topic, tasks in plan.tasks.items()}
        self._embedder = embedder
        self._store = store
        self._dead_letters = dead_letters
        self._tracker = tracker
        self._retry = retry
        self._metrics = metrics
        self._wall_clock = wall_clock
        self._priority = priority
        self._suspects = Suspects()
        self._scattered: set[str] = set()
        """Topics that were warned of."""

    def process(self, deliveries: Sequence[Delivery]) -> None:
        """Finishes a batch of one topic.

        Raises TransientError only when the worker stops, EnvironmentFault when a person must help.
        """
        current = self._current(deliveries)
        if not current:
            return
        topic = current[0].position.topic
        letters = [delivery.dead_letter(delivery.error, delivery.detail) for delivery in current if delivery.error]
        items, refused, num_older = self._refract_newest(topic, current)
        letters += refused
        if letters:
            # Awaited before anything is finished: a record is stored or it is in the dead-letter topic.
            self._retry("dead_letters", lambda: self._dead_letters.send(letters))
            failpoints.reach("after_dead_letter")
        self._tracker.finish((delivery.receipt for delivery in current), self._witnesses(topic, items))
        self._count(topic, items, letters, num_older)

    def failing_s(self) -> float:
        """Returns for how long a batch has been waiting for a component that is away; 0 when none is."""
        return self._retry.failing_s()

    def _current(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Drops what was revoked since the poll: its new owner reads it again, and the guard settles any race."""
        current = [delivery for delivery in deliveries if self._tracker.is_current(delivery.receipt)]
        if len(current) < len(deliveries):
            self._metrics.dropped.labels(deliveries[0].position.topic).inc(len(deliveries) - len(current))
        return current

    def _refract_newest(self, topic: str, deliveries: Iterable[Delivery]) -> tuple[list[_Item], list[DeadLetter], int]:
        """Refracts the newest version of each key; where that can never be stored, the newest below it.

        Returns the items refracted, the letters of those that failed, and how many were older.
        """
        waiting = [
            _Item(delivery, delivery.record, point_id(self._plan.pipeline, delivery.record.key))
            for delivery in deliveries
            if delivery.record is not None
        ]
        refracted: list[_Item] = []
        letters: list[DeadLetter] = []
        num_older = 0
        newest, older = _newest(waiting)
        self._notice(topic, newest, older)
        while newest:
            refused = self._refract(topic, newest)
            places = {letter.position for letter in refused}
            refused_ids = {item.id for item in newest if item.delivery.position in places}
            waiting = [item for item in older if item.id in refused_ids]
            refracted += [item for item in newest if item.id not in refused_ids]
            letters += refused
            num_older += len(older) - len(waiting)
            newest, older = _newest(waiting)
        return refracted, letters, num_older

    def _notice(self, topic: str, newest: Iterable[_Item], older: Sequence[_Item]) -> None:
        """Tells of what a producer should not do, where one batch shows it: it costs nothing to look there."""
        if not older:
            return
        kept = {item.id: item.record for item in newest}
        pairs = [(item.record, kept[item.id]) for item in older]
        conflicts = sum(left.version == right.version and left.text != right.text for left, right in pairs)
        self._metrics.conflicts.labels(topic).inc(conflicts)
        scattered = next((pair for pair in pairs if pair[0].position.partition != pair[1].position.partition), None)
        if scattered is not None and topic not in self._scattered:
            self._scattered.add(topic)
            log.warning(
                "One key comes from two partitions: Kafka keeps no order between them, only a version field does.",
                topic=topic,
                partitions=sorted(record.position.partition for record in scattered),
            )

    def _refract(self, topic: str, items: Sequence[_Item]) -> list[DeadLetter]:
        """Embeds and writes the items; returns the letters of those that can never be stored.

        A batch that is refused as a whole is halved until what is wrong stands alone.
        """
        try:
            points, letters = self._embed(topic, items)
            failpoints.reach("after_embed")
            if len(points):
                self._write(topic, points)
            failpoints.reach("after_upsert")
        except RefractError as error:
            if action_for(error) not in {Action.SPLIT, Action.DEAD_LETTER}:
                raise
            if len(items) == 1:
                reason = error.reason if isinstance(error, RecordError) else Reason.TOO_LARGE_FOR_MODEL
                detail = error.detail if isinstance(error, RecordError) else type(error).__name__
                return [items[0].delivery.dead_letter(reason, detail)]
            half = len(items) // 2
            return self._refract(topic, items[:half]) + self._refract(topic, items[half:])
        return letters

    def _embed(self, topic: str, items: Sequence[_Item]) -> tuple[PointBatch, list[DeadLetter]]:
        """Returns the items as points, and the letters of those without a finite embedding."""
        texts = [item.record.text for item in items if item.record.text is not None]
        deleted: Bool = np.fromiter((item.record.deleted for item in items), np.bool_, len(items))
        vectors: dict[str, Float32] = {}
        valid: Bool = np.ones(len(items), np.bool_)
        letters: list[DeadLetter] = []
        for model, tasks in self._by_model(topic).items():
            rows_of = self._embed_texts(topic, model, tasks, texts) if texts else [_no_rows(task) for task in tasks]
            for task, rows in zip(tasks, rows_of, strict=True):
                if rows.shape != (len(texts), task.dimension):
                    expected = (len(texts), task.dimension)
                    raise EnvironmentFault(
                        f"model {model!r}, task {task.name!r}: rows {rows.shape}, expected {expected}"
                    )
                all_rows = np.zeros((len(items), task.dimension), np.float32)
                all_rows[~deleted] = rows
                finite = np.isfinite(all_rows).all(axis=1)
                letters += [
                    items[row].delivery.dead_letter(Reason.INVALID_EMBEDDING, f"model {model}", task.name)
                    for row in np.flatnonzero(valid & ~finite).tolist()
                ]
                valid &= finite
                vectors[task.collection] = all_rows
        points = PointBatch(
            ids=np.frombuffer(b"".join(item.id for item in items), np.uint8).reshape(-1, 16),
            versions=np.fromiter((item.record.version for item in items), np.int64, len(items)),
            deleted=deleted,
            payloads=[item.record.payload for item in items],
            vectors=vectors,
        )
        return (points if valid.all() else points.take(np.flatnonzero(valid))), letters

    def _embed_texts(self, topic: str, model: str, tasks: Sequence[Task], texts: Sequence[str]) -> Embeddings:
        prompts, tokenizer = [task.prompt for task in tasks], self._plan.tokenizers[model]
        tokens = tokenizer.encode(texts, prompts)
        with self._metrics.embed_latency.labels(model).time():
            rows = self._retry(
                "embedder",
                self._suspects.watch(
                    lambda: self._embedder.embed(model, tokens, self._priority),
                    lambda: self._embedder.embed(model, tokenizer.encode([PROBE_TEXT], prompts), self._priority),
                    is_single=len(texts) == 1,
                ),
            )
        for task, truncated in zip(tasks, tokens.truncated, strict=True):
            self._metrics.embedded.labels(topic, task.name).inc(len(texts))
            if num_tokens := int(truncated.sum()):
                self._metrics.truncated.labels(topic, task.name).inc(num_tokens)
                self._metrics.truncated_records.labels(topic, task.name).inc(int(np.count_nonzero(truncated)))
        return rows

    def _write(self, topic: str, points: PointBatch) -> None:
        with self._metrics.store_latency.labels(topic).time():
            written = self._retry("store", lambda: self._store.upsert(points))
        num_deleted = int(points.deleted.sum())
        for task in self._plan.tasks[topic]:
            self._metrics.stale.labels(topic, task.name).inc(written.stale.get(task.collection, 0))
            self._metrics.written.labels(topic, task.name).inc(len(points) - num_deleted)
            self._metrics.deleted.labels(topic, task.name).inc(num_deleted)

    def _witnesses(self, topic: str, items: Iterable[_Item]) -> dict[Partition, Witness]:
        """Returns a point of each partition that is stored now."""
        tags = self._tags[topic]
        last = {item.delivery.receipt.partition: item for item in items}
        return {place: Witness(item.id, item.record.version, tags) for place, item in last.items()}

    def _by_model(self, topic: str) -> dict[str, list[Task]]:
        grouped: dict[str, list[Task]] = {}
        for task in self._plan.tasks[topic]:
            grouped.setdefault(task.config.model, []).append(task)
        return grouped

    def _count(self, topic: str, items: Sequence[_Item], letters: Sequence[DeadLetter], num_older: int) -> None:
        for letter in letters:
            self._metrics.dead_letters.labels(topic, letter.reason).inc()
        now = self._wall_clock()
        ages_s = [
            now - item.record.position.timestamp_ms / 1000 for item in items if item.record.position.timestamp_ms > 0
        ]
        for task in self._plan.tasks[topic]:
            self._metrics.stale.labels(topic, task.name).inc(num_older)
            freshness = self._metrics.freshness.labels(topic, task.name)
            for age_s in ages_s:
                freshness.observe(age_s)


def _newest(items: Sequence[_Item]) -> tuple[list[_Item], list[_Item]]:
    """Returns the newest version of each key, of equal versions the first; and the others.

    Two versions of one id in one upsert would let the last in the list win, whatever its version.
    """
    newest: dict[bytes, _Item] = {}
    for item in items:
        kept = newest.setdefault(item.id, item)
        if item.record.version > kept.record.version:
            newest[item.id] = item
    return list(newest.values()), [item for item in items if newest[item.id] is not item]


def _no_rows(task: Task) -> Float32:
    return np.zeros((0, task.dimension), np.float32)
