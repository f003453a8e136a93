"""Carries fragments from their files to the store: one thread reads, others tokenise, embed and write."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from pipeline.backfill.bounds import BatchSize, Room
from pipeline.backfill.inputs import Fragment
from pipeline.backfill.outcome import Counts, Outcome
from pipeline.backfill.rows import FragmentFault, FragmentReader
from pipeline.backfill.tally import Tally
from pipeline.backfill.work import Work
from pipeline.binding import Task
from pipeline.config.pipeline import Config
from pipeline.errors import TransientError
from pipeline.interfaces import Embedder, PointWriter, Tokenizer
from pipeline.live.offsets import OffsetTracker, Watermarks
from pipeline.live.refractor import Refractor
from pipeline.live.retry import Retrier
from pipeline.live.routes import Ports, Routes
from pipeline.records.batches import Priority
from pipeline.records.record import Delivery, Partition, PointIds, Receipt, Witness

_FRAGMENT = Partition("fragment", 0)
"""To its own offset tracker a fragment is the only partition, and its rows are the offsets."""

OpenStore = Callable[[Fragment, Sequence[Task]], PointWriter]
"""Returns where a fragment's points go; flushed when the fragment is through."""


class WorkInterruptedError(FragmentFault):
    """The fragment's source went away while it was read, or its store before it was flushed: carry it again."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What a carrier works with."""

    tokenizers: Mapping[str, Tokenizer]
    """By model."""
    embedder: Embedder
    open_store: OpenStore


@dataclass(frozen=True, slots=True)
class Manner:
    """How a carrier treats its batches."""

    growing: bool = False
    """Whether batches may be larger than `limits.max_batch_records`, see BatchSize."""
    rest: float = 0.0
    """After a batch its thread rests for so many times what the batch took."""
    whole: bool = False
    """Whether a fragment is durable as a whole or not at all, so that it has no checkpoints."""


@dataclass(slots=True)
class _UnderWay:
    """A work under way: which of its rows are finished, and up to where they are durable."""

    start: int
    store: PointWriter
    tally: Tally
    checkpoint: int = field(init=False)
    witness: Witness | None = None
    tracker: OffsetTracker = field(default_factory=OffsetTracker)

    def __post_init__(self) -> None:
        self.checkpoint = self.start
        self.tracker.assign(_FRAGMENT, self.start)

    def receipt(self, row: int) -> Receipt:
        return self.tracker.add(_FRAGMENT, row)

    def flush(self) -> bool:
        """Makes what is finished durable; whether that is more than at the last call."""
        moved = self.tracker.advance()
        if moved:
            self.store.flush()
            self.tracker.secure(moved)
            self._take(moved)
        return bool(moved)

    def _take(self, moved: Watermarks) -> None:
        for _, mark in moved.moved:
            self.checkpoint, self.witness = mark.offset, mark.witness

    def reached(self) -> Outcome:
        """What is durable. Its counts are of all that was done, but for the rejects."""
        counts, rejects = self.tally.counts(), [row for row in self.tally.rejects if row.row < self.checkpoint]
        counts.rejected = Counter(row.reason for row in rejects)
        return Outcome(counts, self.checkpoint, rejects, self.witness)

    def end(self) -> Outcome:
        """What became of all rows that were read."""
        counts = self.tally.counts()
        self._take(self.tracker.advance())
        return Outcome(counts, self.start + counts.rows, self.tally.rejects, self.witness)


