"""Each alert provoked: the real code gets into trouble, `/metrics` shows it, and Prometheus rings; and not without."""

import asyncio
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, context_managers
from ray import serve

from actors.monitor import Monitor
from actors.reporting import Reporter
from pipeline.api.service import ApiService
from pipeline.config.load import ConfigTree
from pipeline.context import Context
from pipeline.engine.scheduler import EmbedScheduler
from pipeline.errors import Reason, TransientError
from pipeline.live.buffer import DeliveryBuffer
from pipeline.live.observer import IngestObserver
from pipeline.live.offsets import OffsetTracker
from pipeline.live.retry import Retrier
from pipeline.metrics import EmbedMetrics, IngestMetrics, ReplicaReport, StoreMetrics, snapshot
from pipeline.records.batches import Priority
from pipeline.records.record import DeadLetter, Delivery, Partition, Position
from tests.config_trees import tree
from tests.fakes import FakeTokenizer, task
from tests.unit.infra.rings import SCRAPE_S, firing
from tests.unit.infra.test_alerts import ALERTS
from tests.unit.test_api import QUERY, ApiUnderTest, LocalHandle
from tests.unit.test_scheduler import SteppedEngine

PLACE = Partition("tickets", 0)
NUM_SCRAPES = 84

Scrapes = Iterator[str]
Provocation = Callable[["Scene", bool], Scrapes]


class Impatient(Event):
    """Does not wait between the repetitions of a call."""

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002 - at once
        return self.is_set()


@dataclass
class Scene:
    """An ingestor's observer on a clock of its own, and the app that shows its metrics."""

    monkeypatch: pytest.MonkeyPatch
    now_s: float = 1_000_000.0
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.tracker = OffsetTracker(clock=lambda: self.now_s)
        self.tracker.assign(PLACE)
        self.observer = IngestObserver(IngestMetrics(self.registry), wall_clock=lambda: self.now_s)
        self.reports: Callable[[], list[ReplicaReport]] = lambda: [self.report("ingestor", self.registry)]
        self._service = ApiService(
            Context(ConfigTree(tree(), "test.yaml")),
            SimpleNamespace(),  # nothing is embedded or read
            SimpleNamespace(),
            self._latest,
        )

    def report(self, process: str, registry: CollectorRegistry, *, ready: bool = True) -> ReplicaReport:
        return ReplicaReport(snapshot(process, f"{process}-1", self.now_s, registry), ready)

    def receive(self, age_s: float) -> Delivery:
        """A record that was produced so long ago is polled."""
        position = Position(PLACE.topic, PLACE.number, 0, int((self.now_s - age_s) * 1000))
        receipt = self.tracker.add(PLACE, len(self.tracker.unfinished()))
        delivery = Delivery(receipt, position, 10)
        self.observer.received([delivery])
        return delivery

    def turn(self, lag: int) -> None:
        self.observer.turned(DeliveryBuffer(1, 1), self.tracker, {PLACE: lag})

    def scrape(self) -> str:
        """Returns what `/metrics` shows, and moves the clock on to the next scrape."""
        self.now_s += SCRAPE_S
        return asyncio.run(self._service.metrics_text()).decode()

    async def _latest(self) -> list[ReplicaReport]:
        return list(self.reports())


def stuck(scene: Scene, sick: bool) -> Scrapes:  # noqa: FBT001 - a case
    delivery = scene.receive(0)
    for _ in range(NUM_SCRAPES):
        if not sick:
            scene.tracker.finish([delivery.receipt])
        scene.turn(0)
        yield scene.scrape()


def behind(scene: Scene, sick: bool) -> Scrapes:  # noqa: FBT001
    for _ in range(NUM_SCRAPES):
        scene.tracker.finish([scene.receive(3_600).receipt])
        scene.turn(7 if sick else 0)
        yield scene.scrape()


def late(scene: Scene, sick: bool) -> Scrapes:  # noqa: FBT001
    for _ in range(NUM_SCRAPES):
        age_s = 200 if sick else 2
        scene.observer.searchable("tickets", [task()], [int((scene.now_s - age_s) * 1000)] * 10)
        yield scene.scrape()


def outage(scene: Scene, sick: bool) -> Scrapes:  # noqa: FBT001
    retry = Retrier(Impatient(), scene.observer.retried)
    for number in range(NUM_SCRAPES):
        answers = iter([TransientError("away"), None] if sick or number == 20 else [None])

        def call(answers: Iterator[TransientError | None] = answers) -> None:
            if (error := next(answers)) is not None:
                raise error

        retry("store", call)
        yield scene.scrape()


