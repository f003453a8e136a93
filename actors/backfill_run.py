"""Runs a backfill on Ray: carriers that read and write, a pool of embedders, and the owners of an embedded store.

Plain actors with a bounded number of fragments in flight, not Ray Data: its executor fuses and splits blocks as it
sees fit and tells nobody which input row group is durable, and that is what resuming needs.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.carrier_actor import CarrierActor
from actors.cluster import root_cause
from actors.embedder import start_scheduler
from actors.process import start_context
from actors.store_owner import StoreOwner
from pipeline.backfill.carrier import UnflushedError
from pipeline.backfill.outcome import Counts, Outcome
from pipeline.backfill.rows import FragmentFault
from pipeline.backfill.work import Job, Work
from pipeline.config.app import Config
from pipeline.config.load import ConfigTree
from pipeline.errors import RefractError
from pipeline.metrics import snapshot, total
from pipeline.records.batches import Embeddings, Priority, TokenBatch

FRAGMENTS_PER_CARRIER = 2
"""One is written while the next is read."""

MAX_ATTEMPTS = 3
CHECKPOINT_S = 10.0
"""How much of a large fragment a killed run repeats, at most, beside what was in flight."""

TURN_S = 1.0
ANSWER_S = 0.2
"""An actor that is starting, or busy beyond this, is left out of one line of progress."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How a run stands."""

    counts: Counts
    """Of everything so far, what is under way included."""
    busy_s: float
    """Seconds that embedders spent computing, all together."""
    num_embedders: int
    """Those that are ready."""


class _Embedder:
    """One replica of a model, for this job alone."""

    def __init__(self, source: ConfigTree, name: str) -> None:
        self._context = start_context(source)
        self._scheduler = start_scheduler(self._context, name, shared=False)

    async def ready(self) -> None:
        """Answers once the model is loaded."""

    async def embed(self, batch: TokenBatch, priority: Priority) -> Embeddings:
        """See pipeline.interfaces.Embedder."""
        return await asyncio.wrap_future(self._scheduler.submit(batch, priority))

    async def busy_s(self) -> float:
        """Returns the seconds spent computing."""
        taken = snapshot("embedder", "", 0.0, self._context.registry)
        return total([taken], "refract_embedder_busy_seconds_total")


