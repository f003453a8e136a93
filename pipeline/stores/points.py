"""What all stores share: the system fields of a payload, ids as bytes, and which points may be sent at all."""

import time
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt

from pipeline.errors import BatchShapeError, EnvironmentFault, Reason, RecordError
from pipeline.interfaces import StoredPoint
from pipeline.records.batches import Float32, PointBatch
from pipeline.records.record import MAX_VERSION

VERSION_FIELD = "_version"
"""Payload field the guard compares. Not indexed: an index makes the guard slower (measured on Qdrant 1.19)."""

STATE_FIELD = "_state"
"""Payload field with LIVE or DELETED. A string: Edge 0.9 turns a bool in a match into an integer."""

DELETED_AT_FIELD = "_deleted_at"
"""Payload field of a tombstone: Unix milliseconds of when it was written, by the writer's clock. A purge goes by it."""

LIVE = "live"
DELETED = "deleted"
PURGED = "purged"
"""A tombstone that is about to be removed: between being marked so and the removal it is still a tombstone."""

DEAD = (DELETED, PURGED)
"""States that searches do not see."""

UNVERSIONED = -1
"""Version of a stored point that has no integer in VERSION_FIELD: older than every record."""

_SHOWN = frozenset({VERSION_FIELD, STATE_FIELD, DELETED_AT_FIELD})
"""Payload fields that a `StoredPoint` has as attributes."""

MAX_NAMED_ROWS = 5
"""Row numbers an error message names before it stops counting."""


def check_widths(batch: PointBatch, dimensions: Mapping[str, int]) -> None:
    """Raises EnvironmentFault for vectors of another width than their collection's, given by collection."""
    for collection, vectors in batch.vectors.items():
        expected, found = dimensions[collection], vectors.shape[-1]
        if found != expected:
            raise EnvironmentFault(f"collection {collection!r} holds vectors of {expected} values, got {found}")


def checked(batch: PointBatch) -> PointBatch:
    """Returns the newest row of each id, after checking what no store can be trusted to refuse.

    Qdrant accepts NaN, infinity and zero vectors silently, and among points of one id it keeps the
    last in the list, not the newest. Rows that are left out lost against a newer version.

    Raises:
        EnvironmentFault: vectors of another shape than (n, dimension): no single record is to blame.
        RecordError, BatchShapeError: rows that can never be stored; for one point, and for several.
    """
    newest = newest_rows(batch)
    if len(newest) < len(batch):
        batch = batch.take(newest)
    _check_versions(batch)
    for collection, vectors in batch.vectors.items():
        _check_vectors(batch, collection, vectors)
    return batch


def stored_payloads(batch: PointBatch, rows: slice) -> list[dict[str, Any]]:
    """Returns the payloads of some rows as they are stored: with VERSION_FIELD and STATE_FIELD.

    A tombstone has DELETED_AT_FIELD, too: now, unless its payload says when.
    """
    now_ms = round(time.time() * 1000)
    return [
        {DELETED_AT_FIELD: now_ms, **payload, VERSION_FIELD: version, STATE_FIELD: DELETED}
        if gone
        else {**payload, VERSION_FIELD: version, STATE_FIELD: LIVE}
        for payload, version, gone in zip(
            batch.payloads[rows], batch.versions[rows].tolist(), batch.deleted[rows].tolist(), strict=True
        )
    ]


def newest_rows(batch: PointBatch) -> npt.NDArray[np.intp]:
    """Returns the rows that hold the newest version of their id, ascending; of equal versions the first."""
    ids = ids_of(batch.ids)
    if len(set(ids)) == len(ids):
        return np.arange(len(ids), dtype=np.intp)
    newest: dict[bytes, int] = {}
    for row, key in enumerate(ids):
        best = newest.setdefault(key, row)
        if batch.versions[row] > batch.versions[best]:
            newest[key] = row
    return np.array(sorted(newest.values()), dtype=np.intp)


