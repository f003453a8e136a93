"""The process of a backfill that reads, tokenises and writes."""

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from ray import serve
from ray.serve.exceptions import RayServeException

from actors.app import APP_NAME
from actors.callers import ActorCaller, DeploymentCaller, call
from actors.pools import EmbedderPool
from actors.process import start_context
from actors.remote import DividedStore, RemoteEmbedder, RemoteStore
from pipeline.backfill.carrier import Carrier, Manner, Tools
from pipeline.backfill.outcome import Counts, Outcome
from pipeline.backfill.sharing import check_same_tasks, considerate
from pipeline.backfill.vectors import FragmentFile
from pipeline.backfill.work import BackfillJob, Work
from pipeline.binding import Task
from pipeline.context import Context
from pipeline.errors import ConfigError, TransientError
from pipeline.interfaces import Embedder, PointWriter, Store

APP_TIMEOUT_S = 30.0

SHARED_NICENESS = 10
"""Processes of the app on the same machine come first."""


class CarrierActor:
    """A `pipeline.backfill.carrier.Carrier` in a process of its own; control calls have a thread beside."""

    def __init__(
        self, job: BackfillJob, embedders: Mapping[str, Sequence[Any]], owners: Sequence[tuple[Any, Sequence[str]]]
    ) -> None:
        if job.share:
            os.nice(SHARED_NICENESS)
        self._job = job
        self._embedders = embedders
        self._owners = owners
        self._opening = threading.Lock()
        self._made: Carrier | None = None

    def ready(self) -> None:
        """Answers once the process is up."""

    def carry(self, work: Work) -> Outcome:
        """See Carrier."""
        # Opened here, not when the actor starts: here an error arrives as what it is.
        with self._opening:
            self._made = self._made or self._open()
        return self._made.carry(work)

    def checkpoints(self) -> dict[str, Outcome]:
        """See Carrier."""
        return self._made.checkpoints() if self._made is not None else {}

    def counts(self) -> Counts:
        """See Carrier."""
        return self._made.counts() if self._made is not None else Counts()

    def _open(self) -> Carrier:
        job, context = self._job, start_context(self._job.source)
        config, manner = considerate(context.config) if job.share else (context.config, Manner(growing=True))
        tasks = {name: context.tasks[name] for name in job.tasks}
        models = {task.config.model for task in tasks.values()}
        embedder: Embedder = _app_embedder(models, tasks) if job.share else EmbedderPool(self._embedders)
        if job.output is None:
            store = self._open_store(context, tasks)
            tools = Tools(context.tokenizers(models), embedder, lambda _fragment, _tasks: store)
        else:
            manner = Manner(manner.growing, manner.rest, whole=True)
            tools = Tools(context.tokenizers(models), embedder, partial(FragmentFile, job.output))
        return Carrier(config, job.topic, tasks, tools, manner)

    def _open_store(self, context: Context, tasks: Mapping[str, Task]) -> PointWriter:
        if context.config.store.type != "edge":
            store: Store | RemoteStore | DividedStore = context.open_store()
        elif self._job.share:
            store = RemoteStore(DeploymentCaller(serve.get_deployment_handle("StoreOwner", APP_NAME)))
        else:
            store = DividedStore(
                [(ActorCaller(owner), [tasks[name].collection for name in names]) for owner, names in self._owners]
            )
        store.open(list(tasks.values()))
        return store


def _app_embedder(models: Iterable[str], tasks: Mapping[str, Task]) -> RemoteEmbedder:
    """Returns the running app's embedders. Raises ConfigError where it would embed otherwise."""
    handles: dict[str, Any] = {}
    fingerprints: dict[str, str] = {}
    try:
        for name in models:
            handles[name] = serve.get_deployment_handle(f"Embedder-{name}", APP_NAME)
    except RayServeException:
        raise ConfigError("--share: no app of Refract runs on this cluster; start it, or leave --share out") from None
    for name, handle in handles.items():
        try:
            fingerprints |= call(
                f"embedder {name}", APP_TIMEOUT_S, partial(DeploymentCaller(handle).ask, "fingerprints")
            )
        except TransientError as error:
            raise ConfigError(
                f"--share: this cluster runs no app of Refract with a model {name!r} ({error}); start it with this "
                "configuration first, or leave --share out"
            ) from None
    check_same_tasks(fingerprints, tasks.values())
    return RemoteEmbedder(handles)
