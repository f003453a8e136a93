"""Equal items are computed once, and nobody can tell from the rows or the errors."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.engine.duplicates import DeduplicatingEngine
from pipeline.engine.engine import Engine, Job, Result
from pipeline.engine.null import NullEngine, NullTokenizer
from pipeline.errors import BatchShapeError, Reason, RecordError, RefractError
from pipeline.records.batches import TokenBatch

MODEL = ModelConfig(model="null:16")
TASKS = {name: TaskConfig(model="m", instruction=name) for name in ("a", "b")}
TOKENIZER = NullTokenizer(TASKS)


class CountingEngine(Engine):
    """The null engine, which remembers what it was asked and spoils what the test names."""

    dimension = 16
    max_batch_tokens = 64

    def __init__(self) -> None:
        self.inner = NullEngine(MODEL, TASKS)
        self.asked: list[tuple[str, bytes]] = []
        self.too_large: set[bytes] = set()
        self.not_finite: set[bytes] = set()

    def begin(self, batches: Sequence[TokenBatch], max_tokens: int | None = None) -> "CountingJob":
        self.max_tokens = max_tokens
        self.asked += [item for batch in batches for item in items(batch)]
        return CountingJob(self, self.inner.begin(batches, max_tokens), batches)

    def describe(self) -> dict[str, object]:
        return {"model": "counting"}


class CountingJob(Job):
    def __init__(self, engine: CountingEngine, inner: Job, batches: Sequence[TokenBatch]) -> None:
        self.engine, self.inner, self.batches = engine, inner, batches

    @property
    def done(self) -> bool:
        return self.inner.done

    @property
    def num_forward_items(self) -> int:
        return self.inner.num_forward_items

    def step(self) -> int:
        return self.inner.step()

    def results(self) -> list[Result]:
        return [self._result(batch, rows) for batch, rows in zip(self.batches, self.inner.results(), strict=True)]

    def _result(self, batch: TokenBatch, rows: Result) -> Result:
        assert not isinstance(rows, RefractError)
        contents = [ids for _, ids in items(batch)]
        if self.engine.too_large & set(contents):
            return (
                RecordError(Reason.TOO_LARGE_FOR_MODEL, "9 tokens")
                if batch.num_texts == 1
                else BatchShapeError("9 tokens")
            )
        bad = np.array([ids in self.engine.not_finite for ids in contents], np.bool_).reshape(batch.segments.shape)
        for prompt, values in enumerate(rows):
            values[bad[prompt]] = np.nan
        return rows


def items(batch: TokenBatch) -> list[tuple[str, bytes]]:
    return [
        (name, batch.ids[batch.offsets[segment] : batch.offsets[segment + 1]].tobytes())
        for name, segments in zip(batch.prompts, batch.segments, strict=True)
        for segment in segments
    ]


def batch(*texts: str, prompts: Sequence[str] = ("a", "b")) -> TokenBatch:
    return TOKENIZER.encode(texts, prompts)


def ids_of(text: str) -> bytes:
    return TOKENIZER.encode([text], ["a"]).ids.tobytes()


@pytest.fixture
def engine() -> CountingEngine:
    return CountingEngine()


def test_equal_items_of_one_job_are_computed_once(engine: CountingEngine) -> None:
    job = DeduplicatingEngine(engine, 8).begin([batch("x", "y", "x"), batch("x", "z")])
    results = job.results()
    assert len(engine.asked) == len(set(engine.asked)) == 6
    assert job.num_shared == 4
    assert_same(results, NullEngine(MODEL, TASKS).embed_many([batch("x", "y", "x"), batch("x", "z")]))


def test_a_text_seen_lately_is_not_computed_again(engine: CountingEngine) -> None:
    cached = DeduplicatingEngine(engine, 8)
    first = cached.embed(batch("x"))
    engine.asked.clear()
    job = cached.begin([batch("x")])
    assert job.done
    assert job.num_shared == 2
    assert_same(job.results(), [first])
    assert engine.asked == []
    assert cached.describe() == {"model": "counting", "cached_rows": 2}


def test_only_the_prompts_that_are_new_are_computed(engine: CountingEngine) -> None:
    cached = DeduplicatingEngine(engine, 8)
    cached.embed(batch("x", prompts=["a"]))
    engine.asked.clear()
    result = cached.embed(batch("x", "y"))
    assert sorted(engine.asked) == sorted([("b", ids_of("x")), ("a", ids_of("y")), ("b", ids_of("y"))])
    assert_same([result], [NullEngine(MODEL, TASKS).embed(batch("x", "y"))])


def test_the_row_used_longest_ago_leaves_first(engine: CountingEngine) -> None:
    cached = DeduplicatingEngine(engine, 2)
    for text in ("x", "y", "x", "z"):
        cached.embed(batch(text, prompts=["a"]))
    engine.asked.clear()
    cached.embed(batch("x", "y", prompts=["a"]))
    assert engine.asked == [("a", ids_of("y"))]
    assert cached.describe()["cached_rows"] == 2


def test_what_a_caller_does_to_its_rows_does_not_reach_the_cache(engine: CountingEngine) -> None:
    cached = DeduplicatingEngine(engine, 8)
    expected = cached.embed(batch("x"))[0].copy()
    for _ in range(2):
        rows = cached.embed(batch("x"))[0]
        np.testing.assert_array_equal(rows, expected)
        rows[:] = 0


def test_a_row_that_is_not_finite_is_computed_again_next_time(engine: CountingEngine) -> None:
    cached = DeduplicatingEngine(engine, 8)
    engine.not_finite = {ids_of("bad")}
    first = cached.embed(batch("bad", "x", prompts=["a"]))[0]
    assert np.isnan(first[0]).all()
    assert np.isfinite(first[1]).all()
    engine.not_finite = set()
    engine.asked.clear()
    assert np.isfinite(cached.embed(batch("bad", "x", prompts=["a"]))[0]).all()
    assert engine.asked == [("a", ids_of("bad"))]


def test_an_error_is_about_its_batch_and_never_cached(engine: CountingEngine) -> None:
    cached = DeduplicatingEngine(engine, 8)
    engine.too_large = {ids_of("huge")}
    huge, fine = cached.embed_many([batch("huge", "x"), batch("x", "y")])
    assert isinstance(huge, BatchShapeError)
    assert_same([fine], [NullEngine(MODEL, TASKS).embed(batch("x", "y"))])
    engine.too_large = set()
    assert_same(cached.embed_many([batch("huge")]), NullEngine(MODEL, TASKS).embed_many([batch("huge")]))


def test_one_new_text_that_can_never_fit_does_not_condemn_its_batch(engine: CountingEngine) -> None:
    cached = DeduplicatingEngine(engine, 8)
    cached.embed(batch("x"))
    engine.too_large = {ids_of("huge")}
    assert isinstance(cached.embed_many([batch("x", "huge")])[0], BatchShapeError)
    assert isinstance(cached.embed_many([batch("huge")])[0], RecordError)


def test_batches_without_texts_have_rows_without_texts(engine: CountingEngine) -> None:
    job = DeduplicatingEngine(engine, 8).begin([batch()])
    assert job.done
    (rows,) = job.results()
    assert not isinstance(rows, RefractError)
    assert [row.shape for row in rows] == [(0, 16), (0, 16)]


BATCHES = st.lists(
    st.tuples(
        st.lists(st.sampled_from("uvwxyz"), max_size=5), st.sampled_from([("a",), ("b",), ("a", "b"), ("b", "a")])
    ),
    max_size=4,
)


@given(st.lists(BATCHES, max_size=4), st.integers(1, 8), st.sets(st.sampled_from("uvwxyz"), max_size=2))
def test_any_sequence_of_jobs_has_the_results_of_an_engine_without_a_cache(
    jobs: list[list[tuple[list[str], tuple[str, ...]]]], cache_rows: int, huge: set[str]
) -> None:
    plain, engine = CountingEngine(), CountingEngine()
    plain.too_large = engine.too_large = {ids_of(text) for text in huge}
    cached = DeduplicatingEngine(engine, cache_rows)
    for job in jobs:
        batches = [batch(*texts, prompts=prompts) for texts, prompts in job]
        assert_same(cached.embed_many(batches), plain.embed_many(batches))
    assert len(engine.asked) <= len(plain.asked) + sum(len(job) for job in jobs) * 12


def assert_same(found: Sequence[Result], expected: Sequence[Result]) -> None:
    assert [type(result) for result in found] == [type(result) for result in expected]
    for ours, theirs in zip(found, expected, strict=True):
        if not isinstance(ours, RefractError) and not isinstance(theirs, RefractError):
            for mine, other in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(mine, other)


def test_forward_batches_of_what_is_left_to_compute_are_held_to_the_size_asked_for() -> None:
    engine = CountingEngine()
    job = DeduplicatingEngine(engine, 8).begin([batch("x", "y")], 4)
    assert engine.max_tokens == 4
    assert job.step() == 4
    assert not job.done
