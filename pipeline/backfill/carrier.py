"""Carries fragments from their files to the store: one thread reads, others tokenise, embed and write."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from pipeline.backfill.fragments import Fragment
from pipeline.backfill.outcome import Counts, Outcome, Reject, counts_of
from pipeline.backfill.rows import FragmentFault, read_batches
from pipeline.config.app import Config
from pipeline.errors import TransientError
from pipeline.interfaces import Embedder, PointWriter, Tokenizer
from pipeline.live.observer import IngestObserver
from pipeline.live.offsets import OffsetTracker
from pipeline.live.refractor import Refractor
from pipeline.live.retry import Retrier
from pipeline.live.routes import Ports, Routes
from pipeline.metrics import IngestMetrics
from pipeline.records.batches import Embeddings, Priority, TokenBatch
from pipeline.records.record import DeadLetter, Delivery, Partition, Receipt
from pipeline.tasks import Task

MAX_REJECTS = 100_000
"""Of one fragment. More are no bad rows but a wrong configuration, and they are held in memory."""

BATCH_S = 2.0
"""How long a batch may be on its way, that of its neighbours in the queues included, before batches stop growing."""

GROWTH = 4
BATCH_VECTOR_BYTES = 8 << 20
"""Batches grow to so many times `limits.max_batch_records`, or to so many bytes of vectors."""

OpenStore = Callable[[Fragment, Sequence[Task]], PointWriter]
"""Returns where a fragment's points go; flushed when the fragment is through."""


class UnflushedError(FragmentFault):
    """A fragment is written, but its store went away before it said that this is durable: carry it again."""


class _Rejects:
    """Implements `pipeline.interfaces.DeadLetters` by keeping where and why."""

    def __init__(self, fragment: Fragment) -> None:
        self.rows: list[Reject] = []
        self._fragment = fragment

    def send(self, letters: Sequence[DeadLetter]) -> None:
        """See DeadLetters."""
        self.rows += [
            Reject(letter.position.offset, str(letter.reason), letter.task, letter.detail) for letter in letters
        ]
        if len(self.rows) > MAX_REJECTS:
            last = self.rows[-1]
            raise FragmentFault(
                f"{self._fragment.name}: more than {MAX_REJECTS:,} rows were refused, the last with {last.reason} "
                f"({last.detail}): is it this topic's input?"
            )

    def close(self) -> None:
        """Nothing is open."""


