"""Backfill's core: which fragments files have, which records their rows are, and what the ledger remembers."""

import json
import os
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.backfill.inputs import list_inputs
from pipeline.backfill.ledger import Ledger, read_progress, write_rejects
from pipeline.backfill.outcome import Counts, Outcome, Reject
from pipeline.backfill.rows import FragmentReader, check_topic
from pipeline.backfill.work import Work
from pipeline.binding import Task
from pipeline.config.load import ConfigTree
from pipeline.config.pipeline import Config
from pipeline.context import Context
from pipeline.errors import ConfigError, EnvironmentFault
from pipeline.records.files import listing, text_rows
from pipeline.records.files.listing import FilePart

ROWS = [{"id": f"T-{number}", "title": f'a "ticket",\nnumber {number}', "v": number} for number in range(50)]


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(ConfigTree.read(_config(tmp_path)))


def config_of(folder: Path, limits: Mapping[str, int] | None = None, /, **topic: Any) -> Config:
    """The tests' configuration; `topic` changes its topic, None removes a key."""
    return Context(ConfigTree.read(_config(folder, limits, **topic))).config


def _config(folder: Path, limits: Mapping[str, int] | None = None, /, **topic: Any) -> Path:
    settings = {"key": "id", "text": "{title}", "version": "v", "payload": ["title"], "tasks": ["one"]} | topic
    tree = {
        "pipeline": "backfilled",
        "source": {
            "bootstrap_servers": ["localhost:9092"],
            "group_id": "g",
            "dead_letter_topic": "dead",
            "topics": {"tickets": {name: value for name, value in settings.items() if value is not None}},
        },
        "models": {"null": {"model": "null:8"}},
        "tasks": {"one": {"model": "null", "instruction": "first"}},
        "store": {"type": "edge", "path": str(folder / "store")},
        "limits": dict(limits or {}),
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=20)
    return str(path)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> str:
    import csv  # noqa: PLC0415 - the one test format that needs it

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def records(inputs: list[str], config: Config) -> list[tuple[str, int, str | None]]:
    found = [
        delivery.record
        for fragment in list_inputs(inputs).fragments
        for delivery in FragmentReader(config, "tickets").deliveries(fragment)
        if delivery.record
    ]
    return [(record.key, record.version, record.text) for record in found]


def expected(rows: list[dict[str, Any]]) -> list[tuple[str, int, str | None]]:
    return [(f"s:{row['id']}", row["v"], row["title"]) for row in rows]


@pytest.mark.parametrize(
    ("name", "write", "num_fragments"),
    [("a.parquet", write_parquet, 3), ("a.jsonl", write_jsonl, 1), ("a.csv", write_csv, 1)],
)
def test_every_format_gives_the_same_records(
    name: str, write: Any, num_fragments: int, context: Context, tmp_path: Path
) -> None:
    path = write(tmp_path / name, ROWS)
    assert len(list_inputs([path]).fragments) == num_fragments
    assert records([path], context.config) == expected(ROWS)


