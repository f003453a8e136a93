"""The embedder's queue: merging, priorities and errors."""

from collections.abc import Iterator, Sequence
from threading import Event

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from pipeline.engine.engine import MERGED_ITEMS, Engine, Job, Result, Rows
from pipeline.engine.scheduler import BRIEF_S, EmbedScheduler, _Brief, _Window
from pipeline.errors import BatchShapeError
from pipeline.metrics import EmbedMetrics
from pipeline.records.batches import Embeddings, Priority, TokenBatch
from tests.fakes import FakeTokenizer


class SteppedJob(Job):
    """One text a step; each step waits for the test's word."""

    def __init__(self, engine: "SteppedEngine", batches: Sequence[TokenBatch]) -> None:
        self.engine, self.batches = engine, batches
        self.left = [number for number, batch in enumerate(batches) for _ in range(batch.num_texts)]

    @property
    def done(self) -> bool:
        return not self.left

    @property
    def num_forward_items(self) -> int:
        return sum(batch.num_texts for batch in self.batches)

    def step(self) -> int:
        assert self.engine.go.wait(10)
        self.engine.log.append(self.batches[self.left.pop(0)].prompts[0])
        self.engine.stepped.set()
        return 1

    def results(self) -> list[Result]:
        return [
            BatchShapeError("too large")
            if batch.prompts[0] == "huge"
            else [np.ones((batch.num_texts, 2), np.float32) for _ in batch.prompts]
            for batch in self.batches
        ]


class SteppedEngine(Engine):
    dimension = 2
    max_batch_tokens = 16

    def __init__(self) -> None:
        self.go, self.stepped = Event(), Event()
        self.log: list[str] = []
        self.jobs: list[int] = []
        self.max_tokens: list[int | None] = []

    def begin(self, batches: Sequence[TokenBatch], max_tokens: int | None = None) -> Job:
        if any(batch.prompts[0] == "bug" for batch in batches):
            raise ZeroDivisionError
        self.jobs.append(len(batches))
        self.max_tokens.append(max_tokens)
        return SteppedJob(self, batches)

    def describe(self) -> dict[str, object]:
        return {}


@pytest.fixture
def engine() -> SteppedEngine:
    return SteppedEngine()


@pytest.fixture
def scheduler(engine: SteppedEngine) -> Iterator[EmbedScheduler]:
    made = EmbedScheduler("m", engine, EmbedMetrics(CollectorRegistry()))
    yield made
    engine.go.set()
    made.close()


def batch(prompt: str, num_texts: int = 1) -> TokenBatch:
    return FakeTokenizer().encode(["x"] * num_texts, [prompt])


def test_batches_that_wait_together_are_computed_together(scheduler: EmbedScheduler, engine: SteppedEngine) -> None:
    first = scheduler.submit(batch("live"), Priority.LIVE)
    while not engine.jobs:
        pass
    others = [scheduler.submit(batch("live"), Priority.LIVE) for _ in range(3)]
    engine.go.set()
    for future in (first, *others):
        assert future.result(10)[0].shape == (1, 2)
    assert engine.jobs == [1, 3]


def test_query_overtakes_between_forward_batches(scheduler: EmbedScheduler, engine: SteppedEngine) -> None:
    backlog = scheduler.submit(batch("backfill", 3), Priority.BACKFILL)
    while not engine.jobs:
        pass
    live = scheduler.submit(batch("live"), Priority.LIVE)
    query = scheduler.submit(batch("query"), Priority.QUERY)
    engine.go.set()
    for future in (backlog, live, query):
        future.result(10)
    assert engine.log == ["backfill", "query", "live", "backfill", "backfill"]


def test_error_of_one_batch_leaves_its_neighbours_whole(scheduler: EmbedScheduler, engine: SteppedEngine) -> None:
    engine.go.set()
    huge, fine = scheduler.submit(batch("huge"), Priority.LIVE), scheduler.submit(batch("fine"), Priority.LIVE)
    with pytest.raises(BatchShapeError):
        huge.result(10)
    assert fine.result(10)


def test_bug_reaches_the_caller_and_the_thread_lives_on(scheduler: EmbedScheduler, engine: SteppedEngine) -> None:
    engine.go.set()
    with pytest.raises(ZeroDivisionError):
        scheduler.submit(batch("bug"), Priority.LIVE).result(10)
    assert scheduler.submit(batch("live"), Priority.LIVE).result(10)
    assert scheduler.alive


def test_close_cancels_what_waits(engine: SteppedEngine) -> None:
    scheduler = EmbedScheduler("m", engine, EmbedMetrics(CollectorRegistry()))
    running = scheduler.submit(batch("live"), Priority.LIVE)
    while not engine.jobs:
        pass
    waiting = scheduler.submit(batch("live"), Priority.LIVE)
    engine.go.set()
    scheduler.close()
    assert running.done()
    assert waiting.cancelled() or waiting.done()
    assert not scheduler.alive


