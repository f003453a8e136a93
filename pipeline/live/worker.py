"""The core loop: poll, hand over, commit. Other threads store and flush; this one never waits for them."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from threading import Event, Thread

import structlog

from pipeline import failpoints
from pipeline.clock import Clock
from pipeline.config.pipeline import LimitsConfig
from pipeline.errors import Action, RefractError, action_for
from pipeline.interfaces import Source
from pipeline.live.breaker import DeadLetterBreaker
from pipeline.live.buffer import DeliveryBuffer
from pipeline.live.durability import Durability
from pipeline.live.observer import Observer
from pipeline.live.refractor import Refractor
from pipeline.live.retry import Retrier

POLL_TIMEOUT_S = 0.2
"""Longest wait of an idle poll. Records end it at once; it bounds how late a pause, a stop or a commit is seen."""

TAKE_TIMEOUT_S = 1.0
OUTAGE_S = 5.0
"""A component that has failed for so long is away; shorter is a restart or a busy moment."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Loop:
    """How a worker's loop runs: its bounds, its pace, what stops it, and its clock."""

    limits: LimitsConfig
    commit_interval_s: float
    stop: Event = field(default_factory=Event)
    clock: Clock = time.monotonic


class StreamWorker:
    """Moves records from a source, through the embedders, into the store: one member of the group.

    At least once, idempotent: an offset is committed only after its record and all before it are
    finished for every task and flushed, and repeating a record is a no-op behind the version guard. `run` ends
    when `stop` is called, or raises what a person must mend. Memory is bounded by
    `max_in_flight_bytes`: at the bound the source is paused and polled on.
    """

    def __init__(
        self,
        open_source: Callable[[], Source],
        refractor: Refractor,
        durability: Durability,
        observer: Observer,
        loop: Loop,
    ) -> None:
        self._open_source = open_source
        self._refractor = refractor
        self._durability = durability
        self._observer = observer
        self._buffer = DeliveryBuffer(loop.limits.max_in_flight_bytes, loop.limits.max_batch_records)
        self._num_threads = loop.limits.max_concurrent_batches
        self._breaker = DeadLetterBreaker(loop.limits.max_dead_letter_share)
        self._commit_interval_s = loop.commit_interval_s
        self._retry = Retrier(loop.stop, self._on_retry)
        self._retry_flush = Retrier(loop.stop, observer.retried)
        self._stop = loop.stop
        self._clock = loop.clock
        self._fault: BaseException | None = None
        self._committed_s = self._clock()
        self.ready = False
        """Whether the store is open, the group is joined and nothing is wrong: no component is away for long."""
        self.turned_s = self._clock()
        """When the loop last turned; a stall shows here."""

    def run(self) -> None:
        """Polls until stopped, then finishes what is in flight, commits and leaves the group.

        Raises EnvironmentFault, or the exception of a bug, after leaving the group in order.
        """
        if not self._open():
            return
        threads = [
            Thread(target=self._work, name=f"batch-{number}", daemon=True) for number in range(self._num_threads)
        ]
        threads.append(Thread(target=self._secure_often, name="flush", daemon=True))
        for thread in threads:
            thread.start()
        try:
            while not self._stop.is_set():
                self._attempt(self._turn)
        finally:
            self.ready = False
            self._buffer.close()
            for thread in threads:
                thread.join()
            self._leave()
        if self._fault is not None:
            raise self._fault

    def stalled_s(self) -> float:
        """Returns for how long the loop has not turned, ready or not; 0 once it is being stopped.

        A single call of a component ends within its own time-out, so a long stall is a call that hangs.
        """
        return 0.0 if self._stop.is_set() else self._clock() - self.turned_s

    def stop(self) -> None:
        """Ends `run` soon: what is in flight is finished, the rest is left for the next member. Any thread."""
        self._stop.set()

    def _attempt(self, work: Callable[[], None]) -> None:
        """Runs a turn or a batch; what its failure means is for the table of error classes to say."""
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - whatever it was must end the loop, and is raised by `run`
            action = action_for(error)
            dropped = action is Action.DROP  # somebody else's work now
            interrupted = action is Action.RETRY and self._stop.is_set()  # an outage; the records are read again
            if not (dropped or interrupted):
                self._fail(error)

    def _turn(self) -> None:
        # A paused source is still polled: polling is what keeps the membership alive.
        self._source.set_paused(paused=self._buffer.full)
        failpoints.reach("before_poll")
        deliveries = self._retry("source", lambda: self._source.poll(POLL_TIMEOUT_S))
        if deliveries:
            self._observer.received(deliveries)
            self._breaker.add(deliveries)
            self._buffer.put(deliveries)
        if self._clock() - self._committed_s >= self._commit_interval_s:
            self._commit()
        failing_s = max(self._refractor.failing_s(), self._retry_flush.failing_s())
        self.ready = self._source.joined() and failing_s < OUTAGE_S
        self.turned_s = self._clock()

    def _work(self) -> None:
        while not self._stop.is_set():
            deliveries = self._buffer.take(TAKE_TIMEOUT_S)
            if not deliveries:
                continue
            self._attempt(partial(self._refractor.process, deliveries))
            self._buffer.release(deliveries)

    def _open(self) -> bool:
        try:
            self._retry("store", self._durability.open)
            self.turned_s = self._clock()
            self._source = self._retry("source", self._open_source)
        except RefractError as error:
            if action_for(error) is not Action.RETRY:
                raise
            return False  # stopped while a component was away
        return True

    def _secure_often(self) -> None:
        while not self._stop.wait(self._commit_interval_s):
            self._attempt(partial(self._retry_flush, "store", self._durability.secure))

    def _commit(self) -> None:
        """Commits what is durable."""
        self._committed_s = self._clock()
        self._observer.turned(self._buffer, self._durability.tracker, self._source.lag())
        try:
            self._source.commit()
        except RefractError as error:
            if action_for(error) is not Action.RETRY:
                raise
            log.warning("Offsets wait: the source is away.", detail=str(error))

    def _leave(self) -> None:
        try:
            self._durability.secure()
            self._commit()
        except RefractError as error:
            log.warning("The last offsets could not be committed; their records will be read again.", detail=str(error))
        self._source.close()

    def _on_retry(self, component: str) -> None:
        self._observer.retried(component)
        self.ready = False
        self.turned_s = self._clock()

    def _fail(self, error: BaseException) -> None:
        if self._fault is None:
            self._fault = error
            if isinstance(error, RefractError):
                log.error("The ingestor stops; a person is needed.", error=type(error).__name__, detail=str(error))
            else:
                # The class alone: the message of a foreign exception may quote a record.
                log.error("The ingestor stops over an unexpected error.", error=type(error).__name__)
        self._stop.set()
