"""A record that kills what computes it is found, and holds up nothing but itself."""

from collections.abc import Sequence
from threading import Event, Thread

import pytest

from pipeline.errors import DiedError, Reason, RecordError, UnexpectedFault
from pipeline.live.crashes import MAX_DEATHS, PROBE_TEXT, Suspects
from pipeline.records.batches import TokenBatch
from tests.fakes import FakeTokenizer, record
from tests.unit.test_refractor import URGENCY, Bench


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr("pipeline.live.retry.FIRST_WAIT_S", 0.0001)
    return Bench()


def test_deadly_record_is_dead_lettered_and_the_others_of_its_batch_are_stored(bench: Bench) -> None:
    bench.embedder.deadly_texts = {"deadly"}
    bench.process(*(record(f"k{number}", 1, "deadly" if number == 5 else f"text {number}") for number in range(8)))
    assert [(letter.reason, letter.position.offset) for letter in bench.letters.letters] == [(Reason.CRASHES_WORKER, 5)]
    assert bench.store.count(URGENCY.collection) == 7
    assert bench.tracker.advance().offsets == {bench.source.partition: 8}


def test_record_whose_process_is_killed_for_another_reason_is_stored(bench: Bench) -> None:
    bench.embedder.failures.extend([DiedError("killed")] * MAX_DEATHS)
    bench.process(record("a", 1))
    assert bench.letters.letters == []
    assert bench.store.count(URGENCY.collection) == 1


def test_nothing_is_blamed_while_harmless_texts_die_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken device kills every process, whatever it is given: that is an outage."""
    monkeypatch.setattr("tests.unit.test_refractor.MAX_RETRIES", 12)
    bench.embedder.deadly_texts = {"hello", PROBE_TEXT}
    with pytest.raises(DiedError):
        bench.process(record("a", 1))
    assert bench.num_retries > 12
    assert bench.letters.letters == []
    assert not bench.tracker.advance()


def test_suspect_is_computed_with_nothing_beside_it() -> None:
    suspects, entered, let_go = Suspects(), Event(), Event()
    seen: list[str] = []

    def long_one() -> None:
        entered.set()
        let_go.wait(10)
        seen.append("long one ends")

    def suspect() -> None:
        seen.append("suspect")
        raise DiedError("died")

    watched = suspects.watch(suspect, lambda: seen.append("probe"), is_single=True)
    with pytest.raises(DiedError):
        watched()
    beside = Thread(target=suspects.watch(long_one, lambda: None, is_single=True))
    beside.start()
    assert entered.wait(10)
    died: list[type] = []

    def again() -> None:
        try:
            watched()
        except DiedError as error:
            died.append(type(error))

    alone = Thread(target=again)
    alone.start()
    while not suspects._num_suspects:
        pass
    late = Thread(target=suspects.watch(lambda: seen.append("late one"), lambda: None, is_single=True))
    late.start()
    assert seen == ["suspect"]
    let_go.set()
    for thread in (beside, alone, late):
        thread.join(10)
    assert seen == ["suspect", "long one ends", "probe", "suspect", "late one"]
    assert died == [DiedError]
    with pytest.raises(RecordError, match="crashes_worker"):
        watched()


def test_a_text_at_which_the_model_fails_is_dead_lettered_and_the_others_are_stored(bench: Bench) -> None:
    bench.embedder.failing_texts = {"odd"}
    bench.process(*(record(f"k{number}", 1, "odd" if number == 5 else f"text {number}") for number in range(8)))
    assert [(letter.reason, letter.position.offset) for letter in bench.letters.letters] == [(Reason.FAILS_IN_MODEL, 5)]
    assert bench.store.count(URGENCY.collection) == 7
    assert bench.tracker.advance().offsets == {bench.source.partition: 8}


def test_a_model_that_fails_at_harmless_texts_too_stops_the_worker_and_blames_nobody(bench: Bench) -> None:
    bench.embedder.failing_texts = {"hello", PROBE_TEXT}
    with pytest.raises(UnexpectedFault):
        bench.process(record("a", 1))
    assert bench.letters.letters == []
    assert not bench.tracker.advance()


def test_a_text_at_which_the_tokenizer_fails_is_dead_lettered(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = FakeTokenizer.encode

    def failing(self: FakeTokenizer, texts: Sequence[str], prompts: Sequence[str]) -> TokenBatch:
        if "odd" in texts:
            raise ValueError("odd")
        return encode(self, texts, prompts)

    monkeypatch.setattr(FakeTokenizer, "encode", failing)
    bench.process(record("a", 1, "odd"), record("b", 1, "good"))
    assert [(letter.reason, letter.detail) for letter in bench.letters.letters] == [
        (Reason.FAILS_IN_MODEL, "tokenizer of model m: ValueError")
    ]
    assert bench.store.count(URGENCY.collection) == 1
