"""Store, embedder and dead-letter topic that are slow, fail, lose their answers and get requests twice."""

from collections.abc import Sequence

from pipeline.errors import BatchShapeError, DiedError, Reason, RecordError, TransientError, UnknownOutcomeError
from pipeline.interfaces import Written
from pipeline.live.crashes import MAX_DEATHS
from pipeline.records.batches import Embeddings, Float32, PointBatch, Priority, TokenBatch
from pipeline.records.record import DeadLetter
from tests.fakes import FakeDeadLetters, FakeEmbedder, FakeStore
from tests.simulation.chaos import Chaos
from tests.simulation.scheduler import Process, Scheduler, SimThread

LATENCY_S = 0.3
LATE_S = 8.0
"""How late a repeated request may still arrive: long after its sender has died or lost the partition."""


class SimStore(FakeStore):
    """Guarded, but a call may be slow, be applied in part, lose its answer or arrive again much later."""

    def __init__(self, scheduler: Scheduler, chaos: Chaos, refused: set[bytes]) -> None:
        super().__init__()
        self.violations: list[str] = []
        self._scheduler = scheduler
        self._chaos = chaos
        self._refused = refused
        self._max_points = chaos.random.choice([2, 4, 1_000])
        self._network = Process("network")
        self._num_late = 0

    def upsert(self, batch: PointBatch) -> Written:
        self._chaos.pause(LATENCY_S)
        if self._chaos.flip_fault("store", 0.05):
            raise TransientError("store away")
        ids = {raw.tobytes() for raw in batch.ids}
        if len(batch) > self._max_points:
            raise BatchShapeError("too many points")
        if ids & self._refused:
            raise RecordError(Reason.REFUSED_BY_STORE) if len(batch) == 1 else BatchShapeError("one is bad")
        stale = {}
        for collection, rows in batch.vectors.items():
            stale[collection] = self._write(collection, batch, rows)
            self._chaos.pause(LATENCY_S / 10)
            if self._chaos.flip_fault("store", 0.03):
                raise UnknownOutcomeError("the answer was lost")
        if self._chaos.flip_fault("late repetition", 0.05):
            self._repeat_late(batch)
        return Written(stale)

    def flush(self) -> None:
        self._chaos.pause(LATENCY_S / 10)
        if self._chaos.flip_fault("store", 0.05):
            raise TransientError("store away")

    def version(self, collection: str, point: bytes) -> int:
        """The stored version, -1 when there is none."""
        return self.points.get(collection, {}).get(point, (-1, False, None))[0]

    def _write(self, collection: str, batch: PointBatch, rows: Float32) -> int:
        before = {raw.tobytes(): self.version(collection, raw.tobytes()) for raw in batch.ids}
        stale = self._apply(collection, batch, rows)
        for point, version in before.items():
            after = self.version(collection, point)
            self._chaos.note(f"store: {collection[:8]} {point.hex()[:6]} {version} -> {after}")
            if after < version:
                self.violations.append(f"version of {point.hex()[:6]} went down from {version} to {after}")
        return stale

    def _apply(self, collection: str, batch: PointBatch, rows: Float32) -> int:
        return super()._write(collection, batch, rows)

    def _repeat_late(self, batch: PointBatch) -> None:
        def arrive() -> None:
            self._chaos.pause(LATE_S)
            for collection, rows in batch.vectors.items():
                self._write(collection, batch, rows)

        self._num_late += 1
        SimThread(self._scheduler, self._network, arrive, f"late-{self._num_late}").start()


class UnguardedStore(SimStore):
    """Lets the last write win: the oracle must see what that does."""

    def _apply(self, collection: str, batch: PointBatch, rows: Float32) -> int:
        points = self.points.setdefault(collection, {})
        for row, raw in enumerate(batch.ids):
            deleted = bool(batch.deleted[row])
            points[raw.tobytes()] = (int(batch.versions[row]), deleted, None if deleted else rows[row].copy())
        return 0


class SimEmbedder(FakeEmbedder):
    """Slow; sometimes away, sometimes too small for the batch."""

    def __init__(self, chaos: Chaos) -> None:
        super().__init__()
        self._chaos = chaos
        self.max_texts = chaos.random.choice([1, 3, 1_000])
        self._num_deaths = 0

    def embed(self, model: str, batch: TokenBatch, priority: Priority) -> Embeddings:
        self._chaos.pause(LATENCY_S)
        if self._chaos.flip_fault("embedder", 0.05):
            raise TransientError("no replica")
        rows = super().embed(model, batch, priority)
        if self._chaos.flip_fault("embedder", 0.03):
            self._num_deaths += 1
            # Killed by somebody else: too seldom for a record to be blamed.
            raise (DiedError if self._num_deaths <= MAX_DEATHS else UnknownOutcomeError)("the replica went")
        return rows


class SimDeadLetters(FakeDeadLetters):
    """May keep some letters, or all of them, and say that it failed."""

    def __init__(self, chaos: Chaos) -> None:
        super().__init__()
        self._chaos = chaos

    def send(self, letters: Sequence[DeadLetter]) -> None:
        self._chaos.pause(LATENCY_S)
        for letter in letters:
            if self._chaos.flip_fault("dead letters", 0.1):
                raise TransientError("no leader")
            self._chaos.note(f"dead letter: {letter.position.partition}:{letter.position.offset} {letter.reason}")
            self.letters.append(letter)
        if self._chaos.flip_fault("dead letters", 0.1):
            raise TransientError("the answer was lost")
