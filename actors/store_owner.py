"""The process that holds an embedded store's directory, or collections of it, and serves them to the others."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from ray.serve.handle import DeploymentHandle

from actors.process import start_context
from actors.reporting import Reporter
from pipeline.binding import Task
from pipeline.config.load import ConfigTree
from pipeline.filters import Condition
from pipeline.interfaces import CollectionState, StoredPoint, Written
from pipeline.metrics import StoreMetrics
from pipeline.records.batches import Float32, PointBatch

NUM_WRITE_THREADS = 2
NUM_READ_THREADS = 4

Result = TypeVar("Result")


class StoreOwner:
    """An actor around an embedded store. Writes, reads and what waits for the disk have threads of their own.

    A search must not wait behind a queue of writes, and a write not behind a long scroll or a slow disk.
    """

    def __init__(
        self, source: ConfigTree, monitor: DeploymentHandle[Any] | None = None, *, shared: bool = False
    ) -> None:
        """Takes the directory, all of it or, with `shared`, the collections it is asked for beside other owners.

        The monitor of the app it belongs to hears how full the disk is.
        """
        context = start_context(source)
        self._store = context.open_store(shared=shared)
        # Only this starts its upkeep: the ingestors open their tasks once, and not again after a restart of this one.
        self._store.open(())
        self._writers = ThreadPoolExecutor(NUM_WRITE_THREADS, thread_name_prefix="write")
        self._syncing = ThreadPoolExecutor(NUM_WRITE_THREADS, thread_name_prefix="sync")
        self._readers = ThreadPoolExecutor(NUM_READ_THREADS, thread_name_prefix="read")
        if monitor is not None and context.config.store.type == "edge":
            StoreMetrics(context.registry).watch(context.config.store.path)
            self._reporter = Reporter("store", monitor, context.registry, lambda: (True, ""))

    def __del__(self) -> None:
        # Ray's own class around this one, for plain actors, has no store.
        if store := getattr(self, "_store", None):
            store.close()

    async def open(self, tasks: list[Task]) -> None:
        """See PointStore."""
        await self._on(self._writers, lambda: self._store.open(tasks))

    async def upsert(self, batch: PointBatch) -> Written:
        """See PointStore."""
        return await self._on(self._writers, lambda: self._store.upsert(batch))

    async def flush(self) -> None:
        """See PointStore."""
        await self._on(self._syncing, self._store.flush)

    async def search(self, task: Task, vector: Float32, limit: int, conditions: list[Condition]) -> list[StoredPoint]:
        """See PointStore."""
        return await self._on(self._readers, lambda: self._store.search(task, np.asarray(vector), limit, conditions))

    async def retrieve(self, collection: str, ids: list[bytes], *, with_vectors: bool = False) -> list[StoredPoint]:
        """See PointStore."""
        return await self._on(self._readers, lambda: self._store.retrieve(collection, ids, with_vectors=with_vectors))

    async def scroll(
        self, collection: str, after: bytes | None, limit: int, *, with_vectors: bool = False
    ) -> list[StoredPoint]:
        """See PointStore."""
        return await self._on(
            self._readers, lambda: self._store.scroll(collection, after, limit, with_vectors=with_vectors)
        )

    async def count(self, collection: str) -> int:
        """See PointStore."""
        return await self._on(self._readers, lambda: self._store.count(collection))

    async def inspect(self, tasks: list[Task]) -> Mapping[str, CollectionState]:
        """See `Inspectable.inspect`."""
        return await self._on(self._readers, lambda: self._store.inspect(tasks))

    async def repair(self, batch: PointBatch) -> Written:
        """See Repairable."""
        return await self._on(self._writers, lambda: self._store.repair(batch))

    async def tombstones(self, collection: str, after: bytes | None, limit: int) -> list[StoredPoint]:
        """See Purgeable."""
        return await self._on(self._readers, lambda: self._store.tombstones(collection, after, limit))

    async def purge_tombstones(self, collection: str, ids_versions: dict[bytes, int]) -> int:
        """See Purgeable."""
        return await self._on(self._writers, lambda: self._store.purge_tombstones(collection, ids_versions))

    async def check(self) -> str:
        """See `Inspectable.check`."""
        return await self._on(self._readers, self._store.check)

    @staticmethod
    async def _on(pool: ThreadPoolExecutor, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(pool, work)
