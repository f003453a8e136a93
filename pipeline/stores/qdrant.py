"""The server store: Qdrant 1.19 or later over gRPC."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

import grpc
from qdrant_client import grpc as qdrant

from pipeline.binding import Task
from pipeline.clock import Clock
from pipeline.config.store import QdrantStoreConfig
from pipeline.errors import ConfigError, EnvironmentFault, Reason, RefractError
from pipeline.filters import Condition, payload_path
from pipeline.interfaces import CollectionState, StoredPoint, Written
from pipeline.records.batches import Float32, PointBatch
from pipeline.records.record import uuid_text
from pipeline.stores import qdrant_filters
from pipeline.stores.grpc_errors import most_severe
from pipeline.stores.metadata import check_alias
from pipeline.stores.points import check_query, check_widths, checked, refused, stored_point
from pipeline.stores.qdrant_bulk import DeferredIndex
from pipeline.stores.qdrant_collections import Collection, QdrantCollections
from pipeline.stores.qdrant_purge import purge
from pipeline.stores.qdrant_rpc import QdrantConnection
from pipeline.stores.wire import WireChunk, read_payload, read_vector, upsert_head

ALIAS_TTL_S = 1.0
"""How long a reader remembers where an alias led. It reads the collection it checked, so after an alias
moved answers are refused late, but never mixed."""

READ_POINTS = 1_000
"""Ids of one read."""

PAGE_POINTS = 10_000
"""Points of one page of a longer read."""

_EVERYTHING = 2**62

_ALL = qdrant.WithPayloadSelector(enable=True)

Write = tuple[WireChunk, "Future[grpc.Future]"]
"""A chunk, and the future of the read-back that follows its write."""


class QdrantStore:
    """Implements `pipeline.interfaces.Store` and `DeferrableIndex` on a server. Thread-safe.

    Each collection has as many writer threads as shards: a guarded write locks its shard, so more
    would only queue at the server (measured: 11,000 points a second with one stream, 13,000 with four).
    """

    def __init__(
        self,
        config: QdrantStoreConfig,
        pipeline: str,
        clock: Clock = time.monotonic,
    ) -> None:
        """Prepares the connection; nothing is sent yet.

        Args:
            config: address, credentials, and what new collections are made with.
            pipeline: name of the pipeline that owns the collections.
            clock: monotonic seconds.
        """
        self._config = config
        self._clock = clock
        self._connection = QdrantConnection(config)
        self._collections = QdrantCollections(self._connection, config, pipeline)
        self._index = DeferredIndex(self._connection)
        self._known: dict[str, Collection] = {}
        self._writers: dict[str, ThreadPoolExecutor] = {}
        self._aliases: dict[str, tuple[float, Collection]] = {}
        self._lock = Lock()
        self._closed = False

    def open(self, tasks: Iterable[Task]) -> None:
        """See `PointStore.open`."""
        self._connection.version()
        for task in tasks:
            self._known[task.collection] = self._collections.open(task)

    def inspect(self, tasks: Iterable[Task]) -> dict[str, CollectionState]:
        """See `Inspectable.inspect`."""
        return {task.name: self._collections.inspect(task) for task in tasks}

    def upsert(self, batch: PointBatch) -> Written:
        """See `PointWriter.upsert`. A batch that fails may have been written in part; repeating it is safe."""
        return self._upsert(batch, over_equal=False)

    def repair(self, batch: PointBatch) -> Written:
        """See `Repairable.repair`."""
        return self._upsert(batch, over_equal=True)

    def _upsert(self, batch: PointBatch, *, over_equal: bool) -> Written:
        check_widths(batch, {name: self._collection(name).dimension for name in batch.vectors})
        points = checked(batch)
        size = min(self._batch_points(name) for name in batch.vectors) if batch.vectors else 1
        try:
            chunks = [
                WireChunk(points, slice(start, start + size), over_equal=over_equal)
                for start in range(0, len(points), size)
            ]
        except (TypeError, ValueError) as error:
            raise refused(len(points), Reason.REFUSED_BY_STORE, f"payload: {type(error).__name__}") from error
        writes = {
            name: [(chunk, self._writer(name).submit(self._write, name, points, chunk)) for chunk in chunks]
            for name in points.vectors
        }
        return Written(self._outcome(writes, len(batch) - len(points)))

    def flush(self) -> None:
        """See `PointWriter.flush`. Nothing to do: an upsert that was waited for is in the server's synced log."""

    def search(self, task: Task, vector: Float32, limit: int, conditions: Sequence[Condition]) -> list[StoredPoint]:
        """See `PointReader.search`."""
        collection = self._readable(task)
        check_query(collection.name, collection.dimension, vector)
        _check_strict(collection, conditions, limit)
        nearest = qdrant.VectorInput(dense=qdrant.DenseVector(data=vector))
        request = qdrant.QueryPoints(
            collection_name=collection.name,
            query=qdrant.Query(nearest=nearest),
            filter=qdrant_filters.live(conditions),
            limit=limit,
            with_payload=_ALL,
        )
        answer = self._connection.call(self._connection.points.Query, request, _doing("searching", collection.name))
        return [_read(point, point.score) for point in answer.result]

    def retrieve(self, collection: str, ids: Sequence[bytes], *, with_vectors: bool = False) -> list[StoredPoint]:
        """See `PointReader.retrieve`."""
        points: list[StoredPoint] = []
        for start in range(0, len(ids), READ_POINTS):
            request = qdrant.GetPoints(
                collection_name=collection,
                ids=[qdrant.PointId(uuid=uuid_text(point)) for point in ids[start : start + READ_POINTS]],
                with_payload=_ALL,
                with_vectors=qdrant.WithVectorsSelector(enable=with_vectors),
            )
            answer = self._connection.call(self._connection.points.Get, request, _doing("reading", collection))
            points.extend(_read(point) for point in answer.result)
        return points

    def scroll(
        self, collection: str, after: bytes | None, limit: int, *, with_vectors: bool = False
    ) -> list[StoredPoint]:
        """See `PointReader.scroll`."""
        request = qdrant.ScrollPoints(
            collection_name=collection,
            with_payload=_ALL,
            with_vectors=qdrant.WithVectorsSelector(enable=with_vectors),
        )
        return self._scroll(request, after, limit)

    def tombstones(self, collection: str, after: bytes | None, limit: int) -> list[StoredPoint]:
        """See `Purgeable.tombstones`."""
        request = qdrant.ScrollPoints(collection_name=collection, with_payload=_ALL, filter=qdrant_filters.dead())
        return self._scroll(request, after, limit)

    def _scroll(self, request: qdrant.ScrollPoints, after: bytes | None, limit: int) -> list[StoredPoint]:
        points: list[StoredPoint] = []
        if after is not None:
            request.offset.CopyFrom(qdrant.PointId(uuid=uuid_text(after)))
        # The server's offset is inclusive: one point more is asked for, and dropped.
        for page in self._pages(request, limit + 1 if after else limit):
            points += [point for point in map(_read, page) if point.id != after]
        return points[:limit]

    def _pages(self, request: qdrant.ScrollPoints, limit: int) -> Iterator[Sequence[qdrant.RetrievedPoint]]:
        """Yields up to `limit` points, in as many requests as strict mode makes of them."""
        most = self._collection(request.collection_name).strict.max_limit or PAGE_POINTS
        while limit > 0:
            request.limit = min(limit, most)
            doing = _doing("reading", request.collection_name)
            answer = self._connection.call(self._connection.points.Scroll, request, doing)
            yield answer.result
            limit -= len(answer.result)
            if not answer.HasField("next_page_offset"):
                return
            request.offset.CopyFrom(answer.next_page_offset)

    def count(self, collection: str) -> int:
        """See `PointReader.count`. Where strict mode forbids exact counts, the points are read, without payload."""
        if not self._collection(collection).strict.allows_exact:
            request = qdrant.ScrollPoints(
                collection_name=collection,
                filter=qdrant_filters.live(()),
                with_payload=qdrant.WithPayloadSelector(enable=False),
            )
            return sum(map(len, self._pages(request, _EVERYTHING)))
        request = qdrant.CountPoints(collection_name=collection, filter=qdrant_filters.live(()), exact=True)
        answer = self._connection.call(self._connection.points.Count, request, _doing("counting", collection))
        return int(answer.result.count)

    def move_alias(self, task: Task) -> None:
        """Makes readers of the task's alias see the task's own collection, which must exist."""
        self._collections.move(task)
        with self._lock:
            self._aliases.pop(task.alias, None)

    def purge_tombstones(self, collection: str, ids_versions: Mapping[bytes, int]) -> int:
        """See `Purgeable.purge_tombstones`."""
        items = [(uuid_text(point), version) for point, version in ids_versions.items()]
        size = self._batch_points(collection)
        chunks = (dict(items[start : start + size]) for start in range(0, len(items), size))
        return sum(purge(self._connection, collection, chunk, self._ordering()) for chunk in chunks)

    def defer_index(self, task: Task) -> bool:
        """See `DeferrableIndex.defer_index`."""
        return self._index.defer(task.collection)

    def restore_index(self, task: Task) -> bool:
        """See `DeferrableIndex.restore_index`."""
        return self._index.restore(task.collection)

    def is_indexed(self, task: Task) -> bool:
        """See `DeferrableIndex.is_indexed`."""
        return self._index.is_built(task.collection)

    def check(self) -> str:
        """See `Inspectable.check`."""
        version = self._connection.version()
        # The health check needs no key; this does.
        self._connection.call(
            self._connection.collections.List, qdrant.ListCollectionsRequest(), "listing the store's collections"
        )
        return f"Qdrant {version}"

    def close(self) -> None:
        """See `PointStore.close`. Writes under way are finished."""
        with self._lock:
            self._closed = True
            writers, self._writers = list(self._writers.values()), {}
        for writer in writers:
            writer.shutdown(wait=True)
        self._connection.close()

    def _write(self, name: str, points: PointBatch, chunk: WireChunk) -> grpc.Future:
        """Sends one chunk, waits until it is applied, and asks for the versions stored now without waiting."""
        request = chunk.upsert(upsert_head(name, strong=self._strong()), points.vectors[name][chunk.rows])
        self._connection.upsert(request, _doing("writing to", name), len(points))
        return self._connection.start_get(chunk.readback(name))

    def _outcome(self, writes: Mapping[str, Sequence[Write]], num_superseded: int) -> dict[str, int]:
        """Returns the stale points per collection, or raises the most severe failure after all writes have ended."""
        stale = dict.fromkeys(writes, num_superseded)
        errors: list[RefractError] = []
        for name, started in writes.items():
            for chunk, write in started:
                try:
                    answer = self._connection.result(write.result(), _doing("reading back from", name))
                    stale[name] += chunk.num_newer(answer)
                except RefractError as error:
                    errors.append(error)
        if errors:
            raise most_severe(errors)
        return stale

    def _collection(self, name: str) -> Collection:
        found = self._known.get(name)
        if found is None:
            found = self._known[name] = self._collections.get(name)
        return found

    def _batch_points(self, name: str) -> int:
        most = self._collection(name).strict.max_upsert
        return min(self._config.batch_points, most or self._config.batch_points)

    def _readable(self, task: Task) -> Collection:
        """Returns the collection the task's alias leads to, when its vectors have the task's fingerprint."""
        now = self._clock()
        with self._lock:
            checked = self._aliases.get(task.alias)
        if checked is None or now >= checked[0]:
            name = self._collections.target(task.alias)
            if name is None:
                raise EnvironmentFault(
                    f"no collection for task {task.name!r} on the server: alias {task.alias!r} is unset"
                )
            checked = (now + ALIAS_TTL_S, self._collections.get(name))
            with self._lock:
                self._aliases[task.alias] = checked
        check_alias(task, checked[1].name, checked[1].metadata.get("fingerprint"))
        return checked[1]

    def _writer(self, name: str) -> ThreadPoolExecutor:
        with self._lock:
            if self._closed:
                raise EnvironmentFault("the store is closed")
            if name not in self._writers:
                self._writers[name] = ThreadPoolExecutor(self._config.shard_number, thread_name_prefix=f"write-{name}")
            return self._writers[name]

    def _strong(self) -> bool:
        """A guard is evaluated by each replica against its own state: replicas must see one order of writes."""
        return self._config.replication_factor > 1

    def _ordering(self) -> qdrant.WriteOrdering | None:
        return qdrant.WriteOrdering(type=qdrant.WriteOrderingType.Strong) if self._strong() else None


