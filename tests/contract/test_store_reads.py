"""The contract of `pipeline.interfaces.Store`: searching, filtering, retrieving, scrolling."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from pipeline.binding import Task
from pipeline.filters import parse_filters
from tests.contract.store_backends import AnyStore, Row, delete, key_id, make_batch, put, unit


def test_search_returns_the_nearest_first_with_cosine_scores(store: AnyStore, task: Task) -> None:
    angles = {"near": 0.1, "far": 1.2, "middle": 0.6}
    rows: list[Row] = [(key, 1, unit(np.cos(angle), np.sin(angle)), {"n": key}) for key, angle in angles.items()]
    store.upsert(make_batch(rows, task))
    hits = store.search(task, unit(1.0), 2, ())
    assert [hit.payload["n"] for hit in hits] == ["near", "middle"]
    assert np.allclose([hit.score for hit in hits], np.cos([0.1, 0.6]), atol=1e-5)


def test_payloads_come_back_as_they_were_given(store: AnyStore, task: Task) -> None:
    payload = {
        "text": "grüße 👋\x00",
        "whole": -(2**63),
        "large": 2**63 - 1,
        "half": 0.5,
        "yes": True,
        "no": False,
        "nothing": None,
        "list": [1, "a", None, [True]],
        "nested": {"a": {"b": []}, "": {}},
    }
    store.upsert(make_batch([put("k", 1, **payload)], task))
    (point,) = store.retrieve(task.collection, [key_id("k")])
    assert dict(point.payload) == {"_key": "s:k", **payload}


def test_retrieve_returns_what_exists_and_vectors_on_demand(store: AnyStore, task: Task) -> None:
    store.upsert(make_batch([put("a", 1), delete("b", 2)], task))
    points = store.retrieve(task.collection, [key_id(key) for key in "abc"])
    assert {point.id: point.vector for point in points} == {key_id("a"): None, key_id("b"): None}
    assert store.retrieve(task.collection, []) == []


@pytest.mark.parametrize("page", [1, 7, 50, 1_000])
def test_scrolling_by_pages_sees_every_point_once_in_order_of_ids(store: AnyStore, task: Task, page: int) -> None:
    store.upsert(make_batch([put(key, 1) if key % 3 else delete(key, 1) for key in range(50)], task))
    seen: list[bytes] = []
    while points := store.scroll(task.collection, seen[-1] if seen else None, page):
        assert len(points) <= page
        seen.extend(point.id for point in points)
    assert seen == sorted(key_id(key) for key in range(50))


def test_scrolling_starts_above_an_id_that_is_not_stored(store: AnyStore, task: Task) -> None:
    store.upsert(make_batch([put(key, 1) for key in range(20)], task))
    ids = sorted(key_id(key) for key in range(20))
    between = ids[9][:15] + bytes([ids[9][15] ^ 1 | 1])
    above = [point.id for point in store.scroll(task.collection, between, 100)]
    assert above == [point for point in ids if point > between]


FILTERED: Mapping[str, Mapping[str, Any]] = {
    "a": {
        "org": "o1",
        "price": 1.5,
        "created": "2026-01-31T07:00:00Z",
        "note": "The login fails again",
        "tags": ["x", "y"],
    },
    "b": {
        "org": "o1",
        "number": "6f7a1c9e-2f0b-5a43-9a55-7be6a2f5c0de",
        "price": 2.0,
        "created": "2026-01-31T08:00:00+01:00",
        "note": "Payment fails",
        "tags": ["y"],
    },
    "c": {"org": "o2", "created": "2026-02-01", "tags": ["z"]},
}
"""What filters on typed fields find, as a decoder stores it."""


@pytest.mark.parametrize(
    ("filters", "keys"),
    [
        ({"team": "red"}, "ab"),
        ({"team": ["red", "blue"]}, "abc"),
        ({"size": 2}, "b"),
        ({"size": [1, 3]}, "ac"),
        ({"size": {"gte": 2}}, "bc"),
        ({"size": {"gt": 1, "lt": 3}}, "b"),
        ({"size": {"lte": 1.5}}, "a"),
        ({"open": True}, "ac"),
        ({"open": False}, "b"),
        ({"customer.name": "x"}, "c"),
        ({"team": "red", "open": True}, "a"),
        ({"team": "green"}, ""),
        ({"org": "x"}, ""),
        ({"org": "o1"}, "ab"),
        ({"number": "6F7A1C9E2F0B5A439A557BE6A2F5C0DE"}, "b"),
        ({"price": 1.5}, "a"),
        ({"price": {"gte": 1.5}}, "ab"),
        ({"tags": "y"}, "ab"),
        ({"tags": ["x", "z"]}, "ac"),
        ({"created": "2026-01-31T07:00:00Z"}, "ab"),
        ({"created": {"gt": "2026-01-31T08:00:00+01:00"}}, "c"),
        ({"created": {"gte": "2026-01-31", "lt": "2026-02-01"}}, "ab"),
        ({"note": {"text": "login FAILS"}}, "a"),
        ({"note": {"text": "fails"}}, "ab"),
        ({"note": {"is_null": True}}, "cd"),
        ({"note": {"is_null": False}}, "ab"),
        ({"team": {"is_null": True}}, "d"),
        ({"tags": {"is_null": True}}, "d"),
        ({"team": "red", "size": {"gt": 1}, "open": False}, "b"),
    ],
)
def test_filters_keep_the_points_that_meet_all_of_them(
    store: AnyStore, task: Task, filters: Mapping[str, Any], keys: str
) -> None:
    rows = [
        put("a", 1, team="red", size=1, open=True, **FILTERED["a"]),
        put("b", 1, team="red", size=2, open=False, **FILTERED["b"]),
        put("c", 1, **{"team": "blue", "size": 3, "open": True, "customer.name": "x"}, **FILTERED["c"]),
        put("d", 1, note=None, tags=[]),
    ]
    store.upsert(make_batch(rows, task))
    assert {hit.id for hit in store.search(task, unit(1.0), 10, parse_filters(filters, task.payload))} == {
        key_id(key) for key in keys
    }