def bad_input(scene: Scene, sick: bool) -> Scrapes:  # noqa: FBT001
    letter = DeadLetter(Position("tickets", 0, 0, 0), Reason.INVALID_JSON, b"k", b"{")
    for number in range(NUM_SCRAPES):
        for _ in range(4):
            scene.tracker.finish([scene.receive(0).receipt])
        if number == NUM_SCRAPES - 10:
            scene.observer.dead_lettered("tickets", [letter] * (30 if sick else 1))
        yield scene.scrape()


def slow_store(scene: Scene, sick: bool) -> Scrapes:  # noqa: FBT001
    times = iter(range(0, 10_000_000, 4 if sick else 1))
    with scene.monkeypatch.context() as patch:
        patch.setattr(context_managers, "default_timer", lambda: next(times))
        for _ in range(NUM_SCRAPES):
            with scene.observer.writing("tickets"):
                pass
            yield scene.scrape()


def stalled(scene: Scene, sick: bool) -> Scrapes:  # noqa: FBT001
    engine, registry = SteppedEngine(), CollectorRegistry()
    scheduler = EmbedScheduler("m", engine, EmbedMetrics(registry))
    scene.reports = lambda: [scene.report("embedder", registry)]
    batch = FakeTokenizer().encode(["a"], [task().prompt])
    if not sick:
        engine.go.set()
    futures = [scheduler.submit(batch, Priority.LIVE)]
    while sick and scheduler.busy_since_s is None:
        engine.stepped.wait(0.01)
    futures.append(scheduler.submit(batch, Priority.LIVE))
    for _ in range(NUM_SCRAPES):
        if not sick:
            futures[-1].result(10)
            futures.append(scheduler.submit(batch, Priority.LIVE))
            futures[-1].result(10)
        yield scene.scrape()
    engine.go.set()
    scheduler.close()


def full_disk(scene: Scene, sick: bool) -> Scrapes:  # noqa: FBT001
    registry = CollectorRegistry()
    usage = SimpleNamespace(total=1_000, free=99 if sick else 101)
    scene.monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    StoreMetrics(registry).watch(Path("/data"))
    scene.reports = lambda: [scene.report("store", registry)]
    for _ in range(NUM_SCRAPES):
        yield scene.scrape()


def no_member(scene: Scene, sick: bool) -> Scrapes:  # noqa: FBT001
    scene.monkeypatch.setattr(serve, "get_replica_context", lambda: SimpleNamespace(replica_tag="i1"))
    monitor = Monitor()
    handle: Any = LocalHandle(monitor)
    reporter = Reporter("ingestor", handle, scene.registry, lambda: (not sick, "waits for its group"))
    scene.reports = lambda: [report for _, report in monitor._reports.values()]
    for _ in range(NUM_SCRAPES):
        reporter.send()
        yield scene.scrape()
    reporter.close()


def not_ready(scene: Scene, sick: bool) -> Scrapes:  # noqa: FBT001
    embedder = CollectorRegistry()
    up: Sequence[str] = ["ingestor"] if sick else ["ingestor", "embedder"]
    scene.reports = lambda: [scene.report(process, embedder) for process in up]
    for _ in range(NUM_SCRAPES):
        yield scene.scrape()


def failing_searches(scene: Scene, sick: bool) -> Scrapes:  # noqa: FBT001
    api = ApiUnderTest(scene.monkeypatch)
    client = api.start()
    for number in range(40):
        api.store.failure = TransientError("away") if sick and number % 2 else None
        client.post("/v1/search", json=QUERY)
        api.replicas[0]._reporter.send()
        yield client.get("/metrics").text


PROVOKED: dict[str, Provocation] = {
    "RefractNotReady": not_ready,
    "RefractNoMember": no_member,
    "RefractStuck": stuck,
    "RefractBehind": behind,
    "RefractNotFresh": late,
    "RefractOutage": outage,
    "RefractDeadLetters": bad_input,
    "RefractStoreSlow": slow_store,
    "RefractEmbedderStalled": stalled,
    "RefractDiskFull": full_disk,
    "RefractSearchFails": failing_searches,
}


@pytest.mark.parametrize("sick", [True, False], ids=["trouble", "fine"])
@pytest.mark.parametrize("alert", PROVOKED)
def test_the_alert_rings_in_trouble_alone(
    alert: str,
    sick: bool,  # noqa: FBT001 - a case
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    assert firing(alert, PROVOKED[alert](Scene(monkeypatch), sick), tmp_path) is sick


def test_every_alert_on_a_metric_of_the_app_is_provoked() -> None:
    assert set(ALERTS) - set(PROVOKED) == {"RefractDown"}  # nothing is shown by an app that does not answer
