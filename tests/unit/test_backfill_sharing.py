"""Beside live traffic the calls to an embedder are short, whatever it is; nothing is lost by cutting them."""

import threading

import numpy as np
import pytest

from pipeline.backfill.sharing import CALL_S, PoliteEmbedder, texts_of
from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.engine.load import load_engine, load_tokenizer
from pipeline.records import Embeddings, Priority, TokenBatch
from tests.fakes import FakeEmbedder, FakeTokenizer, vector

TEXTS = [f"text number {number}" * (number % 5 + 1) for number in range(200)]


class TimedEmbedder(FakeEmbedder):
    """Takes so long per text, on a clock of its own."""

    def __init__(self, seconds_per_text: float) -> None:
        super().__init__()
        self.seconds_per_text = seconds_per_text
        self.now_s = 0.0
        self.taken_s: list[float] = []

    def embed(self, model: str, batch: TokenBatch, priority: Priority) -> Embeddings:
        self.taken_s.append(batch.num_texts * self.seconds_per_text)
        self.now_s += self.taken_s[-1]
        return super().embed(model, batch, priority)


@pytest.mark.parametrize("seconds_per_text", [0.000_02, 0.001, 0.005, 0.5])
def test_calls_come_to_take_what_they_should_and_rows_stay_in_order(seconds_per_text: float) -> None:
    embedder = TimedEmbedder(seconds_per_text)
    polite = PoliteEmbedder(embedder, {"m": 1}, lambda: embedder.now_s)
    tokens = FakeTokenizer().encode(TEXTS, ["one", "two"])
    for _ in range(3):
        rows = polite.embed("m", tokens, Priority.BACKFILL)
        for prompt, found in zip(tokens.prompts, rows, strict=True):
            np.testing.assert_array_equal(found, np.stack([vector(prompt, text) for text in TEXTS]))
    late = embedder.taken_s[len(embedder.taken_s) // 2 :]
    assert max(late) <= max(CALL_S * 1.3, seconds_per_text)
    assert sum(late) / len(late) >= min(CALL_S * 0.5, seconds_per_text * len(TEXTS) * 0.5, seconds_per_text * 4)


def test_a_part_of_a_batch_means_what_it_meant_in_the_whole() -> None:
    tasks = {name: TaskConfig(model="m", instruction=name) for name in ("one", "two")}
    model = ModelConfig(model="null:64")
    tokens = load_tokenizer(model, tasks).encode(TEXTS, ["two", "one"])
    engine = load_engine(model, tasks)
    whole = engine.embed(tokens)
    for start, end in ((0, 1), (3, 17), (199, 200), (0, 200)):
        part = texts_of(tokens, start, end)
        assert part.num_tokens <= tokens.num_tokens * (end - start) // len(TEXTS)
        for rows, expected in zip(engine.embed(part), whole, strict=True):
            np.testing.assert_array_equal(rows, expected[start:end])


def test_no_more_calls_at_once_than_replicas() -> None:
    running, most, lock = [0], [0], threading.Lock()

    class Slow(FakeEmbedder):
        def embed(self, model: str, batch: TokenBatch, priority: Priority) -> Embeddings:
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            threading.Event().wait(0.005)
            with lock:
                running[0] -= 1
            return super().embed(model, batch, priority)

    polite = PoliteEmbedder(Slow(), {"m": 2})
    tokens = FakeTokenizer().encode(TEXTS[:30], ["one"])
    threads = [threading.Thread(target=polite.embed, args=("m", tokens, Priority.BACKFILL)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [2]
