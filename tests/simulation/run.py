"""One simulated run: real workers on a fake world, faults from a seed, then healing and judgement."""

import random as global_random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from unittest.mock import patch

from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from pipeline.config.pipeline import LimitsConfig
from pipeline.config.source import SourceConfig
from pipeline.interfaces import Source
from pipeline.live.buffer import DELIVERY_BYTES
from pipeline.live.durability import Durability
from pipeline.live.observer import IngestObserver
from pipeline.live.offsets import OffsetTracker
from pipeline.live.refractor import Refractor
from pipeline.live.retry import Retrier
from pipeline.live.routes import Ports, Routes
from pipeline.live.witness import confirm
from pipeline.live.worker import Loop, StreamWorker
from pipeline.metrics import IngestMetrics
from pipeline.records.decode import Decoders
from pipeline.records.record import PointIds
from pipeline.sources.group.kafka_source import KafkaSource
from pipeline.sources.group.member import GroupMember
from tests.fakes import FakeTokenizer, task
from tests.simulation.broker import TOPIC, Broker, SimConsumer
from tests.simulation.chaos import Chaos
from tests.simulation.journal import PIPELINE, Journal, Oracle
from tests.simulation.scheduler import Process, ProcessDiedError, Scheduler, SimCondition, SimEvent, SimThread
from tests.simulation.services import SimDeadLetters, SimEmbedder, SimStore

HEAL_S = 120.0
"""Longest virtual time from the last fault until everything is committed."""

LINGER_S = 10.0
"""Longer than the latest repeated request."""

MAX_MEMBERS = 3
TASKS = [task("urgency"), task("issue")]
METRICS = IngestMetrics(CollectorRegistry())
CONFIGS = {
    versioned: SourceConfig.model_validate(
        {
            "bootstrap_servers": ["b:1"],
            "group_id": "g",
            "topics": {
                TOPIC: {
                    "key": "id",
                    "text": "{text}",
                    "tasks": ["urgency", "issue"],
                    **({"version": "v", "version_type": "integer"} if versioned else {}),
                }
            },
            "dead_letter_topic": "dead",
        }
    )
    for versioned in (False, True)
}


@dataclass
class Outcome:
    """What came of a run."""

    seed: int
    violations: list[str]
    trace: list[tuple[float, str]]


class World:
    """Everything outside the ingestors, and the ingestors."""

    def __init__(self, seed: int, store: type[SimStore]) -> None:
        self.random = Random(seed)
        self.scheduler = Scheduler(self.random)
        self.chaos = Chaos(self.scheduler)
        num_partitions = self.random.randint(1, 3)
        self.journal = Journal(self.random, num_partitions)
        self.store = store(self.scheduler, self.chaos, self.journal.refused)
        self.letters = SimDeadLetters(self.chaos)
        collections = {task.name: task.collection for task in TASKS}
        self.oracle = Oracle(self.journal, self.store, self.letters, collections)
        self.broker = Broker(self.chaos, num_partitions, self.oracle.judge_commit)
        self.members: list[Member] = []

    def start_member(self) -> None:
        self.members.append(Member(self, f"member-{len(self.members)}"))
        self.members[-1].thread.start()

    def living(self) -> list["Member"]:
        return [member for member in self.members if member.process.alive and not member.thread.finished]

    def until(self, condition: Callable[[], bool], limit_s: float) -> bool:
        deadline_s = self.scheduler.now + limit_s
        while not condition():
            if self.scheduler.now > deadline_s:
                return False
            self.scheduler.sleep(0.5)
        return True


