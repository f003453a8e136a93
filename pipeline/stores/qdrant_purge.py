"""Removes tombstones from a Qdrant server, also one in strict mode, which refuses a filter on versions.

A tombstone is first marked by a guarded write, which compares versions and is exempt from strict mode, and then
deleted by its mark. What is revived or deleted again in between loses the mark, and stays.
"""

from collections.abc import Mapping

from qdrant_client import grpc as qdrant

from pipeline.stores import qdrant_filters
from pipeline.stores.points import DEAD, PURGED, STATE_FIELD, VERSION_FIELD
from pipeline.stores.qdrant_rpc import QdrantConnection, check_completed

_TOMBSTONE = qdrant.Vectors(vectors=qdrant.NamedVectors())
_PURGED = qdrant.Value(string_value=PURGED)


def purge(
    connection: QdrantConnection, name: str, versions: Mapping[str, int], ordering: qdrant.WriteOrdering | None
) -> int:
    """Removes the tombstones of a collection that are no newer than the given versions, by id; returns how many.

    Repeating it after a failure is safe: a marked tombstone is still one.
    """
    doing = f"purging collection {name!r}"
    found = {
        text: payload
        for text, payload in _read(connection, name, versions, doing).items()
        if payload[STATE_FIELD].string_value in DEAD and _is_old(payload[VERSION_FIELD], versions[text])
    }
    if not found:
        return 0
    marking = qdrant.UpsertPoints(
        collection_name=name,
        wait=True,
        points=[
            qdrant.PointStruct(
                id=qdrant.PointId(uuid=text), vectors=_TOMBSTONE, payload={**payload, STATE_FIELD: _PURGED}
            )
            for text, payload in found.items()
        ],
        ordering=ordering,
        update_filter=qdrant_filters.not_newer_tombstones(
            (text, payload[VERSION_FIELD].integer_value) for text, payload in found.items()
        ),
    )
    check_completed(connection.call(connection.points.Upsert, marking, doing), doing)
    deleting = qdrant.DeletePoints(
        collection_name=name,
        wait=True,
        points=qdrant.PointsSelector(filter=qdrant_filters.purged(list(found))),
        ordering=ordering,
    )
    check_completed(connection.call(connection.points.Delete, deleting, doing), doing)
    return len(found) - len(_read(connection, name, found, doing))


def _read(
    connection: QdrantConnection, name: str, texts: Mapping[str, object], doing: str
) -> dict[str, dict[str, qdrant.Value]]:
    request = qdrant.GetPoints(
        collection_name=name,
        ids=[qdrant.PointId(uuid=text) for text in texts],
        with_payload=qdrant.WithPayloadSelector(enable=True),
    )
    answer = connection.call(connection.points.Get, request, doing)
    absent = {STATE_FIELD: qdrant.Value(), VERSION_FIELD: qdrant.Value()}
    return {point.id.uuid: {**absent, **point.payload} for point in answer.result}


def _is_old(version: qdrant.Value, newest: int) -> bool:
    return bool(version.HasField("integer_value") and version.integer_value <= newest)
