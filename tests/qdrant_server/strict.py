"""Strict mode as a Qdrant server applies it to the requests a pipeline sends.

Written after qdrant 1.19: which filter needs which index is in `lib/collection/src/problems/unindexed_field.rs`
(`infer_index_from_field_condition`, `schema_capabilities`), which request is verified how in
`lib/collection/src/operations/verification` (`mod.rs`, `count.rs`, `query.rs`, `local_shard.rs`, `update.rs`). The
filter of a guarded upsert is not verified there, so it is not here.
"""

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

from qdrant_client import grpc as qdrant

from tests.qdrant_server.convert import WrongInputError

ANY = ("Bool", "Datetime", "Float", "Integer", "Keyword", "Text", "Uuid")


def verify_read(settings: Mapping[str, Any], request: Any) -> None:
    """Raises WrongInputError for a Scroll, Count, Query or Search that the collection's strict mode refuses."""
    strict = _strict(settings)
    if strict is None:
        return
    if isinstance(request, qdrant.CountPoints):
        _check(not request.exact or _allows(strict, "search_allow_exact"), "Exact search disabled!", "Set exact=false.")
    else:
        limit = request.limit or 10
        most = strict.max_query_limit if strict.HasField("max_query_limit") else limit
        _check(
            limit <= most,
            f'Limit exceeded {limit} > {most} for "limit"',
            f'Reduce the "limit" parameter to or below {most}.',
        )
    if request.HasField("filter") and not _allows(strict, "unindexed_filtering_retrieve"):
        _check_filter(request.filter, settings["indexes"])


def verify_delete(settings: Mapping[str, Any], request: qdrant.DeletePoints) -> None:
    """Raises WrongInputError for a deletion by a filter without its indexes."""
    strict = _strict(settings)
    by_filter = request.points.WhichOneof("points_selector_one_of") == "filter"
    if strict is not None and by_filter and not _allows(strict, "unindexed_filtering_update"):
        _check_filter(request.points.filter, settings["indexes"])


def verify_upsert(settings: Mapping[str, Any], request: qdrant.UpsertPoints) -> None:
    """Raises WrongInputError for too many points at once."""
    strict = _strict(settings)
    if strict is not None and strict.HasField("upsert_max_batchsize"):
        num, most = len(request.points), strict.upsert_max_batchsize
        _check(
            num <= most,
            f'Limit exceeded {num} > {most} for "upsert limit"',
            f'Reduce the "upsert limit" parameter to or below {most}.',
        )


def _strict(settings: Mapping[str, Any]) -> qdrant.StrictModeConfig | None:
    strict = qdrant.StrictModeConfig(**settings.get("strict", {}))
    return strict if strict.enabled else None


def _allows(strict: Any, name: str) -> bool:
    return not strict.HasField(name) or bool(getattr(strict, name))


def _check(fits: bool, wrong: str, way_out: str) -> None:  # noqa: FBT001 - a condition
    if not fits:
        raise WrongInputError(f"{wrong} Help: {way_out}")


def _check_filter(found: qdrant.Filter, indexes: Mapping[str, str]) -> None:
    for path, kinds in _needed(found):
        have = indexes.get(path, "").removeprefix("FieldType")
        if kinds and have not in kinds:
            raise WrongInputError(
                f'Index required but not found for "{path}" of one of the following types: '
                f"[{', '.join(sorted(kind.lower() for kind in kinds))}]. Help: Create an index for this key or use a "
                f"different filter."
            )


def _needed(found: qdrant.Filter) -> Iterator[tuple[str, tuple[str, ...]]]:
    for condition in (*found.must, *found.should, *found.must_not):
        kind = condition.WhichOneof("condition_one_of")
        if kind == "filter":
            yield from _needed(condition.filter)
        elif kind == "field":
            yield condition.field.key, _kinds(condition.field)
        elif kind in {"is_empty", "is_null"}:
            yield getattr(condition, kind).key, ANY


def _kinds(condition: qdrant.FieldCondition) -> tuple[str, ...]:
    if condition.HasField("datetime_range"):
        return ("Datetime",)
    if condition.HasField("range"):
        return ("Float", "Integer")
    kind = condition.match.WhichOneof("match_value")
    if kind in {"keyword", "keywords"}:
        texts = [condition.match.keyword] if kind == "keyword" else list(condition.match.keywords.strings)
        return ("Keyword", "Uuid") if all(map(_is_uuid, texts)) else ("Keyword",)
    return {"integer": ("Integer",), "integers": ("Integer",), "boolean": ("Bool",), "text": ("Text",)}[str(kind)]


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