class Member:
    """One ingestor: the product's worker, source, refractor, retrier and tracker, on the world's threads."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self.process = Process(name)
        self.error: BaseException | None = None
        self.thread = SimThread(world.scheduler, self.process, self._run, "loop")
        self._stop = SimEvent(world.scheduler)
        self._tracker = OffsetTracker(world.scheduler.clock)
        random = world.random
        self._limits = LimitsConfig(
            max_batch_records=random.choice([1, 3, 8, 512]), max_concurrent_batches=random.randint(1, 3)
        )
        self._embedder = SimEmbedder(world.chaos)
        self._embedder.nan_texts = world.journal.poison
        self._embedder.deadly_texts = world.journal.deadly
        observer = IngestObserver(METRICS, world.scheduler.clock)
        retry = Retrier(self._stop, lambda _: None)
        ports = Ports(self._embedder, world.store, world.letters, retry, observer)
        routes = Routes(PointIds(PIPELINE, {TOPIC: TOPIC}), {TOPIC: TASKS}, {"m": FakeTokenizer()})
        self._confirm = partial(confirm, world.store, {TOPIC: TASKS}, "group")
        durability = Durability(world.store, TASKS, self._tracker, self._confirm)
        refractor = Refractor(routes, ports, self._tracker)
        loop = Loop(self._limits, random.choice([0.2, 1.0]), self._stop, world.scheduler.clock)
        self.worker = StreamWorker(self._open_source, refractor, durability, observer, loop)
        if random.random() < 0.3:
            self.worker._buffer._max_bytes = 4 * DELIVERY_BYTES  # a few records: the source is paused often

    def _open_source(self) -> Source:
        world = self._world
        config = CONFIGS[world.journal.versioned]
        return KafkaSource(
            GroupMember(config, make_consumer=lambda **_: SimConsumer(world.broker, self.process.name)),
            Decoders(config, self._limits),
            self._tracker,
            confirm=self._confirm,
            clock=world.scheduler.clock,
        )

    def _run(self) -> None:
        try:
            self.worker.run()
        except ProcessDiedError:
            raise
        except BaseException as error:  # noqa: BLE001 - a worker that ends by itself is a violation, told with its cause
            self.error = error


def simulate(seed: int, store: type[SimStore] = SimStore) -> Outcome:
    """Runs one seed from start to judgement."""
    global_random.seed(seed)  # tenacity's jitter
    world = World(seed, store)
    with (
        patch("pipeline.live.worker.Thread", world.scheduler.spawn),
        patch("pipeline.live.buffer.Condition", lambda: SimCondition(world.scheduler)),
        patch("pipeline.live.crashes.Condition", lambda: SimCondition(world.scheduler)),
        capture_logs(),
    ):
        try:
            _make_trouble(world)
            _heal(world)
        finally:
            for member in world.members:
                member.process.alive = False
            while world.scheduler.num_threads > 1:
                world.scheduler.sleep(LINGER_S)
    world.oracle.judge_end()
    return Outcome(seed, world.oracle.violations, world.chaos.trace)


def _make_trouble(world: World) -> None:
    for _ in range(world.random.randint(1, 2)):
        world.start_member()
    for _ in range(world.random.randint(3, 14)):
        for _ in range(world.random.randint(0, 5)):
            world.broker.append(world.journal.produce())
        world.scheduler.pause(1.5)
        _one_fault(world)


def _one_fault(world: World) -> None:
    fault = world.random.choice(["none", "crash", "freeze", "expire", "rebalance", "join", "stop", "outage"])
    living = world.living()
    member = world.random.choice(living) if living else None
    if fault == "outage":
        component = world.random.choice(["kafka", "store", "embedder", "dead letters"])
        world.chaos.down_until_s[component] = world.scheduler.now + world.random.random() * 5
        world.chaos.note(f"{component} is away")
    elif fault == "rebalance":
        world.broker.rebalance()
    elif fault == "join" or member is None:
        if len(living) < MAX_MEMBERS:
            world.start_member()
    elif fault == "crash":
        member.process.alive = False
        world.chaos.note(f"{member.process.name} is killed")
    elif fault == "freeze":
        member.process.frozen_until_s = world.scheduler.now + world.random.random() * 12
        world.chaos.note(f"{member.process.name} is frozen until {member.process.frozen_until_s:.1f}")
    elif fault == "expire":
        for consumer in [found for found in world.broker.members if found.name == member.process.name]:
            world.broker.drop(consumer)
            world.chaos.note(f"{consumer.name} is thrown out")
    elif fault == "stop":
        member.worker.stop()
        world.chaos.note(f"{member.process.name} is asked to stop")


def _heal(world: World) -> None:
    world.chaos.active = False
    world.chaos.note("no more faults")
    if not world.living():
        world.start_member()

    def done() -> bool:
        if not world.living():
            world.start_member()
        return world.broker.drained() or any(member.error for member in world.members)

    if not world.until(done, HEAL_S):
        world.oracle.violations.append(f"no progress within {HEAL_S:.0f} s of healing")
    for member in world.living():
        member.worker.stop()
    if not world.until(lambda: not world.living(), HEAL_S):
        world.oracle.violations.append("a worker does not stop")
    for member in world.members:
        if member.error is not None:
            world.oracle.violations.append(f"{member.process.name} ended with {member.error!r}")
