"""In-memory stand-ins for the seams: a source that replays, a store that guards, an embedder that can fail."""

import hashlib
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np

from pipeline.binding import ModelIdentity, Task, bind_task
from pipeline.config.model import TaskConfig
from pipeline.errors import BatchShapeError, DiedError, Reason, RefractError, TransientError, UnexpectedFault
from pipeline.filters import Condition
from pipeline.interfaces import StoredPoint, Written
from pipeline.live.offsets import OffsetTracker
from pipeline.records.batches import Embeddings, Float32, PointBatch, Priority, TokenBatch
from pipeline.records.record import DeadLetter, Delivery, Partition, Position, Record

DIMENSION = 8


def task(name: str = "urgency", model: str = "m", mode: str = "symmetric") -> Task:
    """A bound task of the fake model."""
    settings = TaskConfig.model_validate({"instruction": f"about {name}", "model": model, "mode": mode})
    return bind_task(name, settings, ModelIdentity(DIMENSION, {"weights": "fake"}))


def record(key: str, version: int, text: str | None = "hello", *, offset: int = 0, topic: str = "tickets") -> Record:
    """A decoded record; without a text it is a delete."""
    return Record(f"s:{key}", version, text, {"_key": f"s:{key}"}, Position(topic, 0, offset, 1_000))


class FakeSource:
    """One topic of queued deliveries; everything in a batch is delivered by one poll."""

    def __init__(self, tracker: OffsetTracker, topic: str = "tickets") -> None:
        self.tracker = tracker
        self.partition = Partition(topic, 0)
        self.batches: deque[list[Record | Reason]] = deque()
        self.next_offset = 0
        self.commits: list[dict[Partition, int]] = []
        self.pauses: list[bool] = []
        self.closed = False
        self.failures: deque[RefractError] = deque()
        tracker.assign(self.partition, 0)

    def poll(self, timeout_s: float) -> Sequence[Delivery]:  # noqa: ARG002 - nothing to wait for
        if self.failures:
            raise self.failures.popleft()
        if not self.batches or self.pauses[-1]:
            return []
        return [self.deliver(item) for item in self.batches.popleft()]

    def deliver(self, item: Record | Reason) -> Delivery:
        offset, self.next_offset = self.next_offset, self.next_offset + 1
        receipt = self.tracker.add(self.partition, offset)
        position = Position(self.partition.topic, 0, offset, 1_000)
        if isinstance(item, Reason):
            return Delivery(receipt, position, 10, error=item, raw_key=b"k", raw_value=b"bad")
        return Delivery(receipt, position, 10, record=item, raw_key=b"k", raw_value=b"{}")

    def set_paused(self, *, paused: bool) -> None:
        self.pauses.append(paused)

    def commit(self) -> None:
        moved = {place: watermark.offset for place, watermark in self.tracker.durable().items()}
        if moved:
            self.commits.append(moved)
            self.tracker.committed(moved)

    def joined(self) -> bool:
        return True

    def lag(self) -> Mapping[Partition, int]:
        return {self.partition: sum(len(batch) for batch in self.batches)}

    def close(self) -> None:
        self.closed = True


