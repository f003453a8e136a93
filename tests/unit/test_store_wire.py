"""The hand-written protobuf bytes say exactly what the stock client would have said."""

import string
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import grpc as qdrant
from qdrant_client import models
from qdrant_client.conversions.conversion import RestToGrpc

from pipeline.records.batches import PointBatch
from pipeline.records.record import MAX_VERSION, uuid_text
from pipeline.stores.points import checked
from pipeline.stores.wire import WireChunk, read_payload, read_vector, upsert_head

TEXT = st.text(st.characters(codec="utf-8"))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=12,
)
PAYLOADS = st.dictionaries(st.text(string.ascii_letters, min_size=1), JSON, max_size=6)


def batch_of(payloads: list[dict[str, Any]], *, dimension: int = 5, deleted: int = 1) -> PointBatch:
    """Returns one row per payload, the first `deleted` of them tombstones."""
    rng = np.random.default_rng(7)
    num = len(payloads)
    return PointBatch(
        rng.integers(0, 256, (num, 16), dtype=np.uint8),
        rng.integers(0, MAX_VERSION, num),
        np.arange(num) < deleted,
        [{**payload, "_deleted_at": 1_700_000_000_000} for payload in payloads[:deleted]] + payloads[deleted:],
        {"tickets": rng.standard_normal((num, dimension)).astype(np.float32)},
    )


def stock(batch: PointBatch, *, strong: bool) -> qdrant.UpsertPoints:
    """Builds the request by way of the stock client's models and conversions."""
    points, guards = [], []
    for row, key in enumerate(uuid_text(bytes(raw)) for raw in batch.ids):
        version, gone = int(batch.versions[row]), bool(batch.deleted[row])
        vector: Any = {} if gone else batch.vectors["tickets"][row].tolist()
        payload = {**batch.payloads[row], "_version": version, "_state": "deleted" if gone else "live"}
        points.append(RestToGrpc.convert_point_struct(models.PointStruct(id=key, vector=vector, payload=payload)))
        newer = models.FieldCondition(key="_version", range=models.Range(gte=version))
        guards.append(models.Filter(must=[models.HasIdCondition(has_id=[key])], must_not=[newer]))
    return qdrant.UpsertPoints(
        collection_name="tickets",
        wait=True,
        points=points,
        update_filter=RestToGrpc.convert_filter(models.Filter(should=list(guards))),
        ordering=qdrant.WriteOrdering(type=qdrant.WriteOrderingType.Strong) if strong else None,
    )


