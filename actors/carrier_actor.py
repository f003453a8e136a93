"""The process of a backfill that reads, tokenises and writes; and what it is told to do."""

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ray import serve
from ray.serve.exceptions import RayServeException

from actors.app import APP_NAME
from actors.pools import DividedStore, EmbedderPool
from actors.process import start_context
from actors.remote import RemoteEmbedder, RemoteStore, call
from pipeline.backfill.carrier import Carrier
from pipeline.backfill.fragments import Fragment
from pipeline.backfill.outcome import Counts, Outcome
from pipeline.backfill.vectors import FragmentFile
from pipeline.backfill.work import Job, Work
from pipeline.config.app import Config
from pipeline.context import Context
from pipeline.errors import ConfigError, TransientError
from pipeline.interfaces import Embedder, PointWriter, Store
from pipeline.tasks import Task

APP_TIMEOUT_S = 30.0

SHARED_BATCH_RECORDS = 32
SHARED_REST = 1.0
"""An embedded store of the running app is one process, on a machine that others of the app may need as well: so many
records are embedded and written at a time, which a live write waits for, and as long as that took, nothing is."""

SHARED_NICENESS = 10
"""Processes of the app on the same machine come first."""


class CarrierActor:
    """A `pipeline.backfill.carrier.Carrier` in a process of its own; control calls have a thread beside."""

    def __init__(
        self, job: Job, embedders: Mapping[str, Sequence[Any]], owners: Sequence[tuple[Any, Sequence[str]]]
    ) -> None:
        if job.share:
            os.nice(SHARED_NICENESS)
        self._job = job
        self._embedders = embedders
        self._owners = owners
        self._opening = threading.Lock()
        self._store: PointWriter | None = None
        self._made: Carrier | None = None

    def ready(self) -> None:
        """Answers once the process is up."""

    def carry(self, work: Work) -> Outcome:
        """See Carrier."""
        # Opened here, not when the actor starts: here an error arrives as what it is.
        with self._opening:
            self._made = self._made or self._open()
        return self._made.carry(work.fragment, work.tasks, work.start)

    def checkpoints(self) -> dict[str, Outcome]:
        """See Carrier. A Parquet file is whole or not there, so it has none."""
        return self._made.checkpoints() if self._made is not None and self._job.output is None else {}

    def counts(self) -> Counts:
        """See Carrier."""
        return self._made.counts() if self._made is not None else Counts()

    def _open(self) -> Carrier:
        context = start_context(self._job.source)
        config, rest = context.config, 0.0
        if self._job.share and config.store.type == "edge":
            config, rest = _in_small_steps(config), SHARED_REST
        tasks = {name: context.tasks[name] for name in self._job.tasks}
        if self._job.output is None:
            self._store = self._open_own_store(context, tasks)
        embedder: Embedder = EmbedderPool(self._embedders)
        if self._job.share:
            handles = _app_embedders({task.config.model for task in tasks.values()})
            _check_app(handles, tasks)
            embedder = RemoteEmbedder(handles)
        tokenizers = context.tokenizers({task.config.model for task in tasks.values()})
        return Carrier(
            config,
            self._job.topic,
            tasks,
            tokenizers=tokenizers,
            embedder=embedder,
            open_store=self._open_store,
            growing=not self._job.share,
            rest=rest,
        )

    def _open_own_store(self, context: Context, tasks: Mapping[str, Task]) -> PointWriter:
        config = context.config
        if config.store.type != "edge":
            store: Store | RemoteStore | DividedStore = context.open_store()
        elif self._job.share:
            store = RemoteStore(serve.get_deployment_handle("StoreOwner", APP_NAME))
        else:
            store = DividedStore([(owner, [tasks[name].collection for name in names]) for owner, names in self._owners])
        store.open(list(tasks.values()))
        return store

    def _open_store(self, fragment: Fragment, tasks: Sequence[Task]) -> PointWriter:
        if self._job.output is not None:
            return FragmentFile(self._job.output, fragment, tasks)
        assert self._store is not None  # noqa: S101 - opened before anything is carried
        return self._store


def _in_small_steps(config: Config) -> Config:
    """Returns the configuration with one small batch at a time."""
    few = min(config.limits.max_batch_records, SHARED_BATCH_RECORDS)
    limits = config.limits.model_copy(update={"max_batch_records": few, "max_concurrent_batches": 1})
    return config.model_copy(update={"limits": limits})


def _app_embedders(models: Iterable[str]) -> dict[str, Any]:
    try:
        return {name: serve.get_deployment_handle(f"Embedder-{name}", APP_NAME) for name in models}
    except RayServeException:
        raise ConfigError("--share: no app of Refract runs on this cluster; start it, or leave --share out") from None


def _check_app(handles: Mapping[str, Any], tasks: Mapping[str, Task]) -> None:
    """Raises ConfigError where the app would embed otherwise than this configuration says."""
    theirs: dict[str, str] = {}
    for name, handle in handles.items():
        try:
            theirs |= call(f"embedder {name}", APP_TIMEOUT_S, handle.fingerprints.remote)
        except TransientError as error:
            raise ConfigError(
                f"--share: this cluster runs no app of Refract with a model {name!r} ({error}); start it with this "
                "configuration first, or leave --share out"
            ) from None
    for task in tasks.values():
        if theirs.get(task.name) != task.fingerprint:
            raise ConfigError(
                f"--share: the running app has another task {task.name!r} ({theirs.get(task.name, 'none')[:10]}, here "
                f"{task.fingerprint[:10]}); restart it with this configuration, or leave --share out"
            )
