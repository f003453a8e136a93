"""One topic's way from records to points: the newest version of each key, embedded and written for every task."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import structlog

from pipeline import failpoints
from pipeline.binding import Task
from pipeline.errors import Action, EnvironmentFault, Reason, RecordError, RefractError, action_for
from pipeline.interfaces import Tokenizer
from pipeline.live.conflicts import Conflicts
from pipeline.live.crashes import PROBE_TEXT
from pipeline.live.routes import Ports, Routes
from pipeline.records.batches import Bool, Embeddings, Float32, PointBatch, TokenBatch
from pipeline.records.record import DeadLetter, Delivery, Record

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Item:
    """A delivery on its way to becoming a point."""

    delivery: Delivery
    record: Record
    id: bytes


@dataclass(frozen=True, slots=True)
class Refracted:
    """What became of a batch."""

    items: list[Item]
    """Stored, or proven older than what is stored."""
    letters: list[DeadLetter]
    """Of the records that can never be stored."""
    num_older: int
    """Records that a newer one of the batch replaced."""


class Lane:
    """Refracts batches of one topic. Thread-safe."""

    def __init__(self, topic: str, routes: Routes, ports: Ports) -> None:
        self._topic = topic
        self._ids = routes.ids
        self._tasks = routes.tasks[topic]
        self._tokenizers = routes.tokenizers
        self._ports = ports
        self._by_model: dict[str, list[Task]] = {}
        for task in self._tasks:
            self._by_model.setdefault(task.config.model, []).append(task)
        self._conflicts = Conflicts()
        self._warnings: set[str] = set()

    def refract(self, deliveries: Iterable[Delivery]) -> Refracted:
        """Stores the newest version of each key; where that can never be stored, the newest below it.

        Deliveries without a record are passed over. Raises what neither halving nor a dead letter settles.
        """
        waiting = [
            Item(delivery, delivery.record, self._ids.of(self._topic, delivery.record.key))
            for delivery in deliveries
            if delivery.record is not None
        ]
        stored: list[Item] = []
        letters: list[DeadLetter] = []
        num_older = 0
        newest, older = _newest(waiting)
        self._notice(waiting, newest, older)
        while newest:
            refused = self._store(newest)
            places = {letter.position for letter in refused}
            refused_ids = {item.id for item in newest if item.delivery.position in places}
            waiting = [item for item in older if item.id in refused_ids]
            stored += [item for item in newest if item.id not in refused_ids]
            letters += refused
            num_older += len(older) - len(waiting)
            newest, older = _newest(waiting)
        return Refracted(stored, letters, num_older)

    def count(self, done: Refracted, letters: Iterable[DeadLetter]) -> None:
        """Counts a finished batch; `letters` are all of it, those of undecodable records included."""
        observer = self._ports.observer
        observer.dead_lettered(self._topic, letters)
        observer.superseded(self._topic, self._tasks, done.num_older)
        observer.searchable(self._topic, self._tasks, (item.record.position.timestamp_ms for item in done.items))

    def _notice(self, items: Sequence[Item], newest: Iterable[Item], older: Iterable[Item]) -> None:
        """Tells of what a producer should not do, where it shows without asking the store."""
        num_conflicts = self._conflicts.count((item.id, item.record) for item in items)
        self._ports.observer.conflicted(self._topic, num_conflicts)
        if num_conflicts:
            self._warn_once(
                "Records of one key and version differ: the first is stored, the others are not. A finer version (RFC "
                "3339 times count in microseconds under version_type: time, else in milliseconds) tells them apart.",
                records=num_conflicts,
            )
        num_misspelt = sum(item.record.is_key_misspelt for item in items)
        self._ports.observer.misspelt(self._topic, num_misspelt)
        if num_misspelt:
            self._warn_once(
                "Kafka keys spell other keys than the field `key` of their records: a null value deletes what its "
                "Kafka key spells, so it would miss them. See kafka_key.",
                records=num_misspelt,
            )
        kept = {item.id: item.record for item in newest}
        pairs = ((item.record, kept[item.id]) for item in older)
        scattered = next((pair for pair in pairs if pair[0].position.partition != pair[1].position.partition), None)
        if scattered is not None:
            self._warn_once(
                "One key comes from two partitions: Kafka keeps no order between them, only a version field does.",
                partitions=sorted(record.position.partition for record in scattered),
            )

    def _warn_once(self, message: str, **facts: object) -> None:
        if message not in self._warnings:
            self._warnings.add(message)
            log.warning(message, topic=self._topic, **facts)

    def _store(self, items: Sequence[Item]) -> list[DeadLetter]:
        """Embeds and writes the items; returns the letters of those that can never be stored.

        A batch that is refused as a whole is halved until what is wrong stands alone.
        """
        try:
            points, letters = self._embed(items)
            failpoints.reach("after_embed")
            if len(points):
                self._write(points)
            failpoints.reach("after_upsert")
        except RefractError as error:
            if action_for(error) not in {Action.SPLIT, Action.DEAD_LETTER}:
                raise
            if len(items) == 1:
                reason = error.reason if isinstance(error, RecordError) else Reason.TOO_LARGE_FOR_MODEL
                detail = error.detail if isinstance(error, RecordError) else type(error).__name__
                return [items[0].delivery.dead_letter(reason, detail)]
            half = len(items) // 2
            return self._store(items[:half]) + self._store(items[half:])
        return letters

    def _embed(self, items: Sequence[Item]) -> tuple[PointBatch, list[DeadLetter]]:
        """Returns the items as points, and the letters of those without a finite embedding."""
        texts = [item.record.text for item in items if item.record.text is not None]
        deleted: Bool = np.fromiter((item.record.deleted for item in items), np.bool_, len(items))
        vectors: dict[str, Float32] = {}
        valid: Bool = np.ones(len(items), np.bool_)
        letters: list[DeadLetter] = []
        for model, tasks in self._by_model.items():
            rows_of = self._embed_texts(model, texts) if texts else [_no_rows(task) for task in tasks]
            for task, rows in zip(tasks, rows_of, strict=True):
                all_rows = np.zeros((len(items), task.dimension), np.float32)
                all_rows[~deleted] = _checked(rows, task, len(texts))
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

    def _embed_texts(self, model: str, texts: Sequence[str]) -> Embeddings:
        tasks, tokenizer, ports = self._by_model[model], self._tokenizers[model], self._ports
        prompts = [task.prompt for task in tasks]
        tokens = _encode(model, tokenizer, texts, prompts)
        with ports.observer.embedding(model):
            rows = ports.retry(
                "embedder",
                ports.suspects.watch(
                    lambda: ports.embedder.embed(model, tokens, ports.priority),
                    lambda: ports.embedder.embed(model, tokenizer.encode([PROBE_TEXT], prompts), ports.priority),
                    is_single=len(texts) == 1,
                ),
            )
        ports.observer.embedded(self._topic, tasks, tokens)
        return rows

    def _write(self, points: PointBatch) -> None:
        with self._ports.observer.writing(self._topic):
            written = self._ports.retry("store", lambda: self._ports.store.upsert(points))
        self._ports.observer.written(self._topic, self._tasks, points, written)


def _encode(model: str, tokenizer: Tokenizer, texts: Sequence[str], prompts: Sequence[str]) -> TokenBatch:
    """Returns the tokens. Raises RecordError where the tokenizer fails at these texts, and not at a harmless one."""
    try:
        return tokenizer.encode(texts, prompts)
    except RefractError:
        raise
    except Exception as error:  # whatever a tokenizer's own code raises
        tokenizer.encode([PROBE_TEXT], prompts)
        detail = f"tokenizer of model {model}: {type(error).__name__}"
        raise RecordError(Reason.FAILS_IN_MODEL, detail) from error


def _newest(items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """Returns the newest version of each key, of equal versions the first; and the others.

    Two versions of one id in one upsert would let the last in the list win, whatever its version.
    """
    newest: dict[bytes, Item] = {}
    for item in items:
        kept = newest.setdefault(item.id, item)
        if item.record.version > kept.record.version:
            newest[item.id] = item
    return list(newest.values()), [item for item in items if newest[item.id] is not item]


def _checked(rows: Float32, task: Task, num_texts: int) -> Float32:
    """Returns the rows. Raises EnvironmentFault where they are not what the task's collection takes."""
    expected = (num_texts, task.dimension)
    if rows.shape != expected:
        raise EnvironmentFault(
            f"model {task.config.model!r}, task {task.name!r}: rows {rows.shape}, expected {expected}"
        )
    return rows


def _no_rows(task: Task) -> Float32:
    return np.zeros((0, task.dimension), np.float32)