class Carrier:
    """Reads fragments and carries their batches through, several at once and in any order.

    Rows in flight are bounded: by `limits.max_in_flight_bytes`, and by two batches per batch thread. Call `carry` from
    as many threads as fragments should overlap; the batch threads are shared.
    """

    def __init__(
        self, config: Config, topic: str, tasks: Mapping[str, Task], tools: Tools, manner: Manner | None = None
    ) -> None:
        self._config = config
        self._topic = topic
        self._tasks = tasks
        self._tools = tools
        self._manner = manner or Manner()
        self._reader = FragmentReader(config, topic)
        self._stop = threading.Event()
        num_threads = config.limits.max_concurrent_batches
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="batch")
        self._room = Room(config.limits.max_in_flight_bytes, 2 * num_threads)
        row_bytes = 4 * sum(task.dimension for task in tasks.values())
        self._size = BatchSize(config.limits.max_batch_records, row_bytes if self._manner.growing else None)
        self._lock = threading.Lock()
        self._under_way: dict[str, _UnderWay] = {}

    def carry(self, work: Work) -> Outcome:
        """Makes the rows of a work durable in its tasks' collections.

        Raises FragmentFault where the fragment cannot be read to its end, WorkInterruptedError where it must be carried
        again, TransientError after `stop`, another RefractError where a person must help with something else.
        """
        tasks = [self._tasks[name] for name in work.tasks]
        store, tally = self._tools.open_store(work.fragment, tasks), Tally(work.fragment, len(tasks))
        passing = _UnderWay(max(work.start, work.fragment.begin), store, tally)
        refractor = self._refractor(passing, tasks)
        with self._lock:
            self._under_way[work.name] = passing
        futures: set[Future[None]] = set()
        try:
            for batch in self._read(work.fragment, passing):
                futures.add(self._threads.submit(self._process, passing, refractor, batch, self._room.take(batch)))
                tally.read(batch)
                passing.tracker.advance()  # forgets the receipts below
                futures = _without_finished(futures)
            while futures:
                wait(futures, return_when=FIRST_COMPLETED)
                futures = _without_finished(futures)
            try:
                store.flush()
            except TransientError as error:
                raise WorkInterruptedError(f"{work.name}: {error}") from error
        finally:
            wait(futures)
            with self._lock:
                del self._under_way[work.name]
        tally.resolved(self._reader.resolved)
        return passing.end()

    def checkpoints(self) -> dict[str, Outcome]:
        """Returns, by name, what of the works under way is durable now, where that is more than last time."""
        if self._manner.whole:
            return {}
        with self._lock:
            some = dict(self._under_way)
        return {name: passing.reached() for name, passing in some.items() if passing.flush()}

    def counts(self) -> Counts:
        """Returns the counts of the works under way."""
        with self._lock:
            some = list(self._under_way.values())
        counts = Counts()
        for passing in some:
            counts.add(passing.tally.counts())
        return counts

    def stop(self) -> None:
        """Ends what is under way soon: `carry` raises TransientError, or what its calls wait for."""
        self._stop.set()

    def close(self) -> None:
        """Stops, and ends the batch threads. Call it when every `carry` has returned."""
        self.stop()
        self._threads.shutdown(wait=True)

    def _refractor(self, passing: _UnderWay, tasks: Sequence[Task]) -> Refractor:
        store, tally = passing.store, passing.tally
        retry = Retrier(self._stop, tally.retried)
        ports = Ports(self._tools.embedder, store, tally, retry, tally, Priority.BACKFILL)
        ids = PointIds(self._config.pipeline, self._config.source.key_spaces)
        return Refractor(Routes(ids, {self._topic: tasks}, self._tools.tokenizers), ports, passing.tracker)

    def _read(self, fragment: Fragment, passing: _UnderWay) -> Iterator[list[Delivery]]:
        try:
            yield from self._reader.batches(fragment, passing.start, passing.receipt, lambda: self._size.rows)
        except TransientError as error:
            raise WorkInterruptedError(f"{fragment.name}: {error}") from error

    def _process(self, passing: _UnderWay, refractor: Refractor, batch: list[Delivery], taken: int) -> None:
        began_s = time.monotonic()
        with self._room.giving_back(taken):
            if self._stop.is_set():
                raise TransientError("the backfill is stopped")
            refractor.process(batch)
        passing.tally.finished(len(batch))
        elapsed_s = time.monotonic() - began_s
        self._size.adapt(len(batch), elapsed_s)
        if self._manner.rest:
            self._stop.wait(self._manner.rest * elapsed_s)


def _without_finished(futures: set[Future[None]]) -> set[Future[None]]:
    """Drops what is finished; raises the first failure among it."""
    for future in [future for future in futures if future.done()]:
        future.result()
        futures.discard(future)
    return futures