class _CountingEmbedder:
    """Counts the tokens that pass to an embedder."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._lock = threading.Lock()
        self.num_tokens = 0

    def embed(self, model: str, batch: TokenBatch, priority: Priority) -> Embeddings:
        """See Embedder."""
        rows = self._embedder.embed(model, batch, priority)
        with self._lock:
            self.num_tokens += batch.num_tokens * len(batch.prompts)
        return rows


@dataclass(slots=True)
class _Passage:
    """A fragment on its way."""

    tracker: OffsetTracker
    partition: Partition
    rejects: _Rejects
    embedder: _CountingEmbedder
    store: PointWriter
    registry: CollectorRegistry
    start: int
    num_tasks: int
    num_rows: int = 0
    num_finished: int = 0
    checkpoint: int = field(init=False)

    def __post_init__(self) -> None:
        self.checkpoint = self.start

    def counts(self) -> Counts:
        counts = counts_of(self.registry, self.num_rows, self.num_finished)
        counts.tokens = self.embedder.num_tokens
        counts.points = (counts.rows - counts.num_rejected) * self.num_tasks
        return counts

    def flush(self) -> bool:
        """Makes what is finished durable; whether that is more than at the last call."""
        moved = self.tracker.advance()
        if moved:
            self.store.flush()
            self.tracker.secure(moved)
            self.checkpoint = moved.offsets[self.partition]
        return bool(moved)

    def outcome(self) -> Outcome:
        """What is durable. Its counts are of all that was done, but for the rejects."""
        counts, rejects = self.counts(), [row for row in self.rejects.rows if row.row < self.checkpoint]
        counts.rejected = Counter(row.reason for row in rejects)
        return Outcome(counts, self.checkpoint, rejects)


class Carrier:
    """Reads fragments and carries their batches through, several at once and in any order.

    Rows in flight are bounded: by `limits.max_in_flight_bytes`, and by two batches per batch thread. Call `carry` from
    as many threads as fragments should overlap; the batch threads are shared.
    """

    def __init__(
        self,
        config: Config,
        topic: str,
        tasks: Mapping[str, Task],
        *,
        tokenizers: Mapping[str, Tokenizer],
        embedder: Embedder,
        open_store: OpenStore,
        growing: bool = False,
        rest: float = 0.0,
    ) -> None:
        """Takes what one run needs.

        `growing`: batches may be larger than `limits.max_batch_records`, see BatchSize. `rest`: of the time a batch
        took, so much passes before its thread takes the next.
        """
        self._config = config
        self._topic = topic
        self._tasks = tasks
        self._tokenizers = tokenizers
        self._embedder = embedder
        self._open_store = open_store
        self._rest = rest
        self._stop = threading.Event()
        num_threads = config.limits.max_concurrent_batches
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="batch")
        self._room = _Room(config.limits.max_in_flight_bytes, 2 * num_threads)
        row_bytes = 4 * sum(task.dimension for task in tasks.values())
        self._size = BatchSize(config.limits.max_batch_records, row_bytes if growing else None)
        self._lock = threading.Lock()
        self._passing: dict[str, _Passage] = {}

    def carry(self, fragment: Fragment, names: Sequence[str], start: int) -> Outcome:
        """Makes a fragment's rows from number `start` on durable in the named tasks' collections.

        Raises FragmentFault where the fragment cannot be read to its end, UnflushedError where it must be carried
        again, another RefractError where a person must help with something else.
        """
        passage, refractor = self._begin(fragment, [self._tasks[name] for name in names], start)
        with self._lock:
            self._passing[fragment.name] = passage
        under_way: set[Future[None]] = set()
        try:
            for batch in self._read(fragment, passage):
                under_way.add(self._threads.submit(self._process, passage, refractor, batch, self._room.take(batch)))
                passage.num_rows += len(batch)
                passage.tracker.advance()  # forgets the receipts below
                under_way = _without_finished(under_way)
            while under_way:
                wait(under_way, return_when=FIRST_COMPLETED)
                under_way = _without_finished(under_way)
            try:
                passage.store.flush()
            except TransientError as error:
                raise UnflushedError(f"{fragment.name}: {error}") from error
        finally:
            wait(under_way)
            with self._lock:
                del self._passing[fragment.name]
        return Outcome(passage.counts(), passage.start + passage.num_rows, passage.rejects.rows)

    def checkpoints(self) -> dict[str, Outcome]:
        """Returns, by name, what of the fragments under way is durable now, where that is more than last time."""
        with self._lock:
            passing = dict(self._passing)
        return {name: passage.outcome() for name, passage in passing.items() if passage.flush()}

    def counts(self) -> Counts:
        """Returns the counts of the fragments under way."""
        with self._lock:
            passing = list(self._passing.values())
        counts = Counts()
        for passage in passing:
            counts.add(passage.counts())
        return counts

    def close(self) -> None:
        """Ends what is under way soon: its calls fail with what they wait for."""
        self._stop.set()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _begin(self, fragment: Fragment, tasks: Sequence[Task], start: int) -> tuple[_Passage, Refractor]:
        registry = CollectorRegistry()
        metrics = IngestMetrics(registry)
        tracker, partition = OffsetTracker(), Partition(fragment.name, 0)
        start = max(start, fragment.begin)
        tracker.assign(partition, start)
        passage = _Passage(
            tracker,
            partition,
            _Rejects(fragment),
            _CountingEmbedder(self._embedder),
            self._open_store(fragment, tasks),
            registry,
            start,
            len(tasks),
        )
        observer = IngestObserver(metrics)
        retry = Retrier(self._stop, observer.retried)
        ports = Ports(passage.embedder, passage.store, passage.rejects, retry, observer, Priority.BACKFILL)
        routes = Routes(self._config.pipeline, {self._topic: tasks}, self._tokenizers)
        return passage, Refractor(routes, ports, tracker)

    def _read(self, fragment: Fragment, passage: _Passage) -> Iterator[list[Delivery]]:
        def receipt(number: int) -> Receipt:
            return passage.tracker.add(passage.partition, number)

        return read_batches(
            fragment, self._topic, self._config, start=passage.start, receipt=receipt, size=lambda: self._size.rows
        )

    def _process(self, passage: _Passage, refractor: Refractor, batch: list[Delivery], taken: int) -> None:
        began_s = time.monotonic()
        with self._room.giving_back(taken):
            refractor.process(batch)
        with self._lock:
            passage.num_finished += len(batch)
        elapsed_s = time.monotonic() - began_s
        self._size.adapt(len(batch), elapsed_s)
        if self._rest:
            self._stop.wait(self._rest * elapsed_s)


class BatchSize:
    """How many rows make a batch: `limits.max_batch_records`, and more of them where a batch is soon through.

    What a batch costs beside its rows, calls between processes above all, is paid less often then. Where a model is
    slow a batch stays as it is: it is what a killed run repeats, and what progress moves by.
    """

    def __init__(self, fewest: int, row_bytes: int | None) -> None:
        """Takes the size to begin with, and the bytes of a row's vectors; without them it stays."""
        self._fewest = fewest
        self._most = fewest if row_bytes is None else max(fewest, min(GROWTH * fewest, BATCH_VECTOR_BYTES // row_bytes))
        self.rows = fewest

    def adapt(self, num_rows: int, seconds: float) -> None:
        """Learns how long a batch took."""
        fitting = int(num_rows * BATCH_S / max(seconds, 1e-6))
        self.rows = min(max(fitting, self._fewest), self._most)


class _Room:
    """Bounds bytes and batches in flight. A batch that is larger than the bound is let in alone."""

    def __init__(self, num_bytes: int, num_batches: int) -> None:
        self._free_bytes = self._num_bytes = num_bytes
        self._free_batches = num_batches
        self._changed = threading.Condition()

    def take(self, batch: Sequence[Delivery]) -> int:
        """Waits for room; returns what to give back."""
        wanted = min(sum(delivery.num_bytes for delivery in batch), self._num_bytes)
        with self._changed:
            self._changed.wait_for(lambda: self._free_batches > 0 and self._free_bytes >= wanted)
            self._free_batches -= 1
            self._free_bytes -= wanted
        return wanted

    @contextmanager
    def giving_back(self, taken: int) -> Iterator[None]:
        try:
            yield
        finally:
            with self._changed:
                self._free_batches += 1
                self._free_bytes += taken
                self._changed.notify_all()


def _without_finished(under_way: set[Future[None]]) -> set[Future[None]]:
    """Drops what is finished; raises the first failure among it."""
    for future in [future for future in under_way if future.done()]:
        future.result()
        under_way.discard(future)
    return under_way
