"""One collection of the embedded store: guarded writes, reads and upkeep of a Qdrant Edge shard.

This module relies on these facts of qdrant-edge-py 0.9.0, all tried: no call releases the interpreter lock,
so threads gain nothing and a long call freezes the process; building an HNSW graph takes 0.4 ms a
vector that way, so none is built and searches are exact (15 ms over 100,000 vectors of 384 values);
`flush` syncs segments and log (msync and fsync seen by strace); points whose version is missing,
null, a string or a bool count as older, as under a server's guard; a vector of `{}` stores a tombstone
that no search finds.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import UUID

import numpy as np
import qdrant_edge as edge

from pipeline.errors import EnvironmentFault
from pipeline.filters import Condition
from pipeline.interfaces import StoredPoint
from pipeline.records.batches import Float32, PointBatch
from pipeline.stores import edge_filters
from pipeline.stores.edge_directory import sync
from pipeline.stores.edge_errors import edge_errors
from pipeline.stores.points import (
    STATE_FIELD,
    UNVERSIONED,
    VERSION_FIELD,
    ids_of,
    stored_payloads,
    stored_point,
    stored_version,
)

NEVER_INDEXED = 10**12
"""Indexing threshold in kilobytes that no shard reaches; see the module's first lines."""


class EdgeShard:
    """A collection. Thread-safe: one lock around each call, so reads wait for at most one chunk of a write."""

    def __init__(self, name: str, path: Path, dimension: int) -> None:
        """Loads the shard and replays its log.

        Raises EnvironmentFault when the folder is gone, or holds vectors of another dimension.
        """
        self.name = name
        self.dimension = dimension
        self._path = path
        self._lock = Lock()
        self._unflushed = True
        self._unoptimized = True
        if not path.is_dir():
            raise EnvironmentFault(f"collection {name!r} has vanished: its folder {str(path)!r} does not exist")
        with edge_errors(f"loading collection {name!r}"):
            self._shard = edge.EdgeShard.load(str(path), _config(dimension))

    @staticmethod
    def create(name: str, path: Path, dimension: int) -> None:
        """Builds an empty shard in an empty folder, durably."""
        with edge_errors(f"creating collection {name!r}"):
            shard = edge.EdgeShard.create(str(path), _config(dimension))
            index = edge.UpdateOperation.create_field_index(STATE_FIELD, edge.PayloadSchemaType.Keyword)
            shard.update(index)
            shard.flush()
            shard.close()

    def upsert(self, chunk: "EdgeChunk", vectors: Float32) -> int:
        """Writes the points that are newer than what is stored; returns how many were older.

        The version guard is this comparison: it reads and writes under the lock of every write, and the
        directory has one owner process, so nobody can write in between. A server's guard travels with its
        request; here that cost three times as much, and the log would evaluate it again at a replay.
        """
        # A memoryview of a row avoids turning its values into Python floats: 5 microseconds a point at 384.
        rows: list[Any] = [memoryview(row) for row in np.ascontiguousarray(vectors)]
        points = [
            edge.Point(point, {} if gone else vector, payload)
            for point, vector, payload, gone in zip(chunk.ids, rows, chunk.payloads, chunk.deleted, strict=True)
        ]
        with self._lock:
            stored = self._versions(chunk.ids)
            newer = chunk.newer(stored)
            if newer:
                self._unflushed = self._unoptimized = True
                self._shard.update(edge.UpdateOperation.upsert_points([points[row] for row in newer]))
        return sum(
            stored.get(point, UNVERSIONED) > version for point, version in zip(chunk.ids, chunk.versions, strict=True)
        )

    def purge(self, ids: Sequence[str], guard: edge.Filter) -> int:
        """Deletes the points the guard lets through; returns how many are gone."""
        with edge_errors(f"purging collection {self.name!r}"), self._lock:
            before = len(self._versions(ids))
            self._unflushed = self._unoptimized = True
            self._shard.update(edge.UpdateOperation.delete_points_by_filter(guard))
            return before - len(self._versions(ids))

    def search(self, vector: Float32, limit: int, conditions: Sequence[Condition]) -> list[StoredPoint]:
        """Returns live points by falling score."""
        request = edge.SearchRequest(
            edge.Query.Nearest(vector.tolist()), limit, with_payload=True, filter=edge_filters.live(conditions)
        )
        with edge_errors(f"searching collection {self.name!r}"), self._lock:
            hits = self._shard.search(request)
        return [stored_point(hit.id, hit.payload or {}, None, hit.score) for hit in hits]

    def retrieve(self, ids: Sequence[str], *, with_vectors: bool) -> list[StoredPoint]:
        """Returns the stored points among the ids."""
        with edge_errors(f"reading collection {self.name!r}"), self._lock:
            return [_read(record) for record in self._shard.retrieve(list(ids), True, with_vectors)]

    def scroll(
        self, after: bytes | None, limit: int, *, with_vectors: bool, matching: edge.Filter | None = None
    ) -> list[StoredPoint]:
        """Returns points with ids above `after`, ascending. The shard's own offset is inclusive: one is dropped."""
        request = edge.ScrollRequest(
            offset=after.hex() if after else None,
            limit=limit + 1 if after else limit,
            filter=matching,
            with_payload=True,
            with_vector=with_vectors,
        )
        with edge_errors(f"reading collection {self.name!r}"), self._lock:
            records, _ = self._shard.scroll(request)
        return [point for point in map(_read, records) if point.id != after][:limit]

    def count(self) -> int:
        """Returns the number of live points."""
        with edge_errors(f"counting collection {self.name!r}"), self._lock:
            return int(self._shard.count(edge.CountRequest(exact=True, filter=edge_filters.live(()))))

    def flush(self) -> None:
        """Syncs what was written since the last call.

        The files are synced here first: a disk may need a second for that, during which Edge would hold the
        interpreter lock. Its own flush then finds only what was written meanwhile, and what was in its memory.
        """
        with edge_errors(f"flushing collection {self.name!r}"):
            if self._unflushed:
                _sync_files(self._path)
            with self._lock:
                if self._unflushed:
                    self._shard.flush()
                    self._unflushed = False

    def optimize(self) -> None:
        """Drops deleted points and merges segments, when something was written since the last call."""
        with self._lock:
            if self._unoptimized:
                self._unoptimized = False
                with edge_errors(f"optimizing collection {self.name!r}"):
                    self._shard.optimize()

    def close(self) -> None:
        """Flushes and frees the shard; it is freed even when the flush fails."""
        try:
            self.flush()
        finally:
            with self._lock, edge_errors(f"closing collection {self.name!r}"):
                self._shard.close()

    def _versions(self, ids: Sequence[str]) -> dict[str, float]:
        """Returns the stored versions by id, as hex; the caller holds the lock."""
        records = self._shard.retrieve(list(ids), [VERSION_FIELD], False)
        return {
            record.id.hex: stored_version(record.payload or {}) for record in records if isinstance(record.id, UUID)
        }