@pytest.mark.parametrize("range_bytes", [1, 7, 64, 100, 10_000])
def test_byte_ranges_of_a_file_hold_each_line_once(
    range_bytes: int, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "RANGE_BYTES", range_bytes)
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    assert len(list_inputs([path]).fragments) == -(-os.path.getsize(path) // range_bytes)  # noqa: PTH202 - a str
    assert records([path], context.config) == expected(ROWS)


@pytest.mark.parametrize("range_bytes", [1_000, 5_000, 1 << 20, 1 << 30])
def test_a_line_longer_than_a_record_may_be_is_told_and_never_held(
    range_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An array that calls itself JSON Lines, say."""
    monkeypatch.setattr(listing, "RANGE_BYTES", range_bytes)
    monkeypatch.setattr(text_rows, "BLOCK_BYTES", 4_096)
    config = config_of(tmp_path, {"max_record_bytes": 1_024})
    longest = json.dumps(ROWS[1]).encode().ljust(1_024)
    array = b"[" + b"7," * 100_000 + b"7]"
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\r\n".join([json.dumps(ROWS[0]).encode(), longest, array, json.dumps(ROWS[2]).encode()]))
    fragments = list_inputs([str(path)]).fragments
    FragmentReader(config, "tickets").deliveries(fragments[-1])  # imports are not what is measured
    tracemalloc.start()
    try:
        found = [
            delivery for fragment in fragments for delivery in FragmentReader(config, "tickets").deliveries(fragment)
        ]
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [delivery.record.key for delivery in found if delivery.record] == ["s:T-0", "s:T-1", "s:T-2"]
    assert [delivery.error for delivery in found if delivery.error] == ["record_too_large"]
    assert peak_bytes < len(array) / 2


def test_globs_folders_and_repeated_inputs_name_each_file_once(context: Context, tmp_path: Path) -> None:
    first = write_jsonl(tmp_path / "data/2026/a.jsonl", ROWS[:10])
    write_jsonl(tmp_path / "data/2026/b.jsonl", ROWS[10:20])
    write_parquet(tmp_path / "data/2027/c.parquet", ROWS[20:30])
    (tmp_path / "data/2027/_SUCCESS").touch()
    assert records([str(tmp_path / "data"), first], context.config) == expected(ROWS[:30])
    assert records([str(tmp_path / "data/*/?.jsonl")], context.config) == expected(ROWS[:20])


def test_folders_of_partitions_are_columns(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "team=night%20shift/a.parquet", ROWS[:1])
    config = Context(ConfigTree.read(_config(tmp_path, payload=["team"]))).config
    (delivery,) = FragmentReader(config, "tickets").deliveries(list_inputs([path]).fragments[0])
    assert delivery.record is not None
    assert delivery.record.payload["team"] == "night shift"


def test_a_bad_row_is_told_apart_and_the_others_arrive(context: Context, tmp_path: Path) -> None:
    rows = [ROWS[0], {"id": "T-1", "title": " ", "v": 1}, {"title": "no key", "v": 1}, ROWS[3]]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write("{broken\n")
    found = FragmentReader(context.config, "tickets").deliveries(list_inputs([path]).fragments[0])
    assert [delivery.error for delivery in found] == [None, "text_empty", "no_key", None, "invalid_json"]
    assert [delivery.position.offset for delivery in found] == [0, 1, 2, 3, 4]


def test_a_row_without_a_version_loses_against_everything_live(tmp_path: Path) -> None:
    config = Context(ConfigTree.read(_config(tmp_path, version=None, generation=1))).config
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    assert {version for _, version, _ in records([path], config)} == {0}


@pytest.mark.parametrize(
    ("topic", "message"),
    [({"version": None}, "generation is 0"), ({"key": None}, "source.topics.tickets.key")],
)
def test_a_topic_whose_rows_could_tie_or_have_no_name_is_refused(
    topic: Mapping[str, Any], message: str, tmp_path: Path
) -> None:
    config = Context(ConfigTree.read(_config(tmp_path, **topic))).config
    with pytest.raises(ConfigError, match=message):
        check_topic("tickets", config.source.topics["tickets"])


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("none*.parquet", ConfigError, "no file matches"),
        ("missing.parquet", ConfigError, "no file matches"),
        ("notes.jsn", ConfigError, "Did you mean '.json'"),
    ],
)
def test_inputs_that_cannot_be_used_are_named(name: str, error: type[Exception], message: str, tmp_path: Path) -> None:
    (tmp_path / "notes.jsn").write_text("{}")
    with pytest.raises(error, match=message):
        list_inputs([str(tmp_path / name)])


def task_of(context: Context) -> Task:
    return context.tasks["one"]


def test_what_is_finished_is_remembered_until_the_file_or_the_task_changes(context: Context, tmp_path: Path) -> None:
    task, fragment = task_of(context), FilePart("a.jsonl", 10, 1, 0)
    ledger = Ledger(tmp_path / "ledger", [task], "tickets")
    assert ledger.left_of(fragment) == Work(fragment, ["one"], 0)
    ledger.note(Work(fragment, ["one"], 0), Outcome(Counts(3), 3, []), done=False)
    assert ledger.left_of(fragment) == Work(fragment, ["one"], 3)
    ledger.note(Work(fragment, ["one"], 3), Outcome(Counts(2), 5, []), done=True)
    ledger.close()
    again = Ledger(tmp_path / "ledger", [task], "tickets")
    assert again.left_of(fragment) == Work(fragment, [], 0)
    other, newer = FilePart("a.jsonl", 10, 1, 1), FilePart("a.jsonl", 11, 2, 0)
    assert again.left_of(other) == Work(other, ["one"], 0)
    assert again.left_of(newer) == Work(newer, ["one"], 0, changed=True)
    again.close()
    [found] = read_progress(tmp_path / "ledger")
    assert (found.fingerprint, found.num_done, found.num_begun, found.num_rows) == (task.fingerprint, 1, 0, 5)


def test_two_backfills_of_one_task_are_refused(context: Context, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger", [task_of(context)], "tickets")
    with pytest.raises(EnvironmentFault, match="'one': another backfill"):
        Ledger(tmp_path / "ledger", [task_of(context)], "tickets")
    ledger.close()
    Ledger(tmp_path / "ledger", [task_of(context)], "tickets").close()


def test_a_ledger_that_cannot_be_written_is_named(context: Context, tmp_path: Path) -> None:
    (tmp_path / "ledger").write_text("a file")
    with pytest.raises(EnvironmentFault, match="cannot be used"):
        Ledger(tmp_path / "ledger", [task_of(context)], "tickets")


def test_rejects_are_parquet_beside_the_ledger(tmp_path: Path) -> None:
    write_rejects(tmp_path, FilePart("a.jsonl", 10, 1, 0), [Reject(3, "text_empty", "", "why")], 0)
    (path,) = (tmp_path / "rejects").glob("*.parquet")
    assert pq.read_table(path).to_pylist() == [
        {"fragment": "a.jsonl#0", "row": 3, "reason": "text_empty", "task": "", "detail": "why"}
    ]
