"""The stores under contract, and short ways to make tasks and points for them."""

import hashlib
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import numpy as np
import qdrant_edge as edge
from qdrant_client import grpc as qdrant
from qdrant_client.conversions.conversion import json_to_value

from pipeline.binding import Task
from pipeline.config.model import TaskConfig
from pipeline.config.payload_fields import PayloadField, long_forms
from pipeline.config.store import EdgeStoreConfig, QdrantStoreConfig
from pipeline.interfaces import PointReader
from pipeline.records.batches import Float32, PointBatch
from pipeline.stores.edge import EdgeStore
from pipeline.stores.qdrant import QdrantStore

PIPELINE = "contract"
DIMENSION = 4
PAYLOAD = long_forms(
    {
        "team": "team",
        "customer.name": "customer.name",
        "org": {"type": "keyword", "tenant": True},
        "number": "uuid",
        "size": "integer",
        "price": {"type": "float", "on_disk": True},
        "open": "bool",
        "created": "datetime",
        "note": "text",
        "tags": "keyword[]",
    }
)
FIELDS = {name: PayloadField(**field) for name, field in PAYLOAD.items()}
"""What the collections here are filtered on."""

AnyStore = EdgeStore | QdrantStore


def key_id(key: str | int) -> bytes:
    """Returns a point id that is the same for the same key."""
    return uuid.uuid5(uuid.NAMESPACE_OID, str(key)).bytes


def unit(*values: float) -> Float32:
    """Returns a vector of DIMENSION values, the rest zero, of length one."""
    vector = np.zeros(DIMENSION, np.float32)
    vector[: len(values)] = values
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def make_task(name: str, *, seed: str = "", dimension: int = DIMENSION, collection: str | None = None) -> Task:
    """Returns a task; another seed is another fingerprint."""
    fingerprint = hashlib.sha256(f"{name}{seed}".encode()).hexdigest()
    return Task(name, TaskConfig(model="null", collection=collection), dimension, fingerprint, FIELDS)


Row = tuple[str | int, int, Float32 | None, Mapping[str, Any]]
"""Key, version, vector (None deletes), payload."""


def make_batch(rows: Sequence[Row], *tasks: Task) -> PointBatch:
    """Returns the rows as a batch for the collections of the tasks."""
    ids = np.frombuffer(b"".join(key_id(row[0]) for row in rows), np.uint8).reshape(-1, 16)
    width = tasks[0].dimension
    vectors = np.array([np.zeros(width) if row[2] is None else row[2] for row in rows], np.float32).reshape(-1, width)
    return PointBatch(
        ids,
        np.array([row[1] for row in rows], np.int64),
        np.array([row[2] is None for row in rows], np.bool_),
        [{"_key": f"s:{row[0]}", **row[3]} for row in rows],
        {task.collection: vectors for task in tasks},
    )


def put(key: str | int, version: int, **payload: Any) -> Row:
    """Returns a live row."""
    return (key, version, unit(1.0, version % 7), payload)


def delete(key: str | int, version: int) -> Row:
    """Returns a tombstone row."""
    return (key, version, None, {})


def stored(store: PointReader, task: Task) -> dict[bytes, tuple[int, bool]]:
    """Returns id -> (version, deleted) of everything in the task's collection."""
    return {point.id: (point.version, point.deleted) for point in store.scroll(task.collection, None, 100_000)}


class Backend(ABC):
    """One kind of store and its data; the data outlives the store objects."""

    def __init__(self) -> None:
        self._stores: list[AnyStore] = []
        self._suffix = uuid.uuid4().hex[:8]

    def task(self, name: str = "urgency", **settings: Any) -> Task:
        """Returns a task whose collections no other test has."""
        return make_task(f"{name}-{self._suffix}", **settings)

    def connect(self, pipeline: str = PIPELINE) -> AnyStore:
        """Returns a new store object on the same data."""
        store = self._connect(pipeline)
        self._stores.append(store)
        return store

    def close(self) -> None:
        for store in self._stores:
            store.close()

    @abstractmethod
    def _connect(self, pipeline: str) -> AnyStore: ...

    @abstractmethod
    def put_raw(self, store: AnyStore, collection: str, key: str, payload: Mapping[str, Any]) -> None:
        """Writes a point past the guard, as some other program might have."""