def test_equal_texts_are_computed_once_and_counted(engine: SteppedEngine) -> None:
    registry = CollectorRegistry()
    scheduler = EmbedScheduler("m", engine, EmbedMetrics(registry), cache_rows=4)
    engine.go.set()
    for _ in range(3):
        assert scheduler.submit(batch("live", 2), Priority.LIVE).result(10)[0].shape == (2, 2)
    scheduler.close()
    assert engine.log == ["live"]
    assert registry.get_sample_value("refract_cache_hits_total", {"model": "m"}) == 5
    assert registry.get_sample_value("refract_embeddings_total", {"model": "m", "priority": "live"}) == 6


class SharingEngine(SteppedEngine):
    """All prompts share a pass, and each is told apart at the end."""

    def pass_of(self, prompt: str) -> str:
        del prompt
        return "all"

    def finish(self, batch: TokenBatch, rows: Rows) -> Embeddings:
        return [values * number for number, values in enumerate(rows, 1)][: len(batch.prompts)]


PROMPTS = ["a", "b", "c", "d"]


@pytest.mark.parametrize(("cache_rows", "computed"), [(0, 6), (9, 1)])
def test_a_text_goes_through_the_model_once_for_all_prompts_that_share_a_pass(cache_rows: int, computed: int) -> None:
    registry, engine = CollectorRegistry(), SharingEngine()
    engine.go.set()
    scheduler = EmbedScheduler("m", engine, EmbedMetrics(registry), cache_rows=cache_rows)
    for _ in range(3):
        rows = scheduler.submit(FakeTokenizer().encode(["x", "x"], PROMPTS), Priority.LIVE).result(10)
        assert [values[1, 0] for values in rows] == [1, 2, 3, 4]
    scheduler.close()
    assert registry.get_sample_value("refract_forward_items_total", {"model": "m"}) == computed
    assert registry.get_sample_value("refract_cache_hits_total", {"model": "m"}) == (6 - computed)
    assert registry.get_sample_value("refract_embeddings_total", {"model": "m", "priority": "live"}) == 24


def test_jobs_are_as_large_as_what_goes_through_the_model() -> None:
    engine = SharingEngine()
    scheduler = EmbedScheduler("m", engine, EmbedMetrics(CollectorRegistry()))
    first = scheduler.submit(batch("live"), Priority.LIVE)
    while not engine.jobs:
        pass
    half = FakeTokenizer().encode(["x"] * (MERGED_ITEMS // 2), PROMPTS)
    others = [scheduler.submit(half, Priority.LIVE) for _ in range(3)]
    engine.go.set()
    for future in (first, *others):
        future.result(10)
    scheduler.close()
    assert engine.jobs == [1, 2, 1]


def test_the_cache_is_off_unless_asked_for(scheduler: EmbedScheduler, engine: SteppedEngine) -> None:
    engine.go.set()
    for _ in range(2):
        scheduler.submit(batch("live", 2), Priority.LIVE).result(10)
    assert len(engine.log) == 4


@pytest.mark.parametrize("shared", [True, False])
def test_forward_batches_of_a_backfill_are_brief_where_live_traffic_may_come(
    engine: SteppedEngine,
    shared: bool,  # noqa: FBT001 - a parameter of pytest's
) -> None:
    scheduler = EmbedScheduler("m", engine, EmbedMetrics(CollectorRegistry()), shared=shared)
    engine.go.set()
    for priority in (Priority.BACKFILL, Priority.LIVE, Priority.QUERY):
        scheduler.submit(batch("x"), priority).result(10)
    scheduler.close()
    assert engine.max_tokens == [1 if shared else None, None, None]


@pytest.mark.parametrize(
    ("fixed_s", "tokens_per_s", "expected_s"),
    [(0.0, 1_000, 0.064), (0.0, 20_000, BRIEF_S), (0.015, 100_000, BRIEF_S), (0.05, 1e6, 0.05), (0.001, 1e9, 0.001)],
    ids=["a slow one", "by tokens", "and by the batch", "the batch alone is more", "a fast one"],
)
def test_what_is_brief_is_learnt_and_never_crawls(fixed_s: float, tokens_per_s: float, expected_s: float) -> None:
    """64 of 1,024 tokens are always allowed: where a batch costs much by itself, smaller ones would only waste it."""
    brief = _Brief()
    for _ in range(200):
        num_tokens = brief.max_tokens(1_024)
        assert 64 <= num_tokens <= 1_024
        brief.add(num_tokens, fixed_s + num_tokens / tokens_per_s)
    assert fixed_s + num_tokens / tokens_per_s == pytest.approx(expected_s, rel=0.05, abs=0.0005)


def test_hit_rate_is_over_the_last_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.engine.scheduler.WINDOW_S", 0.0)
    registry = CollectorRegistry()
    window = _Window(EmbedMetrics(registry), "m")
    for num_shared in (3, 1):
        window.add(num_items=4, num_shared=num_shared)
        assert registry.get_sample_value("refract_cache_hit_rate", {"model": "m"}) == num_shared / 4
