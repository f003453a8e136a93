"""The core loop: polls always, commits what is finished, stops in order."""

from collections.abc import Callable, Collection
from threading import Event, Thread
from time import monotonic, sleep

import pytest
from prometheus_client import CollectorRegistry

from pipeline.config.pipeline import LimitsConfig
from pipeline.errors import DiedError, EnvironmentFault, OwnershipError, TransientError, UnknownOutcomeError
from pipeline.interfaces import Source
from pipeline.live.buffer import DELIVERY_BYTES
from pipeline.live.durability import Durability
from pipeline.live.observer import IngestObserver
from pipeline.live.offsets import OffsetTracker
from pipeline.live.refractor import Refractor
from pipeline.live.retry import Retrier
from pipeline.live.routes import Ports, Routes
from pipeline.live.witness import witness_tags
from pipeline.live.worker import Loop, StreamWorker
from pipeline.metrics import IngestMetrics
from pipeline.records.record import Partition, PointIds, Witness, point_id
from tests.fakes import FakeDeadLetters, FakeEmbedder, FakeSource, FakeStore, FakeTokenizer, record, task

URGENCY = task("urgency")


class Rig:
    """A worker on fakes, run in a thread and watched from the test."""

    def __init__(self, limits: LimitsConfig | None = None) -> None:
        self.stop = Event()
        self.tracker = OffsetTracker()
        self.source = FakeSource(self.tracker)
        self.store = FakeStore()
        self.letters = FakeDeadLetters()
        self.embedder = FakeEmbedder()
        self.metrics = IngestMetrics(CollectorRegistry())
        self.observer = IngestObserver(self.metrics)
        ports = Ports(self.embedder, self.store, self.letters, Retrier(self.stop, self.observer.retried), self.observer)
        routes = Routes(PointIds("support", {"tickets": "tickets"}), {"tickets": [URGENCY]}, {"m": FakeTokenizer()})
        self.worker = StreamWorker(
            self.open_source,
            Refractor(routes, ports, self.tracker),
            Durability(self.store, [URGENCY], self.tracker, self.confirm),
            self.observer,
            Loop(limits or LimitsConfig(), 0.001, self.stop),
        )
        self.asked: list[set[tuple[Partition, Witness]]] = []
        self.store_says: list[EnvironmentFault] = []
        self.error: BaseException | None = None
        self.thread = Thread(target=self._run, daemon=True)

    def open_source(self) -> Source:
        return self.source

    def confirm(self, witnesses: Collection[tuple[Partition, Witness]]) -> None:
        self.asked.append(set(witnesses))
        if self.store_says:
            raise self.store_says[0]

    def _run(self) -> None:
        try:
            self.worker.run()
        except BaseException as error:  # noqa: BLE001 - handed to the test
            self.error = error

    def until(self, condition: Callable[[], object]) -> None:
        deadline = monotonic() + 10
        while not condition():
            assert monotonic() < deadline, "the worker did not get there"
            sleep(0.001)

    def finish(self) -> None:
        self.worker.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setattr("pipeline.live.retry.FIRST_WAIT_S", 0.001)
    monkeypatch.setattr("pipeline.live.worker.TAKE_TIMEOUT_S", 0.01)
    return Rig()


def test_records_are_stored_then_committed(rig: Rig) -> None:
    rig.source.batches.append([record("a", 1), record("b", 1)])
    rig.thread.start()
    rig.until(lambda: rig.source.commits)
    rig.finish()
    assert rig.store.count(URGENCY.collection) == 2
    assert rig.source.commits[-1] == {rig.source.partition: 2}
    assert rig.source.closed
    assert rig.store.opened == [URGENCY.collection]
    assert rig.error is None


