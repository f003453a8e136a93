"""The core loop: poll, hand over, commit. Other threads store and flush; this one never waits for them."""

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from threading import Event, Thread

import structlog

from pipeline import failpoints
from pipeline.clock import Clock
from pipeline.config.app import LimitsConfig
from pipeline.errors import Action, EnvironmentFault, RefractError, action_for
from pipeline.interfaces import Source, Store
from pipeline.live.buffer import DeliveryBuffer
from pipeline.live.offsets import OffsetTracker
from pipeline.live.refractor import Refractor
from pipeline.live.retry import Retrier
from pipeline.live.witness import Confirm
from pipeline.metrics import IngestMetrics
from pipeline.records.record import Delivery
from pipeline.tasks import Task

POLL_TIMEOUT_S = 0.2
"""Longest wait of an idle poll. Records end it at once; it bounds how late a pause, a stop or a commit is seen."""

TAKE_TIMEOUT_S = 1.0
OUTAGE_S = 5.0
"""A component that has failed for so long is away; shorter is a restart or a busy moment."""

DEAD_LETTER_WINDOW = 1_000

log = structlog.get_logger(__name__)


class StreamWorker:
    """Moves records from a source, through the embedders, into the store: one member of the group.

    At least once, idempotent: an offset is committed only after its record and all before it are
    finished for every task and flushed, and repeating a record is a no-op behind the version guard. `run` ends
    when `stop` is called, or raises what a person must mend. Memory is bounded by
    `max_in_flight_bytes`: at the bound the source is paused and polled on.
    """

    def __init__(
        self,
        *,
        source: Callable[[], Source],
        tracker: OffsetTracker,
        refractor: Refractor,
        store: Store,
        confirm: Confirm,
        tasks: Sequence[Task],
        limits: LimitsConfig,
        commit_interval_s: float,
        metrics: IngestMetrics,
        stop: Event,
        clock: Clock = time.monotonic,
    ) -> None:
        self._open_source = source
        self._tracker = tracker
        self._refractor = refractor
        self._store = store
        self._confirm = confirm
        self._tasks = tasks
        self._buffer = DeliveryBuffer(limits.max_in_flight_bytes, limits.max_batch_records)
        self._num_threads = limits.max_concurrent_batches
        self._dead_letters = DeadLetterBreaker(limits.max_dead_letter_share)
        self._commit_interval_s = commit_interval_s
        self._metrics = metrics
        self._retry = Retrier(stop, self._on_retry)
        self._retry_flush = Retrier(stop, self._count_retry)
        self._stop = stop
        self._clock = clock
        self._fault: BaseException | None = None
        self._delivered_ms: dict[str, int] = {}
        self._committed_s = clock()
        self.ready = False
        """Whether the store is open, the group is joined and nothing is wrong: no component is away for long."""
        self.turned_s = clock()
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
            self._count(deliveries)
            self._dead_letters.add(deliveries)
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
            self._retry("store", lambda: self._store.open(self._tasks))
            self._source = self._retry("source", self._open_source)
        except RefractError as error:
            if action_for(error) is not Action.RETRY:
                raise
            return False  # stopped while a component was away
        return True

    def _secure_often(self) -> None:
        while not self._stop.wait(self._commit_interval_s):
            self._attempt(partial(self._retry_flush, "store", self._secure))

    def _secure(self) -> None:
        """Makes what is finished durable. An offset must not survive what it stands for: it is committed afterwards."""
        watermarks = self._tracker.watermarks()
        if watermarks:
            self._store.flush()
            if watermarks.witnesses:
                self._confirm(watermarks.witnesses)
            failpoints.reach("before_commit")
            self._tracker.secure(watermarks)

    def _commit(self) -> None:
        """Commits what is durable."""
        self._committed_s = self._clock()
        self._observe()
        try:
            self._source.commit()
        except RefractError as error:
            if action_for(error) is not Action.RETRY:
                raise
            log.warning("Offsets wait: the source is away.", detail=str(error))

    def _leave(self) -> None:
        try:
            self._secure()
            self._commit()
        except RefractError as error:
            log.warning("The last offsets could not be committed; their records will be read again.", detail=str(error))
        self._source.close()

    def _count(self, deliveries: Sequence[Delivery]) -> None:
        for topic, num_records in Counter(delivery.position.topic for delivery in deliveries).items():
            self._metrics.received.labels(topic).inc(num_records)
        last = deliveries[-1].position
        self._delivered_ms[last.topic] = last.timestamp_ms

    def _count_retry(self, component: str) -> None:
        self._metrics.retries.labels(component).inc()

    def _on_retry(self, component: str) -> None:
        self._count_retry(component)
        self.ready = False
        self.turned_s = self._clock()

    def _observe(self) -> None:
        self._metrics.in_flight_bytes.set(self._buffer.num_bytes)
        self._metrics.paused.set(self._buffer.full)
        self._metrics.watermark_age.set(self._tracker.watermark_age_s())
        lag = self._source.lag()
        for partition, num_records in lag.items():
            self._metrics.lag.labels(partition.topic, partition.number).set(num_records)
        behind = bool(self._tracker.num_unfinished() or any(lag.values()))
        for topic, delivered_ms in self._delivered_ms.items():
            self._metrics.lag_seconds.labels(topic).set(max(0.0, time.time() - delivered_ms / 1000) if behind else 0.0)

    def _fail(self, error: BaseException) -> None:
        if self._fault is None:
            self._fault = error
            if isinstance(error, RefractError):
                log.error("The ingestor stops; a person is needed.", error=type(error).__name__, detail=str(error))
            else:
                # The class alone: the message of a foreign exception may quote a record.
                log.error("The ingestor stops over an unexpected error.", error=type(error).__name__)
        self._stop.set()


class DeadLetterBreaker:
    """Stops the ingestor when most records are bad: that is a wrong configuration, not bad records."""

    def __init__(self, max_share: float) -> None:
        self._max_share = max_share
        self._recent: deque[bool] = deque(maxlen=DEAD_LETTER_WINDOW)

    def add(self, deliveries: Sequence[Delivery]) -> None:
        """Counts deliveries. Raises EnvironmentFault when the share over the last 1,000 is above the limit."""
        self._recent.extend(delivery.error is not None for delivery in deliveries)
        num_bad = sum(self._recent)
        if len(self._recent) == DEAD_LETTER_WINDOW and num_bad > self._max_share * DEAD_LETTER_WINDOW:
            last = next((delivery.error for delivery in reversed(deliveries) if delivery.error), None)
            raise EnvironmentFault(
                f"{num_bad} of the last {DEAD_LETTER_WINDOW} records are dead letters (the last one: {last}), more "
                f"than limits.max_dead_letter_share {self._max_share}: check the topic's format, key, text and version"
            )
