"""The store and the embedders as the core loop sees them, when they live in other processes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ray.serve.handle import DeploymentHandle

from actors.callers import Caller, DeploymentCaller, call, call_all
from pipeline.binding import Task
from pipeline.filters import Condition
from pipeline.interfaces import CollectionState, StoredPoint, Written
from pipeline.records.batches import Embeddings, Float32, PointBatch, Priority, TokenBatch

STORE_TIMEOUT_S = 60.0
EMBED_TIMEOUT_S = 600.0
"""A batch waits behind others; a hung model is found by the embedder's own health check, long before."""

QUERY_TIMEOUT_S = 60.0
"""A query overtakes every batch; whoever waits longer than this has gone."""


class RemoteStore:
    """`pipeline.interfaces.PointStore` over the process that owns an embedded store's directory. Thread-safe."""

    def __init__(self, owner: Caller) -> None:
        self._owner = owner

    def open(self, tasks: Iterable[Task]) -> None:
        """See PointStore."""
        self._call("open", list(tasks))

    def upsert(self, batch: PointBatch) -> Written:
        """See PointStore."""
        written: Written = self._call("upsert", batch)
        return written

    def flush(self) -> None:
        """See PointStore."""
        self._call("flush")

    def search(self, task: Task, vector: Float32, limit: int, conditions: Sequence[Condition]) -> list[StoredPoint]:
        """See PointStore."""
        found: list[StoredPoint] = self._call("search", task, vector, limit, list(conditions))
        return found

    def retrieve(self, collection: str, ids: Sequence[bytes], *, with_vectors: bool = False) -> list[StoredPoint]:
        """See PointStore."""
        found: list[StoredPoint] = self._call("retrieve", collection, list(ids), with_vectors=with_vectors)
        return found

    def scroll(
        self, collection: str, after: bytes | None, limit: int, *, with_vectors: bool = False
    ) -> list[StoredPoint]:
        """See PointStore."""
        found: list[StoredPoint] = self._call("scroll", collection, after, limit, with_vectors=with_vectors)
        return found

    def count(self, collection: str) -> int:
        """See PointStore."""
        return int(self._call("count", collection))

    def inspect(self, tasks: Iterable[Task]) -> Mapping[str, CollectionState]:
        """See Inspectable."""
        found: Mapping[str, CollectionState] = self._call("inspect", list(tasks))
        return found

    def repair(self, batch: PointBatch) -> Written:
        """See Repairable."""
        written: Written = self._call("repair", batch)
        return written

    def tombstones(self, collection: str, after: bytes | None, limit: int) -> list[StoredPoint]:
        """See Purgeable."""
        found: list[StoredPoint] = self._call("tombstones", collection, after, limit)
        return found

    def purge_tombstones(self, collection: str, ids_versions: Mapping[bytes, int]) -> int:
        """See Purgeable."""
        return int(self._call("purge_tombstones", collection, dict(ids_versions)))

    def close(self) -> None:
        """The owner closes itself; this end holds nothing."""

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return call("store", STORE_TIMEOUT_S, lambda: self._owner.ask(method, *args, **kwargs))


class DividedStore:
    """`pipeline.interfaces.PointWriter` over processes that have some of its collections each. Thread-safe.

    They write their parts of a batch at the same time. When one fails, others may have written theirs: repeating is
    safe, as it always is.
    """

    def __init__(self, owners: Iterable[tuple[Caller, Iterable[str]]]) -> None:
        """Takes each owner with the collections it has."""
        self._owners = [(owner, frozenset(collections)) for owner, collections in owners]

    def open(self, tasks: Iterable[Task]) -> None:
        """Lets each owner create or check its collections. Raises like `PointStore.open`."""
        tasks = list(tasks)
        self._call("open", ((owner, [task for task in tasks if task.collection in own]) for owner, own in self._owners))

    def upsert(self, batch: PointBatch) -> Written:
        """See PointWriter."""
        stale: dict[str, int] = {}
        for written in self._call("upsert", self._divided(batch)):
            stale |= written.stale
        return Written(stale)

    def flush(self) -> None:
        """See PointWriter."""
        self._call("flush", ((owner,) for owner, _ in self._owners))

    def _divided(self, batch: PointBatch) -> Iterator[tuple[Caller, PointBatch]]:
        for owner, own in self._owners:
            vectors = {name: rows for name, rows in batch.vectors.items() if name in own}
            if vectors:
                yield owner, replace(batch, vectors=vectors)

    @staticmethod
    def _call(method: str, calls: Iterable[tuple[Any, ...]]) -> list[Any]:
        """Makes each call, an owner and the arguments for it, and returns what all of them answer."""
        starts = [lambda owner=owner, args=args: owner.ask(method, *args) for owner, *args in calls]
        return call_all("store", STORE_TIMEOUT_S, starts)


class RemoteEmbedder:
    """`pipeline.interfaces.Embedder` over one Serve deployment per model. Thread-safe."""

    def __init__(self, handles: Mapping[str, DeploymentHandle[Any]]) -> None:
        self._models = {model: DeploymentCaller(handle) for model, handle in handles.items()}

    def embed(self, model: str, batch: TokenBatch, priority: Priority) -> Embeddings:
        """See Embedder."""
        return ask_embedder(model, self._models[model], batch, priority)


def ask_embedder(model: str, embedder: Caller, batch: TokenBatch, priority: Priority) -> Embeddings:
    """Returns the rows of a batch from one embedder, or one group of replicas. Raises like `Embedder.embed`."""
    timeout_s = QUERY_TIMEOUT_S if priority is Priority.QUERY else EMBED_TIMEOUT_S
    rows: Embeddings = call(f"embedder {model}", timeout_s, lambda: embedder.ask("embed", batch, priority))
    return rows
