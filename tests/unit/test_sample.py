"""What a sample says of an input: its rows, where they are taken, and their tokens."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.backfill import sample as sample_module
from pipeline.backfill.inputs import list_inputs
from pipeline.backfill.kafka_ranges import KafkaRange
from pipeline.backfill.sample import count_tokens, measure_size, spread, take_sample
from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.config.pipeline import Config
from pipeline.engine.entry import load_tokenizer
from pipeline.records.files import row_counts
from tests.benchmarks._harness import MINILM

CONFIG = {
    "pipeline": "sampled",
    "source": {
        "bootstrap_servers": ["localhost:9092"],
        "group_id": "g",
        "dead_letter_topic": "dead",
        "topics": {"tickets": {"key": "id", "text": "{title}", "version": "v", "payload": ["title"], "tasks": ["one"]}},
    },
    "models": {"null": {"model": "null:8"}},
    "tasks": {"one": {"model": "null", "instruction": "first"}},
    "store": {"type": "edge", "path": "unused"},
}


def rows(count: int) -> list[dict[str, Any]]:
    return [{"id": f"T-{number}", "title": f"number {number}", "v": number} for number in range(count)]


def write_jsonl(path: Path, content: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return str(path)


def take(inputs: list[str], wanted: int) -> Any:
    fragments = list_inputs(inputs).fragments
    config = Config.model_validate(CONFIG)
    parts = list(zip(fragments, measure_size(fragments).rows, strict=True))
    return take_sample(parts, "tickets", config, wanted, lambda *_: None)


def test_rows_of_parquet_and_small_files_are_counted(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows(50)), tmp_path / "a.parquet", row_group_size=20)
    write_jsonl(tmp_path / "b.jsonl", rows(7))
    (tmp_path / "c.csv").write_text('id,title,v\n1,"two\nlines",3\n2,one,4\n', encoding="utf-8")
    size = measure_size(list_inputs([str(tmp_path)]).fragments)
    assert (size.num_rows, size.num_files, size.exact) == (59, 3, True)


def test_rows_of_large_text_files_are_estimated_from_their_beginnings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_counts, "HEAD_BYTES", 10_000)
    path = write_jsonl(tmp_path / "a.jsonl", rows(5_000))
    size = measure_size(list_inputs([path]).fragments)
    assert not size.exact
    assert size.num_rows == pytest.approx(5_000, rel=0.1)


@pytest.mark.parametrize("wanted", [5, 1_000])
def test_a_file_that_is_no_parquet_is_told_and_no_line_of_it_counted(wanted: int, tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1\n" * 1_000)
    write_jsonl(tmp_path / "b.jsonl", rows(50))
    size = measure_size(list_inputs([str(tmp_path)]).fragments)
    assert (size.num_rows, size.num_files, size.exact) == (50, 2, True)
    (fault,) = take([str(tmp_path)], wanted).faults
    assert "a.parquet: damaged, or cut short" in fault


def test_a_kafka_range_holds_at_most_its_offsets() -> None:
    size = measure_size([KafkaRange("kafka://tickets", 1, 70, 100, ""), KafkaRange("kafka://tickets", 2, 0, 5, "")])
    assert (size.num_rows, size.num_files, size.num_bytes, size.exact) == (35, 2, 0, False)


@pytest.mark.parametrize("sizes", [[1_000.0], [10.0, 0.0, 500.0, 3.0], [1.0] * 300])
def test_places_are_spread_over_the_input_and_inside_their_fragments(sizes: list[float]) -> None:
    places = spread(sizes, 32)
    assert len(places) == len(set(places)) <= sample_module.NUM_PLACES
    begins = np.concatenate([[0], np.cumsum(sizes)])
    positions = [begins[index] + start for index, start, _ in places]
    assert positions == sorted(positions)
    assert positions[0] < begins[-1] / 8
    assert positions[-1] > begins[-1] * 3 / 4
    assert all(start < max(sizes[index], 1) for index, start, _ in places)


def test_a_small_input_is_taken_whole_and_a_large_one_from_all_over(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", rows(500))
    assert take([path], 1_000).num_rows == 500
    some = take([path], 64)
    numbers = [record.version for record in some.records]
    assert some.num_rows == len(set(numbers)) == 64
    assert min(numbers) < 50
    assert max(numbers) > 450


def test_what_is_wrong_or_double_is_counted(tmp_path: Path) -> None:
    bad = [{"id": "x", "title": " ", "v": 1}, {"title": "no key", "v": 1}]
    double = [{"id": "T-0", "title": "number 1", "v": 9}, {"id": "y", "title": "number 2", "v": 9}]
    found = take([write_jsonl(tmp_path / "a.jsonl", rows(4) + bad + double)], 100)
    assert found.bad == {"text_empty": 1, "no_key": 1}
    assert found.stored_share == 6 / 8
    assert (found.duplicate_texts, found.duplicate_keys) == (pytest.approx(2 / 6), pytest.approx(1 / 6))


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_sampled(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    pq.write_table(pa.Table.from_pylist(rows(5)), tmp_path / "b.parquet")
    found = take([str(tmp_path)], 100)
    assert found.num_rows == 5
    assert len(found.faults) == 1
    assert "a.parquet" in found.faults[0]


def test_tokens_are_those_of_the_prompts_the_model_gets() -> None:
    model = ModelConfig.model_validate(MINILM)
    tasks = {
        "short": TaskConfig(instruction="How urgent is this", model="m"),
        "long": TaskConfig(instruction="What is the technical issue in this ticket", model="m", max_tokens=24),
    }
    tokenizer: Any = load_tokenizer(model, tasks)
    texts = ["printer", "the printer on the second floor does not print what I send to it any more " * 3]
    for name, found in zip(tasks, count_tokens(tokenizer, texts, list(tasks)), strict=True):
        lengths = [len(tokenizer.show(name, text)[1]) for text in texts]
        assert found.prompt == np.mean(lengths)
        assert found.truncated_share == (0.5 if name == "long" else 0.0)
        empty = len(tokenizer.show(name, "x")[1]) - 1
        assert found.instruction == empty
        # Fewer than eight tokens are not worth reusing.
        assert found.reusable == (empty - 1 if name == "long" else 0)


def test_tasks_that_ask_the_same_share_their_tokens() -> None:
    model = ModelConfig.model_validate(MINILM)
    tasks = {name: TaskConfig(instruction=name[:3], model="m") for name in ("one", "two", "one again")}
    tokenizer: Any = load_tokenizer(model, tasks)
    one, two, again = count_tokens(tokenizer, ["printer", "no light"], list(tasks))
    assert [found.num_sharing for found in (one, two, again)] == [2, 1, 2]
    assert one == again
    assert one.prompt == np.mean([len(tokenizer.show("one", text)[1]) for text in ("printer", "no light")])


def test_the_null_engine_has_no_instruction() -> None:
    tokenizer = load_tokenizer(ModelConfig(model="null:8"), {"one": TaskConfig(instruction="first", model="m")})
    (found,) = count_tokens(tokenizer, ["a", "b"], ["one"])
    assert (found.prompt, found.instruction, found.reusable, found.truncated_share) == (4, 0, 0, 0)
