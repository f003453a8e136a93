"""Runs a backfill on Ray: carriers that read and write, a pool of embedders, and the owners of an embedded store.

Plain actors with a bounded number of fragments in flight, not Ray Data: its executor fuses and splits blocks as it
sees fit and tells nobody which input row group is durable, and that is what resuming needs.
"""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.backfill_embedder import BackfillEmbedder
from actors.carrier_actor import CarrierActor
from actors.cluster import cluster
from actors.store_owner import StoreOwner
from pipeline.backfill.dispatch import WORKS_PER_CARRIER, Dispatch
from pipeline.backfill.executor import CHECKPOINT_S, TURN_S, BackfillEvents, Interval, RunState
from pipeline.backfill.work import BackfillJob, Work
from pipeline.config.pipeline import Config
from pipeline.errors import ConfigError, RefractError

ANSWER_S = 0.2
"""An actor that is starting, or busy beyond this, is left out of one report."""


class RayExecutor:
    """Implements `pipeline.backfill.executor.BackfillExecutor` on the cluster at an address, or on one of its own."""

    def __init__(self, address: str | None) -> None:
        """Takes the address to join; None starts a cluster on this machine for each run, and ends it."""
        self._address = address

    def check(self, job: BackfillJob) -> None:
        """See BackfillExecutor."""
        if job.share and not self._address:
            raise ConfigError(
                "--share needs the running app's cluster: --address HOST:PORT, or auto on a machine of it"
            )

    def run(self, job: BackfillJob, works: Sequence[Work], events: BackfillEvents) -> None:
        """See BackfillExecutor."""
        events.doing("joining Ray" if self._address else "starting Ray")
        with cluster(self._address, job.source.load().ray.namespace, needed_resources(job)):
            events.doing("starting the actors and loading the models")
            BackfillRun(job).run(works, events)


class _Starting(NamedTuple):
    """An actor that others would wait for, if it could not start, for ever."""

    what: str
    embedder: Any = None
    """It takes part once it is up; None for a store's owner."""


class _Call(NamedTuple):
    """A work that a carrier has."""

    number: int
    work: Work