class BackfillRun:
    """Carries work through on a cluster that is joined already. One thread."""

    def __init__(
        self,
        job: Job,
        on_noted: Callable[[Work, Outcome, bool], None],
        on_failed: Callable[[Work, str], None],
        on_progress: Callable[[Progress], None],
    ) -> None:
        """Starts the actors.

        Args:
            job: What to do.
            on_noted: Hears of rows that are durable now, and whether the fragment is done.
            on_failed: Hears of a fragment that cannot be finished, and why.
            on_progress: Hears about once a second how things stand.
        """
        self._job = job
        self._on_noted = on_noted
        self._on_failed = on_failed
        self._on_progress = on_progress
        self._config = job.source.load()
        self._embedders = {} if job.share else _start_embedders(job)
        self._owners = _start_owners(job, self._config)
        self._starting = {
            actor.ready.remote(): (name, actor) for name, actors in self._embedders.items() for actor in actors
        }
        for owner, names in self._owners:
            self._starting[owner.check.remote()] = (f"the store's owner of {', '.join(names)}", None)
        self._ready: list[Any] = []
        self._carriers: list[Any] = []
        self._joining: dict[Any, int] = {}
        self._failed_starts = 0
        self._checkpointing: list[Any] = []
        self._checkpoints: dict[str, Outcome] = {}
        self._carried: dict[str, Counts] = {}
        self._finished = Counts()

    def run(self, works: Sequence[Work]) -> None:
        """Carries everything through.

        Raises RefractError where something other than a fragment is at fault; what is noted by then is durable.
        """
        self._carriers = [None] * min(num_carriers(self._config), len(works))
        for number in range(len(self._carriers)):
            self._start_carrier(number)
        waiting = [(work, 1) for work in works][::-1]
        under_way: dict[Any, tuple[Work, int, int]] = {}
        noted_s = turned_s = time.monotonic()
        while waiting or under_way:
            for number, carrier in self._joined():
                busy = sum(place == number for _, _, place in under_way.values())
                for _ in range(min(FRAGMENTS_PER_CARRIER - busy, len(waiting))):
                    work, attempt = waiting.pop()
                    under_way[carrier.carry.remote(work)] = (work, attempt, number)
            finished, _ = ray.wait(list(under_way) or list(self._joining), timeout=TURN_S)
            self._check_started()
            for ref in finished:
                if ref in under_way:
                    self._settle(ref, under_way, waiting)
            self._note_checkpoints([work for work, _, _ in under_way.values()])
            if time.monotonic() - noted_s >= CHECKPOINT_S:
                noted_s = time.monotonic()
                self._checkpointing += [carrier.checkpoints.remote() for _, carrier in self._joined()]
            if time.monotonic() - turned_s >= TURN_S:
                turned_s = time.monotonic()
                self._report()
        self._report()

    def _check_started(self) -> None:
        """Raises RefractError for an actor that cannot start: others would wait for it for ever."""
        for ref in _done(list(self._starting)):
            name, embedder = self._starting.pop(ref)
            try:
                ray.get(ref)
                self._ready += [embedder] if embedder is not None else []
            except ActorDiedError as error:
                if "creation task" in str(error):
                    raise RefractError(f"{name} could not start: {root_cause(str(error))}") from None
            except RayError:
                continue  # killed or away: it is started again

    def _settle(self, ref: Any, under_way: dict[Any, tuple[Work, int, int]], waiting: list[tuple[Work, int]]) -> None:
        work, attempt, number = under_way.pop(ref)
        try:
            outcome: Outcome = ray.get(ref)
        except RayTaskError as error:
            if not isinstance(error.cause, RefractError):
                raise
            if isinstance(error.cause, UnflushedError):
                self._again(work, attempt, str(error.cause), waiting)
            elif isinstance(error.cause, FragmentFault):
                self._on_failed(work, str(error.cause))
            else:
                raise error.cause from None
        except RayActorError as error:
            # What else was with this carrier is lost with it; all of it goes to a new one.
            lost = [(ref, entry) for ref, entry in under_way.items() if entry[2] == number]
            for other, _ in lost:
                del under_way[other]
            self._start_carrier(number)
            for again, tried in [(work, attempt), *((entry[0], entry[1]) for _, entry in lost)]:
                self._again(again, tried, f"its process died ({type(error).__name__})", waiting)
        else:
            outcome.counts.add(self._carried.pop(work.fragment.name, Counts()))
            self._checkpoints.pop(work.fragment.name, None)
            self._finished.add(outcome.counts)
            self._on_noted(work, outcome, True)

    def _again(self, work: Work, attempt: int, why: str, waiting: list[tuple[Work, int]]) -> None:
        if attempt == MAX_ATTEMPTS:
            self._on_failed(work, f"{why}, {MAX_ATTEMPTS} times")
        else:
            waiting.append((self._rest_of(work), attempt + 1))

    def _rest_of(self, work: Work) -> Work:
        """Returns what no checkpoint says is durable."""
        reached = self._checkpoints.pop(work.fragment.name, None)
        if reached is None:
            return work
        self._carried.setdefault(work.fragment.name, Counts()).add(reached.counts)
        return replace(work, start=reached.next_row)

    def _note_checkpoints(self, works: Sequence[Work]) -> None:
        by_name = {work.fragment.name: work for work in works}
        arrived = _done(self._checkpointing)
        self._checkpointing = [ref for ref in self._checkpointing if ref not in arrived]
        for found in _answers(arrived):
            for name, outcome in found.items():
                if name in by_name and outcome.next_row > by_name[name].start:
                    self._checkpoints[name] = outcome
                    self._on_noted(by_name[name], outcome, False)

    def _report(self) -> None:
        counts = Counts()
        counts.add(self._finished)
        for under_way in _answers([carrier.counts.remote() for _, carrier in self._joined()]):
            counts.add(under_way)
        busy_s = _answers([actor.busy_s.remote() for actor in self._ready])
        self._on_progress(Progress(counts, sum(busy_s), len(busy_s)))

    def _joined(self) -> list[tuple[int, Any]]:
        """Returns the carriers that are up, by number; one that died before it was is started again."""
        for ref in _done(list(self._joining)):
            number = self._joining.pop(ref)
            try:
                ray.get(ref)
                self._failed_starts = 0
            except RayActorError as error:
                self._failed_starts += 1
                if self._failed_starts == MAX_ATTEMPTS:
                    raise RefractError(f"a carrier could not start: {root_cause(str(error))}") from None
                self._start_carrier(number)
        absent = set(self._joining.values())
        return [(number, carrier) for number, carrier in enumerate(self._carriers) if number not in absent]

    def _start_carrier(self, number: int) -> None:
        """Starts carrier `number`, anew if need be. It gets work once it is up: the cluster may have no room for it.

        The first needs none, so that there is always one; the embedders, which come before, could take all.
        """
        num_cpus = self._config.ray.ingestor_cpus if number else 0
        started: Any = ray.remote(CarrierActor)
        carrier = started.options(
            num_cpus=num_cpus, max_concurrency=FRAGMENTS_PER_CARRIER + 2, scheduling_strategy="SPREAD"
        ).remote(self._job, self._embedders, self._owners)
        self._carriers[number] = carrier
        self._joining[carrier.ready.remote()] = number