def _read(point: qdrant.RetrievedPoint | qdrant.ScoredPoint, score: float = 0.0) -> StoredPoint:
    key = point.id.uuid or point.id.num
    vector = read_vector(point.vectors) if point.HasField("vectors") else None
    return stored_point(key, read_payload(point.payload), vector, score)


def _check_strict(collection: Collection, conditions: Sequence[Condition], limit: int) -> None:
    """Raises ConfigError for a search that the collection's strict mode refuses, with the way out."""
    most = collection.strict.max_limit
    if most is not None and limit > most:
        raise ConfigError(f"limit: the server's strict mode allows at most {most}")
    if not collection.strict.needs_index:
        return
    for condition in conditions:
        kinds = qdrant_filters.needed_kinds(condition)
        index = collection.indexed.get(payload_path(condition.field))
        if index is None or (kinds and index.kind not in kinds):
            kind = kinds[0] if kinds else "keyword"
            raise ConfigError(
                f"filter on {condition.field!r}: the server's strict mode wants an index of kind "
                f"{' or '.join(kinds) or 'any'}, and the field's is of kind {index.kind if index else 'none'}; say "
                f"what the field is in the topic's configuration: payload: {{{condition.field}: {kind}}}"
            )


def _doing(what: str, collection: str) -> str:
    return f"{what} collection {collection!r}"