class BackfillRun:
    """The actors of a job, on a cluster that is joined already. One thread.

    What to do next is decided by `Dispatch`; here its decisions become calls, and Ray's answers become events.
    """

    def __init__(self, job: BackfillJob) -> None:
        """Starts the embedders and the store's owners."""
        self._job = job
        self._config = job.source.load()
        self._embedders = {} if job.share else _start_embedders(job)
        self._owners = _start_owners(job, self._config)
        self._starting = {
            actor.ready.remote(): _Starting(name, actor) for name, some in self._embedders.items() for actor in some
        }
        for owner, names in self._owners:
            self._starting[owner.check.remote()] = _Starting(f"the store's owner of {', '.join(names)}")
        self._ready: list[Any] = []
        self._carriers: dict[int, Any] = {}
        self._joining: dict[Any, int] = {}
        self._calls: dict[Any, _Call] = {}

    def run(self, works: Sequence[Work], events: BackfillEvents) -> None:
        """Carries everything through.

        Raises RefractError where something other than a fragment is at fault; what is noted by then is durable.
        """
        dispatch = Dispatch(works, num_carriers(self._config), events)
        for number in range(dispatch.num_carriers):
            self._start_carrier(number)
        asked: list[Any] = []
        checkpoint, turn = Interval(CHECKPOINT_S), Interval(TURN_S)
        while not dispatch.is_over:
            self._meet(dispatch)
            for number, work in dispatch.hand_out():
                self._calls[self._carriers[number].carry.remote(work)] = _Call(number, work)
            ended, _ = ray.wait(list(self._calls) or list(self._joining), timeout=TURN_S)
            self._check_started()
            for ref in ended:
                if ref in self._calls:
                    self._settle(ref, dispatch)
            answered = _done(asked)
            asked = [ref for ref in asked if ref not in answered]
            for found in _answers(answered):
                dispatch.reached(found)
            if checkpoint.is_due():
                asked += [carrier.checkpoints.remote() for carrier in self._up()]
            if turn.is_due():
                events.progress(self._state(dispatch))
        events.progress(self._state(dispatch))

    def _check_started(self) -> None:
        """Raises RefractError for an actor that cannot start; one that was killed or is away is started by Ray."""
        for ref in _done(list(self._starting)):
            actor = self._starting.pop(ref)
            try:
                ray.get(ref)
            except RayActorError as error:
                if error.actor_init_failed:
                    raise RefractError(f"{actor.what} could not start: {_why(error)}") from None
            except RayError:
                continue
            else:
                self._ready += [] if actor.embedder is None else [actor.embedder]

    def _meet(self, dispatch: Dispatch) -> None:
        """Notes carriers that are up now; one that died before is started again."""
        for ref in _done(list(self._joining)):
            number = self._joining.pop(ref)
            try:
                ray.get(ref)
            except RayActorError as error:
                dispatch.carrier_not_started(_why(error))
                self._start_carrier(number)
            else:
                dispatch.carrier_up(number)

    def _settle(self, ref: Any, dispatch: Dispatch) -> None:
        number, work = self._calls.pop(ref)
        try:
            outcome = ray.get(ref)
        except RayTaskError as error:
            if not isinstance(error.cause, RefractError):
                raise
            dispatch.returned(work, error.cause)
        except RayActorError as error:
            self._calls = {other: call for other, call in self._calls.items() if call.number != number}
            dispatch.carrier_lost(number, f"its process died ({type(error).__name__})")
            self._start_carrier(number)
        else:
            dispatch.finished(work, outcome)

    def _state(self, dispatch: Dispatch) -> RunState:
        counts = dispatch.counts(_answers([carrier.counts.remote() for carrier in self._up()]))
        busy_s = _answers([actor.busy_s.remote() for actor in self._ready])
        return RunState(counts, sum(busy_s), len(busy_s))

    def _up(self) -> list[Any]:
        absent = set(self._joining.values())
        return [carrier for number, carrier in self._carriers.items() if number not in absent]

    def _start_carrier(self, number: int) -> None:
        """Starts carrier `number`, again if need be. It gets work once it is up: the cluster may have no room for it.

        The first needs no CPUs, so that there is always one; the embedders, which come before, could take all.
        """
        if number in self._carriers:
            # It may live and be out of reach for the moment: two of them must not carry the same works.
            ray.kill(self._carriers[number], no_restart=True)
        num_cpus = self._config.ray.ingestor_cpus if number else 0
        started: Any = ray.remote(CarrierActor)
        carrier = started.options(
            num_cpus=num_cpus, max_concurrency=WORKS_PER_CARRIER + 2, scheduling_strategy="SPREAD"
        ).remote(self._job, self._embedders, self._owners)
        self._carriers[number] = carrier
        self._joining[carrier.ready.remote()] = number


def num_carriers(config: Config) -> int:
    """Returns how many processes read and write: one per embedder, and `ray.ingestors` at least."""
    return max(config.ray.ingestors, *(_replicas(config, name) for name in config.models))


def needed_resources(job: BackfillJob) -> dict[str, float]:
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


def _start_embedders(job: BackfillJob) -> dict[str, list[Any]]:
    """One actor per replica, `max_replicas` of them: what the cluster has no room for joins when it has."""
    config = job.source.load()
    return {
        name: [
            ray.remote(BackfillEmbedder)
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


def _start_owners(job: BackfillJob, config: Config) -> list[tuple[Any, list[str]]]:
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


def _why(error: RayActorError) -> str:
    """Returns what an actor's constructor raised, where it did."""
    failure = error.args[0] if error.actor_init_failed and error.args else None
    if isinstance(failure, RayTaskError):
        return f"{type(failure.cause).__name__}: {failure.cause}"
    return str(error).strip()


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
