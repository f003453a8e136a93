"""Payload indexes on a server: built at opening, rebuilt for another type; and what strict mode leaves possible."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from qdrant_client import grpc as qdrant

from pipeline.binding import Task
from pipeline.config.payload_fields import PayloadField
from pipeline.errors import ConfigError, EnvironmentFault
from pipeline.filters import parse_filters
from pipeline.stores.qdrant import QdrantStore
from tests.contract.store_backends import (
    QdrantBackend,
    StrictQdrantBackend,
    delete,
    key_id,
    make_batch,
    put,
    stored,
    unit,
)


def schema(backend: QdrantBackend, task: Task) -> Mapping[str, Any]:
    request = qdrant.GetCollectionInfoRequest(collection_name=task.collection)
    found: Mapping[str, Any] = backend.collections().Get(request).result.payload_schema
    return found


def with_fields(task: Task, **fields: PayloadField) -> Task:
    return replace(task, payload=fields)


def test_every_field_gets_the_index_of_its_type(qdrant_backend: QdrantBackend) -> None:
    task = qdrant_backend.task()
    qdrant_backend.connect().open([task])
    found = schema(qdrant_backend, task)
    kinds = {path: qdrant.PayloadSchemaType.Name(info.data_type) for path, info in found.items()}
    assert kinds == {
        "_state": "Keyword",
        "team": "Keyword",
        '"customer.name"': "Keyword",
        "org": "Keyword",
        "number": "Uuid",
        "size": "Integer",
        "price": "Float",
        "open": "Bool",
        "created": "Datetime",
        "note": "Text",
        "tags": "Keyword",
    }
    assert found["org"].params.keyword_index_params.is_tenant
    assert found["price"].params.float_index_params.on_disk
    assert not found["team"].params.keyword_index_params.is_tenant


def test_missing_indexes_are_built_and_changed_ones_rebuilt_when_a_collection_is_opened(
    qdrant_backend: QdrantBackend,
) -> None:
    before = with_fields(qdrant_backend.task(), size=PayloadField(), team=PayloadField(type="keyword"))
    store = qdrant_backend.connect()
    store.open([before])
    store.upsert(make_batch([put("a", 1, size=1), put("b", 1, size=2)], before))
    team = PayloadField(type="keyword", tenant=True)
    after = with_fields(before, size=PayloadField(type="integer"), team=team, created=PayloadField(type="datetime"))
    notes = store.inspect([after])[after.name].notes
    assert [note.split(":")[0] for note in notes] == [
        "payload field 'size' has an index of kind keyword, its type is integer now",
        "payload field 'team' has an index of kind keyword, its type is keyword for tenants now",
    ]
    store.open([after])
    kinds = {
        path: qdrant.PayloadSchemaType.Name(info.data_type) for path, info in schema(qdrant_backend, after).items()
    }
    assert kinds == {"_state": "Keyword", "size": "Integer", "team": "Keyword", "created": "Datetime"}
    assert store.inspect([after])[after.name].notes == ()
    hits = store.search(after, unit(1.0), 5, parse_filters({"size": {"gte": 2}}, after.payload))
    assert [hit.id for hit in hits] == [key_id("b")]


def test_an_untyped_field_keeps_the_index_it_has(qdrant_backend: QdrantBackend) -> None:
    typed = with_fields(qdrant_backend.task(), size=PayloadField(type="integer"))
    store = qdrant_backend.connect()
    store.open([typed])
    untyped = with_fields(typed, size=PayloadField())
    assert store.inspect([untyped])[untyped.name].notes == ()
    store.open([untyped])
    assert qdrant.PayloadSchemaType.Name(schema(qdrant_backend, typed)["size"].data_type) == "Integer"


@pytest.mark.parametrize(
    ("filters", "way_out"),
    [
        ({"team": 1}, "payload: {team: integer}"),
        ({"team": True}, "payload: {team: bool}"),
        ({"team": [1, 2]}, "payload: {team: integer}"),
        ({"team": {"gt": 1}}, "payload: {team: integer}"),
        ({"team": {"text": "x"}}, "payload: {team: text}"),
        ({"unknown": "x"}, "payload: {unknown: keyword}"),
        ({"unknown": {"is_null": True}}, "payload: {unknown: keyword}"),
    ],
)
def test_strict_mode_refuses_what_has_no_index_and_the_message_says_which_type_to_give(
    strict_backend: StrictQdrantBackend, filters: Mapping[str, Any], way_out: str
) -> None:
    task, store = strict_backend.task(), strict_backend.connect()
    store.open([task])
    with pytest.raises(ConfigError, match="strict mode") as caught:
        store.search(task, unit(1.0), 5, parse_filters(filters, task.payload))
    assert way_out in str(caught.value)
    with pytest.raises(ConfigError, match="at most 100"):
        store.search(task, unit(1.0), 101, ())


def test_the_tests_server_refuses_what_a_server_in_strict_mode_refuses(strict_backend: StrictQdrantBackend) -> None:
    task, store = strict_backend.task(), strict_backend.connect()
    store.open([task])
    assert isinstance(store, QdrantStore)
    store.upsert(make_batch([delete("k", 1)], task))
    version = qdrant.Filter(
        must=[qdrant.Condition(field=qdrant.FieldCondition(key="_version", range=qdrant.Range(lte=1)))]
    )
    refused = {
        "Scroll": qdrant.ScrollPoints(collection_name=task.collection, filter=version),
        "Count": qdrant.CountPoints(collection_name=task.collection, exact=True),
        "Delete": qdrant.DeletePoints(
            collection_name=task.collection, points=qdrant.PointsSelector(filter=version), wait=True
        ),
    }
    for name, request in refused.items():
        with pytest.raises(EnvironmentFault, match="INVALID_ARGUMENT"):
            store._connection.call(getattr(store._connection.points, name), request, "trying")
    assert stored(store, task) == {key_id("k"): (1, True)}


def test_reads_and_writes_larger_than_strict_mode_allows_are_divided(strict_backend: StrictQdrantBackend) -> None:
    task, store = strict_backend.task(), strict_backend.connect()
    store.open([task])
    store.upsert(make_batch([put(key, 1) for key in range(650)] + [delete("gone", 1)], task))
    assert store.count(task.collection) == 650
    assert [point.id for point in store.scroll(task.collection, None, 1_000)] == sorted(
        [*(key_id(key) for key in range(650)), key_id("gone")]
    )
    assert len(store.scroll(task.collection, None, 250)) == 250


def test_a_marked_tombstone_is_still_one_and_is_purged_by_the_next_purge(qdrant_backend: QdrantBackend) -> None:
    """What a purge leaves that died between its two steps."""
    task, store = qdrant_backend.task(), qdrant_backend.connect()
    store.open([task])
    for key in ("marked", "revived"):
        qdrant_backend.put_raw(store, task.collection, key, {"_version": 5, "_state": "purged", "_key": f"s:{key}"})
    assert store.count(task.collection) == 0
    assert stored(store, task) == {key_id("marked"): (5, True), key_id("revived"): (5, True)}
    store.upsert(make_batch([put("marked", 4), put("revived", 6)], task))
    assert isinstance(store, QdrantStore)
    assert store.purge_tombstones(task.collection, {key_id("marked"): 5, key_id("revived"): 5}) == 1
    assert stored(store, task) == {key_id("revived"): (6, False)}