def test_what_is_finished_while_the_store_is_flushed_waits_for_the_next_flush(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    written_before: list[int] = []

    def flush() -> None:
        written_before.append(rig.store.count(URGENCY.collection))
        if len(written_before) == 1:
            rig.source.batches.append([record("b", 1)])
            rig.until(lambda: rig.tracker.advance().offsets == {rig.source.partition: 2})
        else:
            rig.until(lambda: rig.source.commits)

    monkeypatch.setattr(rig.store, "flush", flush)
    rig.source.batches.append([record("a", 1)])
    rig.thread.start()
    rig.until(lambda: len(rig.source.commits) == 2)
    rig.finish()
    assert [commit[rig.source.partition] for commit in rig.source.commits] == written_before == [1, 2]


def test_store_that_hangs_while_it_is_flushed_does_not_keep_the_loop_from_polling(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung, let_go = Event(), Event()

    def flush() -> None:
        hung.set()
        let_go.wait(10)

    monkeypatch.setattr(rig.store, "flush", flush)
    rig.source.batches.append([record("a", 1)])
    rig.thread.start()
    assert hung.wait(10)
    polls = len(rig.source.pauses)
    rig.until(lambda: len(rig.source.pauses) > polls + 10)
    assert rig.source.commits == []
    let_go.set()
    rig.until(lambda: rig.source.commits)
    rig.finish()


def test_last_records_are_flushed_and_committed_before_the_group_is_left(rig: Rig) -> None:
    rig.worker._commit_interval_s = 3_600
    rig.source.batches.append([record("a", 1)])
    rig.thread.start()
    rig.until(lambda: rig.store.count(URGENCY.collection))
    rig.finish()
    assert rig.store.num_flushes == 1
    assert rig.source.commits == [{rig.source.partition: 1}]


def test_nothing_more_is_committed_once_the_store_has_lost_what_was(rig: Rig) -> None:
    rig.source.batches.append([record("a", 1)])
    rig.thread.start()
    rig.until(lambda: rig.source.commits)
    rig.store_says.append(EnvironmentFault("set back"))
    rig.source.batches.append([record("b", 1)])
    rig.thread.join(10)
    assert rig.error is not None
    assert str(rig.error) == "set back"
    first, second = (
        (rig.source.partition, Witness(point_id("support", "tickets", key), 1, witness_tags([URGENCY])))
        for key in ("s:a", "s:b")
    )
    assert rig.asked[0] == {first}
    assert rig.asked[1] == {first, second}
    assert rig.source.commits == [{rig.source.partition: 1}]
    assert rig.source.closed


def test_nothing_is_committed_while_the_store_is_away_and_all_of_it_afterwards(rig: Rig) -> None:
    rig.store.failures.extend([TransientError("down")] * 20)
    rig.source.batches.append([record(str(number), 1) for number in range(5)])
    rig.thread.start()
    rig.until(lambda: len(rig.store.failures) < 15)
    assert rig.source.commits == []
    rig.store.failures.clear()
    rig.until(lambda: rig.source.commits)
    rig.finish()
    assert rig.source.commits[-1] == {rig.source.partition: 5}
    assert rig.letters.letters == []


@pytest.mark.parametrize("part", ["flush", "commit"])
def test_commit_that_meets_an_outage_is_made_later(rig: Rig, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    owner = rig.store if part == "flush" else rig.source
    call, failures = getattr(owner, part), [TransientError("away")] * 3

    def fail_at_first() -> None:
        if failures:
            raise failures.pop()
        call()

    monkeypatch.setattr(owner, part, fail_at_first)
    rig.source.batches.append([record("a", 1)])
    rig.thread.start()
    rig.until(lambda: rig.source.commits or rig.error)
    rig.finish()
    assert rig.error is None
    assert failures == []


def test_outage_is_never_dead_lettered(rig: Rig) -> None:
    rig.store.failures.extend([TransientError("down"), UnknownOutcomeError("cut")])
    rig.embedder.failures.extend([TransientError("no replica"), DiedError("killed")])
    rig.source.batches.append([record("a", 1)])
    rig.thread.start()
    rig.until(lambda: rig.source.commits or rig.letters.letters or rig.error)
    rig.finish()
    assert rig.letters.letters == []
    assert rig.error is None
    assert rig.store.count(URGENCY.collection) == 1


def test_work_that_belongs_to_somebody_else_now_is_dropped_and_the_loop_goes_on(rig: Rig) -> None:
    rig.embedder.failures.append(OwnershipError("revoked"))
    rig.source.batches.append([record("a", 1)])
    rig.thread.start()
    rig.until(lambda: not rig.embedder.failures)
    rig.source.batches.append([record("b", 1)])
    rig.until(lambda: rig.store.count(URGENCY.collection) or rig.error)
    rig.finish()
    assert rig.error is None
    assert rig.source.commits == []
    assert rig.letters.letters == []


def test_source_is_paused_at_the_bound_and_polled_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.live.retry.FIRST_WAIT_S", 0.001)
    rig = Rig(LimitsConfig.model_validate({"max_in_flight_bytes": 65_536, "max_record_bytes": 1_024}))
    rig.worker._buffer._max_bytes = 15 + DELIVERY_BYTES  # two records of the fake
    rig.store.failures.extend([TransientError("down")] * 5_000)
    rig.source.batches.extend([[record("a", 1)], [record("b", 1)], [record("c", 1)]])
    rig.thread.start()
    rig.until(lambda: True in rig.source.pauses)
    polls = len(rig.source.pauses)
    rig.until(lambda: len(rig.source.pauses) > polls + 10)
    assert len(rig.source.batches) == 1
    rig.store.failures.clear()
    rig.until(lambda: rig.store.count(URGENCY.collection) == 3)
    rig.finish()


def test_stop_during_an_outage_ends_soon_without_committing_what_is_open(rig: Rig) -> None:
    rig.store.failures.extend([TransientError("down")] * 100_000)
    rig.source.batches.append([record("a", 1)])
    rig.thread.start()
    rig.until(lambda: len(rig.store.failures) < 99_999)
    rig.finish()
    assert rig.source.commits == []
    assert rig.source.closed
    assert rig.error is None


def test_fault_of_the_environment_ends_the_loop_and_leaves_the_group(rig: Rig) -> None:
    rig.store.failures.append(EnvironmentFault("collection dropped"))
    rig.source.batches.append([record("a", 1)])
    rig.thread.start()
    rig.thread.join(10)
    assert isinstance(rig.error, EnvironmentFault)
    assert rig.source.closed
    assert rig.source.commits == []
    assert not rig.worker.ready


def test_unexpected_exception_of_a_batch_ends_the_loop(rig: Rig) -> None:
    rig.embedder.failures.append(ZeroDivisionError())
    rig.source.batches.append([record("a", 1)])
    rig.thread.start()
    rig.thread.join(10)
    assert isinstance(rig.error, ZeroDivisionError)
    assert rig.source.commits == []


def test_source_that_is_away_is_polled_again(rig: Rig) -> None:
    rig.source.failures.append(TransientError("no broker"))
    rig.source.batches.append([record("a", 1)])
    rig.thread.start()
    rig.until(lambda: rig.source.commits)
    rig.finish()
    assert rig.error is None


def test_worker_waits_for_a_store_that_is_away_at_the_start(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [TransientError("down"), TransientError("down")]
    opened = rig.store.open

    def open_store(tasks: object) -> None:
        if failures:
            raise failures.pop()
        opened(tasks)  # type: ignore[arg-type]

    monkeypatch.setattr(rig.store, "open", open_store)
    rig.source.batches.append([record("a", 1)])
    rig.thread.start()
    rig.until(lambda: rig.source.commits)
    rig.finish()


def test_a_store_that_is_away_for_long_is_not_ready_and_is_again_when_it_is_back(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.live.worker.OUTAGE_S", 0.05)
    rig.source.batches.append([record("a", 1)])
    rig.store.failures.extend([TransientError("away")] * 2 + [TransientError("away", retry_after_s=0.3)])
    rig.thread.start()
    rig.until(lambda: rig.worker.ready)
    rig.until(lambda: not rig.worker.ready)
    assert rig.source.commits == []
    rig.until(lambda: rig.source.commits)
    rig.until(lambda: rig.worker.ready)
    rig.finish()
    assert rig.error is None
