"""Queries: the task's own prompt, and refusals that say why."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.interfaces import StoredPoint
from pipeline.records.batches import Embeddings, PointBatch, Priority, TokenBatch
from pipeline.records.record import point_id
from pipeline.searcher import QueryError, Searcher
from tests.config_trees import parsed
from tests.fakes import FakeEmbedder, FakeStore, FakeTokenizer, task, vector

SYMMETRIC, RETRIEVAL = task("urgency"), task("answers", mode="retrieval")


@pytest.fixture
def embedder() -> FakeEmbedder:
    return FakeEmbedder()


@pytest.fixture
def store() -> FakeStore:
    store = FakeStore()
    texts = ["no heating", "no light", "no lift"]
    store.upsert(
        PointBatch(
            ids=np.frombuffer(b"".join(point_id("support", "tickets", f"s:{key}") for key in "abc"), np.uint8).reshape(
                -1, 16
            ),
            versions=np.arange(1, 4, dtype=np.int64),
            deleted=np.array([False, False, True]),
            payloads=[{"_key": f"s:{key}"} for key in "abc"],
            vectors={
                wanted.collection: np.stack([vector(wanted.name, text) for text in texts])
                for wanted in (SYMMETRIC, RETRIEVAL)
            },
        )
    )
    return store


@pytest.fixture
def searcher(embedder: FakeEmbedder, store: FakeStore) -> Searcher:
    return make(embedder, store)


def make(embedder: FakeEmbedder, store: FakeStore, **topic: Any) -> Searcher:
    """A searcher of two tasks of one topic."""
    tasks = {"urgency": SYMMETRIC, "answers": RETRIEVAL}
    settings = {"key": "id", "text": "{body}", "payload": ["product"], "tasks": list(tasks), **topic}
    config = parsed(
        pipeline="support",
        source__topics={"tickets": settings},
        tasks={name: {"model": "null", "instruction": name} for name in tasks},
        api__max_query_bytes=100,
    )
    bound = {name: replace(task, payload=config.payload_of(name)) for name, task in tasks.items()}
    return Searcher(config, bound, {"m": FakeTokenizer()}, embedder, store)


def test_symmetric_task_asks_the_same_of_queries_as_of_records(searcher: Searcher, embedder: FakeEmbedder) -> None:
    hits = searcher.by_text("urgency", "no heating", 1, {})
    assert hits[0].score == pytest.approx(1.0)
    ((_, batch, priority),) = embedder.calls
    assert (batch.prompts, priority) == (("urgency",), Priority.QUERY)


def test_retrieval_task_uses_its_query_side(searcher: Searcher, embedder: FakeEmbedder) -> None:
    searcher.by_text("answers", "no heating", 1, {})
    assert embedder.calls[0][1].prompts == ("answers:query",)


def test_neighbours_of_a_record_leave_the_record_out(searcher: Searcher) -> None:
    hits = searcher.by_key("urgency", "a", 5, {})
    assert len(hits) == 1


@pytest.mark.parametrize("key", ["c", "unknown", 1])
def test_neighbours_of_a_deleted_or_unknown_record_are_refused(searcher: Searcher, key: str | int) -> None:
    with pytest.raises(QueryError) as refused:
        searcher.by_key("urgency", key, 5, {})
    assert refused.value.code == "unknown_record"


@pytest.mark.parametrize(
    ("text", "code"),
    [("", "empty_text"), (" \n\t", "empty_text"), ("x" * 101, "text_too_large"), ("a\ud800", "invalid_text")],
)
def test_bad_text_is_refused_with_its_reason(searcher: Searcher, text: str, code: str) -> None:
    with pytest.raises(QueryError) as refused:
        searcher.by_text("urgency", text, 5, {})
    assert refused.value.code == code


def test_unknown_task_is_refused_without_listing_others(searcher: Searcher) -> None:
    with pytest.raises(QueryError) as refused:
        searcher.by_text("urgnecy", "x", 5, {})
    assert refused.value.code == "unknown_task"
    assert "urgency" not in str(refused.value)


@pytest.mark.parametrize("name", ["secret_field", "_version", "_state", "product; drop"])
def test_filter_on_a_field_outside_the_allow_list_is_refused(searcher: Searcher, name: str) -> None:
    with pytest.raises(QueryError) as refused:
        searcher.by_text("urgency", "x", 5, {name: 1})
    assert refused.value.code == "unknown_filter"


@pytest.mark.parametrize("condition", [{}, {"near": 1}])
def test_filter_with_an_unknown_range_is_refused(searcher: Searcher, condition: dict[str, int]) -> None:
    with pytest.raises(QueryError) as refused:
        searcher.by_text("urgency", "x", 5, {"product": condition})
    assert refused.value.code == "invalid_filter"


def test_what_a_store_cannot_be_asked_is_the_querys_fault(embedder: FakeEmbedder) -> None:
    """By its strict mode, for example: no outage that a client should wait for."""

    class StrictStore(FakeStore):
        def search(self, *_: object) -> list[StoredPoint]:
            raise ConfigError("strict mode")

    with pytest.raises(QueryError, match="strict mode") as refused:
        make(embedder, StrictStore()).by_text("urgency", "x", 5, {"product": 1})
    assert refused.value.code == "refused_by_store"


def test_an_unknown_filter_names_the_nearest_field(searcher: Searcher) -> None:
    with pytest.raises(QueryError, match="Did you mean 'product'"):
        searcher.by_text("urgency", "x", 5, {"prodct": 1})


def test_vector_that_is_not_finite_is_never_sent_to_the_store(store: FakeStore) -> None:
    class Broken(FakeEmbedder):
        def embed(self, model: str, batch: TokenBatch, priority: Priority) -> Embeddings:
            return [rows * np.float32(np.nan) for rows in super().embed(model, batch, priority)]

    searcher = make(Broken(), store)
    with pytest.raises(ArithmeticError):
        searcher.by_text("urgency", "x", 5, {})


def stored_under(*keys: str) -> FakeStore:
    """A store with a live record under each canonical key."""
    store = FakeStore()
    store.upsert(
        PointBatch(
            ids=np.frombuffer(b"".join(point_id("support", "tickets", key) for key in keys), np.uint8).reshape(-1, 16),
            versions=np.ones(len(keys), np.int64),
            deleted=np.zeros(len(keys), np.bool_),
            payloads=[{"_key": key} for key in keys],
            vectors={SYMMETRIC.collection: np.stack([vector("urgency", key) for key in keys])},
        )
    )
    return store


@pytest.mark.parametrize("given", [17, "17"])
def test_integer_key_is_found_as_number_and_as_text_and_stays_a_number_in_hits(given: int | str) -> None:
    searcher = make(FakeEmbedder(), stored_under("i:17", "i:18"), key_type="integer")
    (hit,) = searcher.by_key("urgency", given, 5, {})
    assert hit.key == 18


def test_binary_key_is_found_by_its_hex_digits() -> None:
    searcher = make(FakeEmbedder(), stored_under("b:00ff", "b:01"), binary_key=True, key=None)
    (hit,) = searcher.by_key("urgency", "00FF", 5, {})
    assert hit.key == "01"


def test_a_key_is_looked_for_in_the_key_space_of_every_topic_of_the_task() -> None:
    own = point_id("support", "chats", "s:a")
    store = stored_under("s:b")
    store.upsert(
        PointBatch(
            ids=np.frombuffer(own, np.uint8).reshape(1, 16),
            versions=np.ones(1, np.int64),
            deleted=np.zeros(1, np.bool_),
            payloads=[{"_key": "s:a"}],
            vectors={SYMMETRIC.collection: vector("urgency", "s:a")[np.newaxis]},
        )
    )
    settings = {"key": "id", "text": "{body}", "tasks": ["urgency"]}
    config = parsed(
        pipeline="support",
        source__topics={"tickets": settings, "chat": {**settings, "key_space": "chats"}},
        tasks={"urgency": {"model": "null", "instruction": "urgency"}},
    )
    searcher = Searcher(config, {"urgency": SYMMETRIC}, {"m": FakeTokenizer()}, FakeEmbedder(), store)
    assert [hit.key for hit in searcher.by_key("urgency", "a", 5, {})] == ["b"]


def test_number_is_not_the_text_of_its_digits() -> None:
    searcher = make(FakeEmbedder(), stored_under("s:17", "s:18"))
    assert [hit.key for hit in searcher.by_key("urgency", "17", 5, {})] == ["18"]
    with pytest.raises(QueryError):
        searcher.by_key("urgency", 17, 5, {})
