"""Payload indexes of a collection on a Qdrant server, and what its strict mode asks of requests.

Strict mode: qdrant 1.19, `lib/collection/src/operations/verification`. An update filter is not verified.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from qdrant_client import grpc as qdrant

from pipeline.config.payload_fields import PayloadField, PayloadKind
from pipeline.filters import payload_path
from pipeline.stores.points import STATE_FIELD

_PARAMS: Mapping[PayloadKind, tuple[str, Any]] = {
    "keyword": ("keyword_index_params", qdrant.KeywordIndexParams),
    "uuid": ("uuid_index_params", qdrant.UuidIndexParams),
    "integer": ("integer_index_params", qdrant.IntegerIndexParams),
    "float": ("float_index_params", qdrant.FloatIndexParams),
    "bool": ("bool_index_params", qdrant.BoolIndexParams),
    "datetime": ("datetime_index_params", qdrant.DatetimeIndexParams),
    "text": ("text_index_params", qdrant.TextIndexParams),
}


@dataclass(frozen=True, slots=True)
class StrictMode:
    """What a collection's strict mode asks; as built, nothing."""

    needs_index: bool = False
    """Filters of reads need an index of the right kind."""
    allows_exact: bool = True
    """Counts may be exact."""
    max_limit: int | None = None
    """Most points of one read."""
    max_upsert: int | None = None
    """Most points of one write."""

    @classmethod
    def of(cls, config: qdrant.CollectionConfig) -> Self:
        """Returns what the server says of a collection."""
        strict = config.strict_mode_config
        if not strict.enabled:
            return cls()
        return cls(
            needs_index=strict.HasField("unindexed_filtering_retrieve") and not strict.unindexed_filtering_retrieve,
            allows_exact=not strict.HasField("search_allow_exact") or strict.search_allow_exact,
            max_limit=strict.max_query_limit if strict.HasField("max_query_limit") else None,
            max_upsert=strict.upsert_max_batchsize if strict.HasField("upsert_max_batchsize") else None,
        )


@dataclass(frozen=True, slots=True)
class Index:
    """An index as it is, or as it should be."""

    kind: str
    """A `PayloadKind`, or another of the server's."""
    tenant: bool = False

    @classmethod
    def of(cls, info: qdrant.PayloadSchemaInfo) -> Self:
        """Returns an index as the server shows it."""
        params = info.params.WhichOneof("index_params")
        tenant = getattr(getattr(info.params, params), "is_tenant", False) if params else False
        return cls(qdrant.PayloadSchemaType.Name(info.data_type).lower(), bool(tenant))

    def __str__(self) -> str:
        return f"{self.kind}{' for tenants' if self.tenant else ''}"


def wanted_fields(payload: Mapping[str, PayloadField]) -> dict[str, PayloadField]:
    """Returns what a task's collection has indexes for, by path: the stored fields, and the state of points."""
    state = PayloadField(type="keyword")
    return {STATE_FIELD: state, **{payload_path(name): field for name, field in payload.items()}}


def changed_fields(payload: Mapping[str, PayloadField], indexed: Mapping[str, Index]) -> dict[str, tuple[Index, Index]]:
    """Returns, by path, the index that is there and the one that the field's type needs, where they differ.

    An untyped field keeps whatever index it has.
    """
    wanted = {path: index_of(field) for path, field in wanted_fields(payload).items() if field.kind is not None}
    return {path: (indexed[path], index) for path, index in wanted.items() if indexed.get(path, index) != index}


def index_of(field: PayloadField) -> Index:
    """Returns the index of a field. An untyped one gets that of keywords: it is matched as text."""
    return Index(field.kind or "keyword", field.tenant)


def index_request(collection: str, path: str, field: PayloadField) -> qdrant.CreateFieldIndexCollection:
    """Returns the request that builds a field's index."""
    kind = field.kind or "keyword"
    settings: dict[str, Any] = {"is_tenant": True} if field.tenant else {}
    if field.on_disk:
        settings["on_disk"] = True
    if settings and kind == "text":
        settings["tokenizer"] = qdrant.TokenizerType.Word  # the server's own default, which has to be said here
    name, params = _PARAMS[kind]
    return qdrant.CreateFieldIndexCollection(
        collection_name=collection,
        wait=True,
        field_name=path,
        field_type=qdrant.FieldType.Value(f"FieldType{kind.capitalize()}"),
        field_index_params=qdrant.PayloadIndexParams(**{name: params(**settings)}) if settings else None,
    )