class FakeStore:
    """Guarded dictionaries, one per collection. `failures` are raised by the next upserts, in order."""

    def __init__(self) -> None:
        self.points: dict[str, dict[bytes, tuple[int, bool, Float32 | None]]] = {}
        self.failures: deque[RefractError] = deque()
        self.lost_answers: deque[RefractError] = deque()
        self.upserts: list[PointBatch] = []
        self.num_flushes = 0
        self.opened: list[str] = []
        self._payloads: dict[bytes, Mapping[str, Any]] = {}
        """Of the last write of each id, whatever the collection."""
        self._lock = Lock()

    def open(self, tasks: Iterable[Task]) -> None:
        self.opened += [task.collection for task in tasks]

    def upsert(self, batch: PointBatch) -> Written:
        with self._lock:
            if self.failures:
                raise self.failures.popleft()
            self.upserts.append(batch)
            stale = {collection: self._write(collection, batch, rows) for collection, rows in batch.vectors.items()}
            if self.lost_answers:
                raise self.lost_answers.popleft()
            return Written(stale)

    def _write(self, collection: str, batch: PointBatch, rows: Float32) -> int:
        points = self.points.setdefault(collection, {})
        before = dict(points)
        stale = 0
        for row, raw in enumerate(batch.ids):
            version, deleted = int(batch.versions[row]), bool(batch.deleted[row])
            stored = before.get(raw.tobytes())
            # As Qdrant does: conditions are judged against the state before the batch, the last of one id wins.
            if stored is not None and stored[0] >= version:
                stale += stored[0] > version
                continue
            points[raw.tobytes()] = (version, deleted, None if deleted else rows[row].copy())
            self._payloads[raw.tobytes()] = batch.payloads[row]
        return stale

    def flush(self) -> None:
        self.num_flushes += 1

    def search(self, task: Task, vector: Float32, limit: int, conditions: Sequence[Condition]) -> list[StoredPoint]:  # noqa: ARG002
        live = [
            StoredPoint(point, version, False, self._payloads[point], rows, float(rows @ vector))
            for point, (version, _, rows) in self.points.get(task.collection, {}).items()
            if rows is not None
        ]
        return sorted(live, key=lambda point: -point.score)[:limit]

    def retrieve(self, collection: str, ids: Sequence[bytes], *, with_vectors: bool = False) -> list[StoredPoint]:
        points = self.points.get(collection, {})
        return [
            StoredPoint(
                point,
                points[point][0],
                points[point][1],
                self._payloads[point],
                points[point][2] if with_vectors else None,
            )
            for point in ids
            if point in points
        ]

    def scroll(
        self, collection: str, after: bytes | None, limit: int, *, with_vectors: bool = False
    ) -> list[StoredPoint]:
        ids = sorted(point for point in self.points.get(collection, {}) if after is None or point > after)
        return sorted(self.retrieve(collection, ids[:limit], with_vectors=with_vectors), key=lambda point: point.id)

    def count(self, collection: str) -> int:
        return sum(not deleted for _, deleted, _ in self.points.get(collection, {}).values())

    def check(self) -> str:
        return "fake 1.0"

    def close(self) -> None:
        self.num_flushes += 1


class FakeTokenizer:
    """One id per character; texts longer than `max_length` are cut and counted."""

    def __init__(self, max_length: int = 1_000) -> None:
        self.max_length = max_length

    def encode(self, texts: Sequence[str], prompts: Sequence[str]) -> TokenBatch:
        kept = [text[: self.max_length] for text in texts]
        lengths = [len(text) for text in kept]
        return TokenBatch(
            prompts=tuple(prompts),
            ids=np.array([ord(char) for text in kept for char in text], np.int32),
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            segments=np.tile(np.arange(len(texts), dtype=np.int32), (len(prompts), 1)),
            truncated=np.tile(
                np.array([len(text) - length for text, length in zip(texts, lengths, strict=True)], np.int32),
                (len(prompts), 1),
            ),
        )


def vector(prompt: str, text: str) -> Float32:
    """The fake model's vector: a unit vector of signs from a hash."""
    bits = np.frombuffer(hashlib.blake2b(f"{prompt}\0{text}".encode(), digest_size=DIMENSION).digest(), np.uint8)
    signs: Float32 = np.where(bits & 1, 1, -1).astype(np.float32)
    return signs / np.float32(np.sqrt(DIMENSION))


class FakeEmbedder:
    """Hashes; fails as told. `nan_texts` get no finite vector; batches above `max_texts` are refused."""

    def __init__(self) -> None:
        self.failures: deque[Exception] = deque()
        self.nan_texts: set[str] = set()
        self.deadly_texts: set[str] = set()
        """Texts that kill the process."""
        self.failing_texts: set[str] = set()
        """Texts at which the model raises something of its own."""
        self.max_texts = 10_000
        self.calls: list[tuple[str, TokenBatch, Priority]] = []

    def embed(self, model: str, batch: TokenBatch, priority: Priority) -> Embeddings:
        self.calls.append((model, batch, priority))
        if self.failures:
            raise self.failures.popleft()
        if batch.num_texts > self.max_texts:
            raise BatchShapeError("too many texts")
        texts = [
            "".join(map(chr, batch.ids[batch.offsets[segment] : batch.offsets[segment + 1]]))
            for segment in batch.segments[0]
        ]
        if self.deadly_texts.intersection(texts):
            raise DiedError("embedder died")
        if self.failing_texts.intersection(texts):
            raise UnexpectedFault("embedder m failed unexpectedly: RuntimeError")
        return [np.stack([self._row(prompt, text) for text in texts]) for prompt in batch.prompts]

    def _row(self, prompt: str, text: str) -> Float32:
        return np.full(DIMENSION, np.nan, np.float32) if text in self.nan_texts else vector(prompt, text)


class FakeDeadLetters:
    """Keeps letters; `failures` are raised by the next sends."""

    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []
        self.failures: deque[TransientError] = deque()
        self.closed = False

    def send(self, letters: Sequence[DeadLetter]) -> None:
        if self.failures:
            raise self.failures.popleft()
        self.letters += letters

    def close(self) -> None:
        self.closed = True