def num_carriers(config: Config) -> int:
    """Returns how many processes read and write: one per embedder, and `ray.ingestors` at least."""
    return max(config.ray.ingestors, *(_replicas(config, name) for name in config.models))


def needed_resources(job: Job) -> dict[str, float]:
    """Returns the CPUs and GPUs without which nothing moves: those of one embedder of each model."""
    config = job.source.load()
    models = [] if job.share else [config.models[name] for name in {config.tasks[task].model for task in job.tasks}]
    return {
        "CPU": sum(model.num_cpus for model in models),
        "GPU": sum(model.num_gpus for model in models),
    }


def _replicas(config: Config, name: str) -> int:
    model = config.models[name]
    return max(model.max_replicas or model.replicas, 1)


def _start_embedders(job: Job) -> dict[str, list[Any]]:
    """One actor per replica, `max_replicas` of them: what the cluster has no room for joins when it has."""
    config = job.source.load()
    return {
        name: [
            ray.remote(_Embedder)
            .options(
                num_cpus=config.models[name].num_cpus,
                num_gpus=config.models[name].num_gpus,
                max_restarts=-1,
                max_concurrency=1_000,
            )
            .remote(job.source, name)
            for _ in range(_replicas(config, name))
        ]
        for name in {config.tasks[task].model for task in job.tasks}
    }


def _start_owners(job: Job, config: Config) -> list[tuple[Any, list[str]]]:
    """The processes that share an embedded store's directory, which lies on this node, and whose tasks each has.

    Edge keeps to one processor in a process, so there is one for each task, as far as processors go round.
    """
    if config.store.type != "edge" or job.output is not None or job.share:
        return []
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    started: Any = ray.remote(StoreOwner).options(
        num_cpus=0, max_restarts=-1, max_concurrency=1_000, scheduling_strategy=here
    )
    number = min(len(job.tasks), os.cpu_count() or 1)
    return [(started.remote(job.source, shared=True), list(job.tasks[first::number])) for first in range(number)]


def _done(refs: Sequence[Any], timeout_s: float = 0) -> list[Any]:
    """Returns those of some calls that have ended, one way or the other, within the time."""
    return list(ray.wait(list(refs), num_returns=len(refs), timeout=timeout_s)[0]) if refs else []


def _answers(refs: Sequence[Any]) -> list[Any]:
    """Returns the answers that come soon, of actors that live."""
    found = []
    for ref in _done(refs, ANSWER_S):
        try:
            found.append(ray.get(ref))
        except RayError:
            continue  # it died; its work is noticed elsewhere
    return found
