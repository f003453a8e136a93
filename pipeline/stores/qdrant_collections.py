"""Physical collections and aliases on a Qdrant server: created and checked, never changed silently."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from qdrant_client import grpc as qdrant

from pipeline.binding import Task
from pipeline.config.store import QdrantStoreConfig
from pipeline.errors import EnvironmentFault, RefractError
from pipeline.interfaces import CollectionState
from pipeline.stores.metadata import DISTANCE, check_metadata, collection_metadata, collection_state
from pipeline.stores.qdrant_indexes import (
    Index,
    StrictMode,
    changed_fields,
    index_of,
    index_request,
    wanted_fields,
)
from pipeline.stores.qdrant_rpc import QdrantConnection
from pipeline.stores.wire import read_payload


@dataclass(frozen=True, slots=True)
class Collection:
    """What the server says about a collection."""

    name: str
    dimension: int
    distance: str
    metadata: dict[str, Any]
    indexed: Mapping[str, Index]
    """Indexes of payload fields, by path."""
    strict: StrictMode


_CHANGED = (
    "payload field {path!r} has an index of kind {old}, its type is {new} now: opening the collection rebuilds the "
    "index, and points stored before keep their values until a backfill writes them again"
)


class QdrantCollections:
    """The collections of one server, for one pipeline. Thread-safe: it keeps nothing."""

    def __init__(self, connection: QdrantConnection, config: QdrantStoreConfig, pipeline: str) -> None:
        """Takes what new collections are created with."""
        self._connection = connection
        self._config = config
        self._pipeline = pipeline

    def open(self, task: Task) -> Collection:
        """Creates what is missing and returns the task's collection after checking it.

        Raises EnvironmentFault, naming what was found and what was expected, when it belongs to
        another pipeline, or holds vectors of another size, distance or fingerprint.
        """
        found = self.find(task.collection)
        if found is None:
            found = self._create(task)
        _check(found, task, self._pipeline)
        found = self._index(found, task)
        # An alias that leads elsewhere is left alone: readers refuse until a migration moves it.
        if self.target(task.alias) is None:
            self.point(task.alias, found.name)
        return found

    def inspect(self, task: Task) -> CollectionState:
        """Returns what stands where the task will write. Raises like `open`, and creates nothing."""
        found = self.find(task.collection)
        state = collection_state(task, self.target(task.alias), exists=found is not None)
        if found is None:
            return state
        _check(found, task, self._pipeline)
        changed = changed_fields(task.payload, found.indexed).items()
        return replace(state, notes=tuple(_CHANGED.format(path=path, old=old, new=new) for path, (old, new) in changed))

    def get(self, name: str) -> Collection:
        """Returns the collection. Raises EnvironmentFault when it does not exist: it is never recreated here."""
        found = self.find(name)
        if found is None:
            raise EnvironmentFault(
                f"collection {name!r} does not exist on the server: restore it from a snapshot and rewind the consumer "
                f"group, or restart from the earliest offsets"
            )
        return found

    def find(self, name: str) -> Collection | None:
        """Returns the collection of exactly that name, None when it does not exist; aliases are not followed."""
        doing = f"looking up collection {name!r}"
        listed = self._connection.call(
            self._connection.collections.List, qdrant.ListCollectionsRequest(), doing
        ).collections
        if name not in {entry.name for entry in listed}:
            return None
        request = qdrant.GetCollectionInfoRequest(collection_name=name)
        info = self._connection.call(self._connection.collections.Get, request, doing).result
        params = info.config.params.vectors_config.params
        return Collection(
            name,
            params.size,
            qdrant.Distance.Name(params.distance),
            read_payload(info.config.metadata),
            {path: Index.of(schema) for path, schema in info.payload_schema.items()},
            StrictMode.of(info.config),
        )

    def target(self, alias: str) -> str | None:
        """Returns the collection an alias leads to, None when the alias does not exist."""
        answer = self._connection.call(
            self._connection.collections.ListAliases, qdrant.ListAliasesRequest(), f"looking up alias {alias!r}"
        )
        return next((entry.collection_name for entry in answer.aliases if entry.alias_name == alias), None)

    def point(self, alias: str, collection: str) -> None:
        """Makes the alias lead to the collection, replacing where it led before in one step.

        Only a create: a delete and a create that fail half-way would leave no alias at all.
        """
        action = qdrant.AliasOperations(create_alias=qdrant.CreateAlias(collection_name=collection, alias_name=alias))
        self._connection.call(
            self._connection.collections.UpdateAliases,
            qdrant.ChangeAliases(actions=[action]),
            f"pointing alias {alias!r} to collection {collection!r}",
        )

    def move(self, task: Task) -> None:
        """Makes the task's alias lead to the task's own collection."""
        found = self.get(task.collection)
        _check(found, task, self._pipeline)
        self.point(task.alias, found.name)

    def _create(self, task: Task) -> Collection:
        params = qdrant.VectorParams(
            size=task.dimension, distance=qdrant.Distance.Value(DISTANCE), on_disk=self._config.on_disk
        )
        metadata = collection_metadata(task, self._pipeline)
        request = qdrant.CreateCollection(
            collection_name=task.collection,
            vectors_config=qdrant.VectorsConfig(params=params),
            shard_number=self._config.shard_number,
            replication_factor=self._config.replication_factor,
            metadata={name: _value(value) for name, value in metadata.items()},
        )
        doing = f"creating collection {task.collection!r}"
        try:
            self._connection.call(self._connection.collections.Create, request, doing)
        except RefractError:
            # Another ingestor may have been faster, or an answer was lost: what is there now decides.
            found = self.find(task.collection)
            if found is None:
                raise
            return found
        return self.get(task.collection)

    def _index(self, collection: Collection, task: Task) -> Collection:
        """Builds the indexes that are missing, and those whose field has another type now."""
        name = collection.name
        changed = changed_fields(task.payload, collection.indexed)
        for path in changed:
            dropping = qdrant.DeleteFieldIndexCollection(collection_name=name, wait=True, field_name=path)
            doing = f"dropping the index of payload field {path!r} of collection {name!r}"
            self._connection.call(self._connection.points.DeleteFieldIndex, dropping, doing)
        missing = {
            path: field
            for path, field in wanted_fields(task.payload).items()
            if path in changed or path not in collection.indexed
        }
        for path, field in missing.items():
            doing = f"indexing payload field {path!r} of collection {name!r}"
            self._connection.call(self._connection.points.CreateFieldIndex, index_request(name, path, field), doing)
        built = {path: index_of(field) for path, field in missing.items()}
        return replace(collection, indexed={**collection.indexed, **built})


def _check(found: Collection, task: Task, pipeline: str) -> None:
    for what, have, need in (
        ("dimension", found.dimension, task.dimension),
        ("distance", found.distance, DISTANCE),
    ):
        if have != need:
            raise EnvironmentFault(
                f"collection {found.name!r} was created with {what} {have!r}, task {task.name!r} needs {need!r}; "
                f"use another collection name, or drop the collection"
            )
    check_metadata(found.name, found.metadata, task, pipeline)


def _value(value: str | int | None) -> qdrant.Value:
    if value is None:
        return qdrant.Value(null_value=qdrant.NullValue.NULL_VALUE)
    return qdrant.Value(string_value=value) if isinstance(value, str) else qdrant.Value(integer_value=value)