@settings(max_examples=60)
@given(st.lists(PAYLOADS, min_size=1, max_size=4), st.booleans())
def test_the_request_equals_the_stock_clients(payloads: list[dict[str, Any]], strong: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
    batch = batch_of(payloads)
    chunk = WireChunk(checked(batch), slice(0, len(batch)))
    raw = chunk.upsert(upsert_head("tickets", strong=strong), batch.vectors["tickets"])
    assert qdrant.UpsertPoints.FromString(raw) == stock(batch, strong=strong)


@pytest.mark.parametrize("dimension", [1, 31, 384, 4096, 70_000])
def test_lengths_of_every_size_are_encoded_as_the_protocol_wants(dimension: int) -> None:
    batch = batch_of([{"text": "x" * 300_000, "list": list(range(5_000))}, {}], dimension=dimension, deleted=0)
    raw = WireChunk(checked(batch), slice(0, 2)).upsert(upsert_head("tickets", strong=False), batch.vectors["tickets"])
    assert qdrant.UpsertPoints.FromString(raw) == stock(batch, strong=False)


def test_a_chunk_holds_its_own_rows_only() -> None:
    batch = batch_of([{"n": number} for number in range(10)])
    chunk = WireChunk(checked(batch), slice(4, 7))
    request = qdrant.UpsertPoints.FromString(
        chunk.upsert(upsert_head("tickets", strong=False), batch.vectors["tickets"][4:7])
    )
    assert [point.payload["n"].integer_value for point in request.points] == [4, 5, 6]
    assert len(request.update_filter.should) == 3


def test_vectors_of_another_layout_are_sent_row_by_row() -> None:
    batch = batch_of([{}, {}, {}], deleted=0)
    columns = np.asfortranarray(batch.vectors["tickets"].astype(">f4"))
    raw = WireChunk(checked(batch), slice(0, 3)).upsert(upsert_head("tickets", strong=False), columns)
    assert qdrant.UpsertPoints.FromString(raw) == stock(batch, strong=False)


def test_the_read_back_asks_for_the_versions_of_the_chunk() -> None:
    batch = batch_of([{}, {}, {}])
    request = qdrant.GetPoints.FromString(WireChunk(checked(batch), slice(1, 3)).readback("tickets"))
    assert [point.uuid for point in request.ids] == [uuid_text(bytes(raw)) for raw in batch.ids[1:3]]
    assert request.collection_name == "tickets"
    assert list(request.with_payload.include.fields) == ["_version"]


def test_newer_stored_points_are_counted_and_others_are_not() -> None:
    batch = batch_of([{}] * 6)
    batch.versions[:] = 10
    values: list[Any] = [
        qdrant.Value(integer_value=11),
        qdrant.Value(integer_value=10),
        qdrant.Value(integer_value=9),
        qdrant.Value(double_value=10.5),
        qdrant.Value(string_value="11"),
    ]
    ids = [qdrant.PointId(uuid=uuid_text(bytes(raw))) for raw in batch.ids]
    found = [qdrant.RetrievedPoint(id=key, payload={"_version": v}) for key, v in zip(ids, values, strict=False)]
    answer = qdrant.GetResponse(result=[*found, qdrant.RetrievedPoint(id=ids[5])])
    assert WireChunk(checked(batch), slice(0, 6)).num_newer(answer) == 2


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 2**63, -(2**63) - 1, "\ud800", object(), b"x", {"a": {1, 2}}]
)
def test_a_value_the_protocol_cannot_carry_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        WireChunk(checked(batch_of([{"field": value}])), slice(0, 1))


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"a": inner}], ids=["list", "object"])
def test_nesting_goes_as_deep_as_every_parser_follows(wrap: Callable[[Any], Any]) -> None:
    nested: Any = 1
    for _ in range(30):
        nested = wrap(nested)
    batch = batch_of([{"field": nested}], deleted=0)
    chunk = WireChunk(checked(batch), slice(0, 1))
    request = qdrant.UpsertPoints.FromString(
        chunk.upsert(upsert_head("tickets", strong=False), batch.vectors["tickets"])
    )
    assert read_payload(request.points[0].payload)["field"] == nested
    with pytest.raises(ValueError, match="too deep"):
        WireChunk(checked(batch_of([{"field": wrap(nested)}])), slice(0, 1))


def test_endless_nesting_is_refused_before_the_stack_ends() -> None:
    nested: list[Any] = []
    for _ in range(5_000):
        nested = [nested]
    with pytest.raises(ValueError, match="too deep"):
        WireChunk(checked(batch_of([{"field": nested}])), slice(0, 1))


@settings(max_examples=60)
@given(PAYLOADS)
def test_a_payload_reads_back_as_it_was(payload: dict[str, Any]) -> None:
    converted = RestToGrpc.convert_point_struct(models.PointStruct(id=1, vector=[1.0], payload=payload))
    assert read_payload(converted.payload) == payload


def test_a_vector_reads_back_in_either_form_and_a_tombstone_as_none() -> None:
    dense = qdrant.VectorsOutput(vector=qdrant.VectorOutput(dense=qdrant.DenseVector(data=[1, 2])))
    older = qdrant.VectorsOutput(vector=qdrant.VectorOutput(data=[1, 2]))
    for vectors in (dense, older):
        found = read_vector(vectors)
        assert found is not None
        assert found.dtype == np.float32
        assert found.tolist() == [1.0, 2.0]
    assert read_vector(qdrant.VectorsOutput(vectors=qdrant.NamedVectorsOutput())) is None
    assert read_vector(qdrant.VectorsOutput(vector=qdrant.VectorOutput())) is None


@given(st.uuids())
def test_an_id_is_written_as_uuid_writes_it(point: uuid.UUID) -> None:
    assert uuid_text(point.bytes) == str(point)
