"""One replica of a model: its queue and its engine, with a future for every batch."""

import asyncio
import gc
import time
from typing import Any

from ray.serve.handle import DeploymentHandle

from actors.process import start_context
from actors.reporting import Reporter
from pipeline.config.load import ConfigTree
from pipeline.context import Context
from pipeline.engine.entry import load_engine
from pipeline.engine.scheduler import EmbedScheduler
from pipeline.metrics import EmbedMetrics
from pipeline.records.batches import Embeddings, Priority, TokenBatch

HANG_S = 120.0
"""A forward batch takes milliseconds to seconds; one that takes so long will not come back."""


def start_scheduler(context: Context, name: str, *, shared: bool) -> EmbedScheduler:
    """Loads a model and returns what queues before it. Raises ConfigError, EnvironmentFault, TransientError."""
    model = context.config.models[name]
    tasks = context.config.tasks_of(name)
    threads = model.threads or (int(model.num_cpus) if model.num_cpus >= 1 else None)
    # What torch and transformers import stays for good: a million objects for the collector to look through in vain.
    gc.disable()
    try:
        engine = load_engine(model, tasks, threads=threads)
    finally:
        gc.enable()
        gc.freeze()
    return EmbedScheduler(name, engine, EmbedMetrics(context.registry), cache_rows=model.cache_rows, shared=shared)


class EmbedderReplica:
    """A Serve replica around an engine. Serve replaces it when a forward batch hangs."""

    def __init__(self, source: ConfigTree, name: str, monitor: DeploymentHandle[Any]) -> None:
        context = start_context(source)
        self._fingerprints = {task: context.tasks[task].fingerprint for task in context.config.tasks_of(name)}
        self._scheduler = start_scheduler(context, name, shared=True)
        self._reporter = Reporter("embedder", monitor, context.registry, lambda: (True, ""))

    async def embed(self, batch: TokenBatch, priority: Priority) -> Embeddings:
        """See pipeline.interfaces.Embedder."""
        return await asyncio.wrap_future(self._scheduler.submit(batch, priority))

    async def fingerprints(self) -> dict[str, str]:
        """Returns the fingerprint of each task of this model, for whoever brings batches of another configuration."""
        return self._fingerprints

    def check_health(self) -> None:
        """Raises when a forward batch hangs or the engine's thread has ended."""
        if not self._scheduler.alive:
            raise RuntimeError("the engine's thread has ended")
        busy_since_s = self._scheduler.busy_since_s
        if busy_since_s is not None and time.monotonic() - busy_since_s > HANG_S:
            raise RuntimeError(f"a forward batch has not returned for {HANG_S:.0f} s")
