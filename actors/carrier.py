"""The process of a backfill that reads, tokenises and writes; and what it is told to do."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import serve

from actors.app import APP_NAME
from actors.context import ConfigTree, Context
from actors.plain import EmbedderPool, PlainHandle
from actors.remote import RemoteEmbedder, RemoteStore
from pipeline.backfill.carrier import Carrier
from pipeline.backfill.fragments import Fragment
from pipeline.backfill.outcome import Counts, Outcome
from pipeline.backfill.sharing import SHARED_BATCH_RECORDS, PoliteEmbedder
from pipeline.backfill.vectors import FragmentFile
from pipeline.config.app import Config
from pipeline.engine.load import load_tokenizer
from pipeline.interfaces import Embedder, Store
from pipeline.stores.open import open_store
from pipeline.tasks import Task


@dataclass(frozen=True, slots=True)
class Job:
    """What a backfill does with every fragment."""

    source: ConfigTree
    topic: str
    tasks: Sequence[str]
    output: Path | None
    """Folder of Parquet files; absent: the store."""
    share: bool
    """Whether embedders and embedded store are those of the running app."""


@dataclass(frozen=True, slots=True)
class Work:
    """A fragment, the tasks it is not finished for, and the first row that is left."""

    fragment: Fragment
    tasks: Sequence[str]
    start: int


class CarrierActor:
    """A `pipeline.backfill.carrier.Carrier` in a process of its own; control calls have a thread beside."""

    def __init__(self, job: Job, embedders: Mapping[str, Sequence[Any]], owner: Any) -> None:
        self._job = job
        self._embedders = embedders
        self._owner = owner
        self._opening = threading.Lock()
        self._store: Store | None = None
        self._made: Carrier | None = None

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
        context = Context(self._job.source)
        config = _shared(context.config) if self._job.share else context.config
        tasks = {name: context.tasks[name] for name in self._job.tasks}
        if self._job.output is None:
            self._store = _carrier_store(context, self._job, self._owner, list(tasks.values()))
        embedder: Embedder = EmbedderPool(self._embedders)
        if self._job.share:
            replicas = {name: max(model.replicas, 1) for name, model in config.models.items()}
            embedder = PoliteEmbedder(RemoteEmbedder(_app_embedders(config)), replicas)
        tokenizers = {
            model: load_tokenizer(
                config.models[model], {name: task for name, task in config.tasks.items() if task.model == model}
            )
            for model in {task.config.model for task in tasks.values()}
        }
        return Carrier(
            config, self._job.topic, tasks, tokenizers=tokenizers, embedder=embedder, open_store=self._open_store
        )

    def _open_store(self, fragment: Fragment, tasks: Sequence[Task]) -> Store:
        if self._job.output is not None:
            return FragmentFile(self._job.output, fragment, tasks)
        assert self._store is not None  # noqa: S101 - opened before anything is carried
        return self._store


def _carrier_store(context: Context, job: Job, owner: Any, tasks: Sequence[Task]) -> Store:
    if context.config.store.type == "edge":
        handle = serve.get_deployment_handle("StoreOwner", APP_NAME) if job.share else PlainHandle(owner)
        store: Store = RemoteStore(handle)  # type: ignore[arg-type]  # called alike
    else:
        store = open_store(context.config.store, context.config.pipeline, context.filterable)
    store.open(tasks)
    return store


def _shared(config: Config) -> Config:
    """Returns the configuration with batches that live traffic hardly waits for."""
    limits = config.limits
    few = min(limits.max_batch_records, SHARED_BATCH_RECORDS)
    return config.model_copy(update={"limits": limits.model_copy(update={"max_batch_records": few})})


def _app_embedders(config: Config) -> dict[str, Any]:
    return {name: serve.get_deployment_handle(f"Embedder-{name}", APP_NAME) for name in config.models}
