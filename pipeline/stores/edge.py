"""The embedded store: Qdrant Edge in this process, one shard per physical collection."""

import importlib.metadata
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack

import structlog

from pipeline.binding import Task
from pipeline.config.store import EdgeStoreConfig
from pipeline.errors import EnvironmentFault, RefractError, TransientError
from pipeline.filters import Condition
from pipeline.interfaces import CollectionState, StoredPoint, Written
from pipeline.records.batches import Float32, PointBatch
from pipeline.stores import edge_filters
from pipeline.stores.edge_directory import EdgeDirectory
from pipeline.stores.edge_errors import edge_errors
from pipeline.stores.edge_shard import EdgeChunk, EdgeShard
from pipeline.stores.metadata import check_alias, check_metadata, collection_metadata, collection_state
from pipeline.stores.points import check_query, check_widths, checked

GUARD_POINTS = 256
"""Points of one guarded upsert: cheapest per point here (128 to 512 differ by a sixth), and searches
wait for one chunk at most, about 10 ms."""

MIN_FREE_BYTES = 134_217_728
"""Free disk space needed for each collection before anything is written. Edge writes through mapped sparse
files (two log segments, a vector chunk and payload pages, 32 MiB each): on a full disk the kernel kills
the process with SIGBUS, seen on a tmpfs, so a full disk must be met before Edge meets it."""

log = structlog.get_logger(__name__)