class EdgeChunk:
    """Some rows of a batch with what all its collections share."""

    __slots__ = ("_over_equal", "deleted", "ids", "payloads", "versions")

    def __init__(self, batch: PointBatch, rows: slice, *, over_equal: bool = False) -> None:
        """Takes the rows; `over_equal` lets them replace points of equal version."""
        self._over_equal = over_equal
        self.ids = [point.hex() for point in ids_of(batch.ids[rows])]
        self.versions: list[int] = batch.versions[rows].tolist()
        self.deleted: list[bool] = batch.deleted[rows].tolist()
        self.payloads = stored_payloads(batch, rows)

    def newer(self, stored: Mapping[str, float]) -> list[int]:
        """Returns the rows that may be written, given the stored versions by id."""
        return [
            row
            for row, (point, version) in enumerate(zip(self.ids, self.versions, strict=True))
            if point not in stored or stored[point] < version + self._over_equal
        ]


def _sync_files(folder: Path) -> None:
    """Syncs every file below a folder."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # a segment that was merged away
                sync(Path(parent, name))


def _config(dimension: int) -> edge.EdgeConfig:
    return edge.EdgeConfig(
        vectors=edge.EdgeVectorParams(size=dimension, distance=edge.Distance.Cosine),
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=NEVER_INDEXED),
    )


def _read(record: edge.Record) -> StoredPoint:
    vector = np.array(record.vector, np.float32) if isinstance(record.vector, list) else None
    return stored_point(record.id, record.payload or {}, vector)
