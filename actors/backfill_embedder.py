"""One replica of a model for a backfill of its own."""

import asyncio

from actors.embedder import start_scheduler
from actors.process import start_context
from pipeline.config.load import ConfigTree
from pipeline.metrics import snapshot, total
from pipeline.records.batches import Embeddings, Priority, TokenBatch


class BackfillEmbedder:
    """An actor around a model's queue and engine, which nobody but the job uses."""

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