class EdgeStore:
    """Implements `pipeline.interfaces.Store` in one directory. Thread-safe; a collection has one owner at a time."""

    def __init__(self, config: EdgeStoreConfig, pipeline: str, *, shared: bool = False) -> None:
        """Takes the directory, creating it if needed; with `shared` only those of its collections that are used here.

        Raises EnvironmentFault when another process owns it, naming its pid.
        """
        self._pipeline = pipeline
        self._interval_s = config.optimize_interval_s
        self._directory = EdgeDirectory(config.path, shared=shared)
        self._shards: dict[str, EdgeShard] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._upkeep: threading.Thread | None = None

    def open(self, tasks: Iterable[Task]) -> None:
        """See `PointStore.open`."""
        for task in tasks:
            with self._lock:
                self._open(task)
        if self._upkeep is None:
            self._upkeep = threading.Thread(target=self._optimize, name="edge-optimize", daemon=True)
            self._upkeep.start()

    def inspect(self, tasks: Iterable[Task]) -> dict[str, CollectionState]:
        """See `Inspectable.inspect`."""
        with self._lock:
            return {task.name: self._inspect(task) for task in tasks}

    def upsert(self, batch: PointBatch) -> Written:
        """See `PointWriter.upsert`. A batch that is refused may have been written in part; repeating is safe."""
        return self._upsert(batch, over_equal=False)

    def repair(self, batch: PointBatch) -> Written:
        """See `Repairable.repair`."""
        return self._upsert(batch, over_equal=True)

    def _upsert(self, batch: PointBatch, *, over_equal: bool) -> Written:
        shards = {name: self._shard(name) for name in batch.vectors}
        check_widths(batch, {name: shard.dimension for name, shard in shards.items()})
        points = checked(batch)
        self._check_space()
        stale = dict.fromkeys(shards, len(batch) - len(points))
        for start in range(0, len(points), GUARD_POINTS):
            rows = slice(start, start + GUARD_POINTS)
            chunk = EdgeChunk(points, rows, over_equal=over_equal)
            for name, shard in shards.items():
                with edge_errors(f"writing to collection {name!r}", len(points)):
                    stale[name] += shard.upsert(chunk, points.vectors[name][rows])
        return Written(stale)

    def flush(self) -> None:
        """See `PointWriter.flush`. Costs about 4 microseconds for each point written since the last call."""
        for shard in self._open_shards():
            shard.flush()

    def search(self, task: Task, vector: Float32, limit: int, conditions: Sequence[Condition]) -> list[StoredPoint]:
        """See `PointReader.search`. Exact: every live vector is compared."""
        collection = self._directory.aliases.get(task.alias)
        if collection is None:
            raise EnvironmentFault(f"no collection for task {task.name!r} in this store: alias {task.alias!r} is unset")
        check_alias(task, collection, self._directory.collections[collection].get("fingerprint"))
        shard = self._shard(collection)
        check_query(collection, shard.dimension, vector)
        return shard.search(vector, limit, conditions)

    def retrieve(self, collection: str, ids: Sequence[bytes], *, with_vectors: bool = False) -> list[StoredPoint]:
        """See `PointReader.retrieve`."""
        return self._shard(collection).retrieve([point.hex() for point in ids], with_vectors=with_vectors)

    def scroll(
        self, collection: str, after: bytes | None, limit: int, *, with_vectors: bool = False
    ) -> list[StoredPoint]:
        """See `PointReader.scroll`."""
        return self._shard(collection).scroll(after, limit, with_vectors=with_vectors)

    def count(self, collection: str) -> int:
        """See `PointReader.count`."""
        return self._shard(collection).count()

    def tombstones(self, collection: str, after: bytes | None, limit: int) -> list[StoredPoint]:
        """See `Purgeable.tombstones`."""
        return self._shard(collection).scroll(after, limit, with_vectors=False, matching=edge_filters.dead())

    def move_alias(self, task: Task) -> None:
        """Makes readers of the task's alias see the task's own collection, which must have been opened."""
        with self._lock:
            found = self._directory.collections.get(task.collection)
            if found is None:
                raise EnvironmentFault(f"collection {task.collection!r} does not exist; open it before its alias moves")
            check_metadata(task.collection, found, task, self._pipeline)
            with edge_errors(f"moving alias {task.alias!r}"):
                self._directory.point(task.alias, task.collection)

    def purge_tombstones(self, collection: str, ids_versions: Mapping[bytes, int]) -> int:
        """See `Purgeable.purge_tombstones`."""
        shard = self._shard(collection)
        self._check_space()
        items = [(point.hex(), version) for point, version in ids_versions.items()]
        purged = 0
        for start in range(0, len(items), GUARD_POINTS):
            ids, versions = zip(*items[start : start + GUARD_POINTS], strict=True)
            purged += shard.purge(ids, edge_filters.tombstones(ids, versions))
        return purged

    def check(self) -> str:
        """See `Inspectable.check`."""
        if self._closed.is_set():
            raise EnvironmentFault("the embedded store is closed")
        for name in self._directory.collections:
            if not self._directory.shard(name).is_dir():
                raise EnvironmentFault(f"collection {name!r} has vanished from {str(self._directory.path)!r}")
        return f"Qdrant Edge {importlib.metadata.version('qdrant-edge-py')}"

    def close(self) -> None:
        """See `PointStore.close`. Everything is freed even when a collection cannot be flushed; that is raised then."""
        self._closed.set()
        if self._upkeep is not None:
            self._upkeep.join()
            self._upkeep = None
        with self._lock, ExitStack() as stack:
            stack.callback(self._directory.close)
            while self._shards:
                stack.callback(self._shards.popitem()[1].close)

    def _check_space(self) -> None:
        # In a shared directory the others' collections count as well: all may write at once.
        written = self._directory.collections if self._directory.shared else self._shards
        needed = MIN_FREE_BYTES * max(len(written), 1)
        free = self._directory.free_bytes
        if free < needed:
            raise TransientError(
                f"{free} bytes are free on the disk of store directory {str(self._directory.path)!r}; writing goes on "
                f"when {needed} are"
            )

    def _inspect(self, task: Task) -> CollectionState:
        metadata = self._directory.collections.get(task.collection)
        if metadata is not None:
            check_metadata(task.collection, metadata, task, self._pipeline)
        return collection_state(task, self._directory.aliases.get(task.alias), exists=metadata is not None)

    def _open(self, task: Task) -> None:
        name = task.collection
        self._directory.own(name)
        if name not in self._directory.collections:
            self._create(task)
        check_metadata(name, self._directory.collections[name], task, self._pipeline)
        self._load(name)
        # An alias that leads elsewhere is left alone: readers refuse until a migration moves it.
        if task.alias not in self._directory.aliases:
            with edge_errors(f"creating alias {task.alias!r}"):
                self._directory.point(task.alias, name)

    def _create(self, task: Task) -> None:
        self._check_space()
        name = task.collection
        if self._directory.shard(name).is_dir():
            self._adopt(name, task.dimension)
        else:
            with edge_errors(f"creating collection {name!r}"):
                EdgeShard.create(name, self._directory.begin(name), task.dimension)
                self._directory.finish(name)
        with edge_errors(f"registering collection {name!r}"):
            self._directory.register(name, collection_metadata(task, self._pipeline))

    def _adopt(self, name: str, dimension: int) -> None:
        """Accepts an empty folder the register does not know: a crash right after its creation left it there."""
        shard = EdgeShard(name, self._directory.shard(name), dimension)
        try:
            if shard.scroll(None, 1, with_vectors=False):
                raise EnvironmentFault(
                    f"folder {str(self._directory.shard(name))!r} holds points, but the register beside it does not "
                    f"name collection {name!r}: restore the register from a backup, or move the folder away"
                )
        finally:
            shard.close()

    def _shard(self, name: str) -> EdgeShard:
        """Returns the collection's shard, loading one that is registered but was not opened."""
        shard = self._shards.get(name)
        if shard is None or self._closed.is_set():
            with self._lock:
                shard = self._load(name)
        return shard

    def _load(self, name: str) -> EdgeShard:
        if self._closed.is_set():
            raise EnvironmentFault("the embedded store is closed")
        if name not in self._shards:
            self._directory.own(name)
            found = self._directory.collections.get(name)
            if found is None:
                raise EnvironmentFault(f"collection {name!r} does not exist in this store")
            self._shards[name] = EdgeShard(name, self._directory.shard(name), int(found["dimension"]))
        return self._shards[name]

    def _open_shards(self) -> list[EdgeShard]:
        with self._lock:
            return list(self._shards.values())

    def _optimize(self) -> None:
        while not self._closed.wait(self._interval_s):
            for shard in self._open_shards():
                try:
                    shard.optimize()
                except RefractError:
                    # Upkeep only: the data is written, and the next write meets the same fault by itself.
                    log.exception("Optimizing a collection failed", collection=shard.name)
