"""The null engine: exact, deterministic, and honest about what it is."""

import time

import numpy as np
import pytest

from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.engine.entry import check_tasks, identify, load_engine, load_tokenizer
from pipeline.errors import ConfigError

MODEL = ModelConfig(model="null:384")
TASKS = {
    "urgency": TaskConfig(instruction="how urgent", model="m"),
    "topic": TaskConfig(instruction="which topic", model="m", mode="retrieval", dimension=10),
}


def test_vectors_are_unit_length_and_differ_by_task_and_text() -> None:
    batch = load_tokenizer(MODEL, TASKS).encode(["a", "b", "a"], ["urgency", "topic", "topic:query"])
    urgency, topic, query = load_engine(MODEL, TASKS).embed(batch)
    assert urgency.shape == (3, 384)
    assert topic.shape == query.shape == (3, 10)
    assert urgency.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(urgency, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(urgency[0], urgency[2])
    assert not np.array_equal(urgency[0], urgency[1])
    assert not np.array_equal(topic[0], query[0])


def test_vectors_are_the_same_on_every_machine() -> None:
    tasks = {"t": TaskConfig(model="m")}
    model = ModelConfig(model="null:16")
    (rows,) = load_engine(model, tasks).embed(load_tokenizer(model, tasks).encode(["server down"], ["t"]))
    assert "".join("+" if value > 0 else "-" for value in rows[0]) == "+-+---++---+-++-"


def test_an_instruction_changes_the_vectors() -> None:
    first, second = (
        load_engine(MODEL, {"t": TaskConfig(instruction=text, model="m")}).embed(
            load_tokenizer(MODEL, {"t": TaskConfig(model="m")}).encode(["a"], ["t"])
        )[0]
        for text in ("one", "two")
    )
    assert not np.array_equal(first, second)


def test_merged_batches_give_what_each_gives_alone() -> None:
    tokenizer = load_tokenizer(MODEL, TASKS)
    small = ModelConfig(model="null:384", max_batch_tokens=64)
    engine = load_engine(small, TASKS)
    batches = [tokenizer.encode([f"{i}" for i in range(40)], ["urgency"]), tokenizer.encode(["x"], ["topic"])]
    merged = engine.embed_many(batches)
    for batch, result in zip(batches, merged, strict=True):
        assert isinstance(result, list)
        np.testing.assert_array_equal(result[0], engine.embed(batch)[0])


def test_a_job_runs_one_forward_batch_per_step() -> None:
    engine = load_engine(ModelConfig(model="null:8", max_batch_tokens=64), {"t": TaskConfig(model="m")})
    job = engine.begin([load_tokenizer(MODEL, {"t": TaskConfig(model="m")}).encode(["x"] * 40, ["t"])])
    steps = 0
    while not job.done:
        job.step()
        steps += 1
    assert steps == 3
    assert len(job.results()) == 1


@pytest.mark.parametrize(("max_tokens", "sizes"), [(None, [64, 64, 32]), (128, [64, 64, 32]), (20, [20] * 8)])
def test_a_job_may_be_held_to_smaller_forward_batches(max_tokens: int | None, sizes: list[int]) -> None:
    engine = load_engine(ModelConfig(model="null:8", max_batch_tokens=64), {"t": TaskConfig(model="m")})
    batch = load_tokenizer(MODEL, {"t": TaskConfig(model="m")}).encode([f"{i}" for i in range(40)], ["t"])
    job = engine.begin([batch], max_tokens)
    assert [job.step() for _ in sizes] == sizes
    assert job.done
    assert job.step() == 0
    np.testing.assert_array_equal(job.results()[0], engine.embed(batch))


def test_an_empty_batch_has_no_rows() -> None:
    (rows,) = load_engine(MODEL, TASKS).embed(load_tokenizer(MODEL, TASKS).encode([], ["urgency"]))
    assert len(rows) == 0


def test_it_can_be_made_slow() -> None:
    model = ModelConfig(model="null:8", overrides={"delay_ms_per_batch": 20})
    tasks = {"t": TaskConfig(model="m")}
    began_s = time.monotonic()
    load_engine(model, tasks).embed(load_tokenizer(model, tasks).encode(["x"], ["t"]))
    assert time.monotonic() - began_s >= 0.02


def test_it_says_that_it_is_for_tests() -> None:
    assert "for tests" in load_engine(MODEL, TASKS).describe()["warnings"][0]


def test_its_identity_is_its_dimension() -> None:
    assert identify(MODEL).dimension == 384
    assert dict(identify(MODEL).parts) == {"engine": "null"}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (ModelConfig(model="null:x"), "null:<dimension>"),
        (ModelConfig(model="null:1"), "2 to 65536"),
        (ModelConfig(model="null:8", overrides={"delay_ms": 1}), "Did you mean 'delay_ms_per_batch'"),
        (ModelConfig(model="null:8"), "vectors of null:8 have 8"),
    ],
)
def test_what_cannot_work_is_refused(model: ModelConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_tasks("m", model, {"t": TaskConfig(model="m", dimension=9)})


def test_an_unknown_prompt_is_named() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'urgency'"):
        load_tokenizer(MODEL, TASKS).encode(["x"], ["urgenci"])