def ids_of(ids: npt.NDArray[np.uint8]) -> list[bytes]:
    """Returns the rows of an (n, 16) array as bytes."""
    raw = np.ascontiguousarray(ids).tobytes()
    return [raw[start : start + 16] for start in range(0, len(raw), 16)]


def id_bytes(point: object) -> bytes:
    """Returns the 16 bytes of an id as a store returned it: a UUID, its text, or an integer (not written by us)."""
    if isinstance(point, UUID):
        return point.bytes
    if isinstance(point, int):
        return point.to_bytes(16, "big")
    return UUID(str(point)).bytes


def stored_version(payload: Mapping[str, Any]) -> float:
    """Returns the version in a stored payload as the guard compares it: UNVERSIONED where it is not a number.

    A float only where somebody else wrote the point.
    """
    version = payload.get(VERSION_FIELD)
    return UNVERSIONED if isinstance(version, bool) or not isinstance(version, (int, float)) else version


def stored_point(
    point: object, payload: Mapping[str, Any], vector: Float32 | None = None, score: float = 0.0
) -> StoredPoint:
    """Returns a point as read back; its payload keeps `_key` and loses the fields that the point itself shows."""
    deleted = payload.get(STATE_FIELD) in DEAD
    deleted_ms = payload.get(DELETED_AT_FIELD)
    return StoredPoint(
        id_bytes(point),
        int(stored_version(payload)),
        deleted,
        {name: value for name, value in payload.items() if name not in _SHOWN},
        vector,
        score,
        deleted_ms if deleted and type(deleted_ms) is int else None,
    )


def check_query(collection: str, dimension: int, vector: Float32) -> None:
    """Raises EnvironmentFault for a query of another width, RecordError for a vector without a direction."""
    if vector.shape != (dimension,):
        raise EnvironmentFault(
            f"collection {collection!r} holds vectors of {dimension} values, the query has shape {vector.shape}"
        )
    if not _has_direction(vector[None])[0]:
        raise RecordError(Reason.INVALID_EMBEDDING, "the query vector is zero or not finite")


def refused(num_points: int, reason: Reason, detail: str) -> RecordError | BatchShapeError:
    """Returns the error for points a store can never take: final for one point, a reason to halve several."""
    if num_points == 1:
        return RecordError(reason, detail)
    return BatchShapeError(f"{reason}: {detail}")


def _check_versions(batch: PointBatch) -> None:
    bad = (batch.versions < 0) | (batch.versions > MAX_VERSION)
    if bad.any():
        raise refused(len(batch), Reason.INVALID_VERSION, f"outside 0 to 2^53 - 1 {_rows(bad)}")


def _check_vectors(batch: PointBatch, collection: str, vectors: Float32) -> None:
    if vectors.ndim != 2 or vectors.shape[0] != len(batch):  # noqa: PLR2004 - rows and columns
        raise EnvironmentFault(
            f"collection {collection!r}: {len(batch)} points came with vectors of shape {vectors.shape}"
        )
    bad = ~(_has_direction(vectors) | batch.deleted)
    if bad.any():
        raise refused(
            len(batch), Reason.INVALID_EMBEDDING, f"zero or not finite in collection {collection!r} {_rows(bad)}"
        )


def _has_direction(vectors: Float32) -> npt.NDArray[np.bool_]:
    """Returns per row whether its squared length is a positive finite number: one pass finds NaN, inf and zero."""
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", vectors, vectors)
    sound: npt.NDArray[np.bool_] = np.isfinite(squares) & (squares > 0)
    return sound


def _rows(bad: npt.NDArray[np.bool_]) -> str:
    rows: Sequence[int] = np.flatnonzero(bad).tolist()
    more = " and more" if len(rows) > MAX_NAMED_ROWS else ""
    return f"at rows {', '.join(map(str, rows[:MAX_NAMED_ROWS]))}{more} of {len(bad)}"
