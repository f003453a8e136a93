"""The protocol's messages as Edge's objects, and back. Written apart from the product's own encoders."""

from collections.abc import Mapping
from datetime import UTC
from typing import Any
from uuid import UUID

import numpy as np
import qdrant_edge as edge
from qdrant_client import grpc as qdrant

MODES = {
    qdrant.UpdateMode.Upsert: edge.UpdateMode.Upsert,
    qdrant.UpdateMode.InsertOnly: edge.UpdateMode.InsertOnly,
    qdrant.UpdateMode.UpdateOnly: edge.UpdateMode.UpdateOnly,
}


_SCALARS = {bool: "bool_value", int: "integer_value", float: "double_value", str: "string_value"}


class WrongInputError(Exception):
    """The request makes no sense to a Qdrant server."""


def value(message: qdrant.Value) -> Any:
    kind = message.WhichOneof("kind")
    if kind is None or kind == "null_value":
        return None
    if kind == "struct_value":
        return payload(message.struct_value.fields)
    if kind == "list_value":
        return [value(item) for item in message.list_value.values]
    return getattr(message, kind)


def payload(fields: Mapping[str, qdrant.Value]) -> dict[str, Any]:
    return {name: value(message) for name, message in fields.items()}


def to_value(content: Any) -> qdrant.Value:
    if content is None:
        return qdrant.Value(null_value=qdrant.NullValue.NULL_VALUE)
    if isinstance(content, dict):
        return qdrant.Value(struct_value=qdrant.Struct(fields=to_payload(content)))
    if isinstance(content, list):
        return qdrant.Value(list_value=qdrant.ListValue(values=[to_value(item) for item in content]))
    return qdrant.Value(**{_SCALARS[type(content)]: content})


def to_payload(content: Mapping[str, Any]) -> dict[str, qdrant.Value]:
    return {name: to_value(item) for name, item in content.items()}


def point_id(message: qdrant.PointId) -> int | UUID:
    if message.WhichOneof("point_id_options") == "num":
        return message.num
    try:
        return UUID(message.uuid)
    except ValueError as error:
        raise WrongInputError(f"Unable to parse UUID: {message.uuid}") from error


def to_point_id(found: int | UUID | str) -> qdrant.PointId:
    return qdrant.PointId(num=found) if isinstance(found, int) else qdrant.PointId(uuid=str(found))


def point(message: qdrant.PointStruct) -> edge.Point:
    options = message.vectors.WhichOneof("vectors_options")
    if options is None:
        raise WrongInputError("Expected some vectors")
    vector: Any
    if options == "vector":
        dense = message.vectors.vector
        vector = list(dense.dense.data) if dense.WhichOneof("vector") == "dense" else list(dense.data)
    else:
        if message.vectors.vectors.vectors:
            raise WrongInputError("Not existing vector name error")
        vector = {}
    return edge.Point(point_id(message.id), vector, payload(message.payload))


def filter_of(message: qdrant.Filter) -> edge.Filter:
    return edge.Filter(
        must=[_condition(condition) for condition in message.must],
        should=[_condition(condition) for condition in message.should],
        must_not=[_condition(condition) for condition in message.must_not],
    )


def _condition(message: qdrant.Condition) -> Any:
    kind = message.WhichOneof("condition_one_of")
    if kind == "filter":
        return filter_of(message.filter)
    if kind == "has_id":
        return edge.HasIdCondition({point_id(found) for found in message.has_id.has_id})
    if kind == "has_vector":
        return edge.HasVectorCondition(message.has_vector.has_vector)
    if kind == "is_empty":
        return edge.IsEmptyCondition(message.is_empty.key)
    if kind == "is_null":
        return edge.IsNullCondition(message.is_null.key)
    if kind == "field":
        return _field(message.field)
    raise WrongInputError(f"condition {kind} is not known to the tests' server")


def given(message: Any) -> dict[str, Any]:
    """Returns the scalar fields that a message has."""
    return {field.name: value for field, value in message.ListFields() if field.message_type is None}


def _field(message: qdrant.FieldCondition) -> edge.FieldCondition:
    if message.HasField("datetime_range"):
        times = {
            name: getattr(message.datetime_range, name).ToDatetime(UTC).isoformat()
            for name in ("lt", "gt", "gte", "lte")
            if message.datetime_range.HasField(name)
        }
        return edge.FieldCondition(message.key, range=edge.RangeDateTime(**times))
    if message.HasField("range"):
        bounds = {
            name: getattr(message.range, name) for name in ("lt", "gt", "gte", "lte") if message.range.HasField(name)
        }
        return edge.FieldCondition(message.key, range=edge.RangeFloat(**bounds))
    kind = message.match.WhichOneof("match_value")
    match: Any
    if kind in {"keyword", "integer"}:
        match = edge.MatchValue(getattr(message.match, kind))
    elif kind == "boolean":
        flag: Any = np.bool_(message.match.boolean)
        match = edge.MatchValue(flag)
    elif kind == "text":
        match = edge.MatchText(message.match.text)
    elif kind == "keywords":
        match = edge.MatchAny(list(message.match.keywords.strings))
    elif kind == "integers":
        match = edge.MatchAny(list(message.match.integers.integers))
    else:
        raise WrongInputError(f"match {kind} is not known to the tests' server")
    return edge.FieldCondition(message.key, match=match)


def with_payload(message: qdrant.WithPayloadSelector) -> Any:
    kind = message.WhichOneof("selector_options")
    if kind == "include":
        return edge.PayloadSelector.Include(list(message.include.fields))
    if kind == "exclude":
        return edge.PayloadSelector.Exclude(list(message.exclude.fields))
    return message.enable if kind == "enable" else False


def to_vectors(found: Any) -> qdrant.VectorsOutput | None:
    """Returns the vectors as the server shows them: an empty map of names for a tombstone."""
    if found is None:
        return None
    if isinstance(found, dict):
        return qdrant.VectorsOutput(vectors=qdrant.NamedVectorsOutput())
    return qdrant.VectorsOutput(vector=qdrant.VectorOutput(dense=qdrant.DenseVector(data=found)))