class EdgeBackend(Backend):
    """A directory. Only one store object may have it at a time."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.config = EdgeStoreConfig(type="edge", path=path, optimize_interval_s=0.05)

    def _connect(self, pipeline: str) -> AnyStore:
        for store in self._stores:
            store.close()
        return EdgeStore(self.config, pipeline)

    def put_raw(self, store: AnyStore, collection: str, key: str, payload: Mapping[str, Any]) -> None:
        assert isinstance(store, EdgeStore)
        point = edge.Point(UUID(bytes=key_id(key)), unit(1.0).tolist(), dict(payload))
        store._shard(collection)._shard.update(edge.UpdateOperation.upsert_points([point]))


class QdrantBackend(Backend):
    """A server, the tests' own or a real one."""

    def __init__(self, url: str, **settings: Any) -> None:
        super().__init__()
        self.config = QdrantStoreConfig(type="qdrant", url=url, **settings)
        self.channel = grpc.insecure_channel(url.split("://")[1])

    def _connect(self, pipeline: str) -> AnyStore:
        return QdrantStore(self.config, pipeline)

    def put_raw(self, store: AnyStore, collection: str, key: str, payload: Mapping[str, Any]) -> None:
        assert isinstance(store, QdrantStore)
        vector = qdrant.Vector(dense=qdrant.DenseVector(data=unit(1.0)))
        point = qdrant.PointStruct(
            id=qdrant.PointId(uuid=str(UUID(bytes=key_id(key)))),
            vectors=qdrant.Vectors(vector=vector),
            payload={name: json_to_value(value) for name, value in payload.items()},
        )
        self.points().Upsert(qdrant.UpsertPoints(collection_name=collection, wait=True, points=[point]))

    def points(self) -> Any:
        return qdrant.PointsStub(self.channel)  # type: ignore[no-untyped-call]  # generated code

    def collections(self) -> Any:
        return qdrant.CollectionsStub(self.channel)  # type: ignore[no-untyped-call]  # generated code

    def names(self) -> list[str]:
        """Returns the server's collections."""
        listed = self.collections().List(qdrant.ListCollectionsRequest()).collections
        return [entry.name for entry in listed]

    def drop(self, collection: str) -> None:
        """Deletes a collection behind the store's back."""
        self.collections().Delete(qdrant.DeleteCollection(collection_name=collection))

    def close(self) -> None:
        """Leaves nothing behind on a server that others use."""
        super().close()
        for name in self.names():
            if self._suffix in name:
                self.drop(name)
        self.channel.close()


class StrictQdrantBackend(QdrantBackend):
    """A server whose collections are in strict mode, as managed clusters set them up."""

    def _connect(self, pipeline: str) -> AnyStore:
        return StrictStore(self.config, pipeline)


class StrictStore(QdrantStore):
    """Switches strict mode on for every collection as soon as it is created, as a server's own default would."""

    def open(self, tasks: Iterable[Task]) -> None:
        listed = list(tasks)
        super().open(listed)
        for task in listed:
            changing = qdrant.UpdateCollection(collection_name=task.collection, strict_mode_config=STRICT)
            self._connection.call(self._connection.collections.Update, changing, "switching strict mode on")
        super().open(listed)


STRICT = qdrant.StrictModeConfig(
    enabled=True,
    unindexed_filtering_retrieve=False,
    unindexed_filtering_update=False,
    search_allow_exact=False,
    max_query_limit=100,
    upsert_max_batchsize=300,
)
