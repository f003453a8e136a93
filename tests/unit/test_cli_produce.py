"""`refract produce`: a file's rows become records, keyed by what identifies them, at the asked rate."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import pytest
import yaml

from pipeline.cli.exits import ExitCode
from pipeline.cli.main import invoke
from pipeline.records.files.messages import Message
from pipeline.sources.client.producer import MAX_REQUEST_BYTES
from pipeline.usecases.produce import pace
from tests.config_trees import tree


def written(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, duration_s: float) -> None:
        self.now_s += duration_s


def test_a_rate_is_kept_on_average_without_bursts() -> None:
    clock = Clock()
    times = []
    for _ in pace([Message(None, b"x")] * 5, 10, clock, clock.sleep):
        times.append(round(clock.now_s - 100, 3))
        if len(times) == 2:
            clock.now_s += 1.0
    assert times[:2] == [0.0, 0.1]
    gaps = [round(later - earlier, 3) for earlier, later in pairwise(times[2:])]
    assert all(gap >= 0.099 for gap in gaps[1:])


class FakeProducer:
    sent: list[tuple[str, bytes | None, bytes | None]]

    def __init__(self, _config: Any) -> None:
        self.flushed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.flushed

    def send(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        self.sent.append((topic, key, value))

    def flush(self) -> None:
        self.flushed = True


@pytest.fixture
def produce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    @contextmanager
    def admin(*_: Any) -> Iterator[None]:
        yield

    topics = {"tickets"}
    FakeProducer.sent = []
    monkeypatch.setattr("pipeline.sources.client.producer.RecordProducer", FakeProducer)
    monkeypatch.setattr("pipeline.sources.client.admin.open_admin", admin)
    monkeypatch.setattr("pipeline.sources.client.admin.topic_exists", lambda _admin, topic: topic in topics)
    monkeypatch.setattr(
        "pipeline.sources.client.admin.create_topics", lambda config, _count: topics.update(config.topics)
    )

    def run(*args: str, **changes: Any) -> int:
        config = tmp_path / "test.yaml"
        config.write_text(yaml.safe_dump(tree(**changes)), encoding="utf-8")
        return invoke(["produce", str(config), *args])

    return run


def test_records_are_sent_in_order_and_counted(
    produce: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, "a.jsonl", "".join(f'{{"id": {n}}}\n' for n in range(500)))
    assert produce(str(file), "--limit", "450", "--json") == ExitCode.OK
    assert [key for _, key, _ in FakeProducer.sent] == [str(n).encode() for n in range(450)]
    assert {topic for topic, _, _ in FakeProducer.sent} == {"tickets"}
    assert json.loads(capsys.readouterr().out)["sent"] == 450


def test_the_summary_is_one_line(
    produce: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert produce(str(written(tmp_path, "a.jsonl", '{"id": 1}'))) == ExitCode.OK
    assert capsys.readouterr().out.startswith("sent 1 records to tickets in ")


def test_a_topic_must_be_chosen_among_several_and_must_exist(
    produce: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(written(tmp_path, "a.jsonl", '{"id": 1}'))
    more = {"source__topics__reviews": {"text": "{text}", "key": "id", "tasks": ["urgency"]}}
    assert produce(file, **more) == ExitCode.CONFIG
    assert "choose one of the source topics with --topic: reviews, tickets" in capsys.readouterr().err
    assert produce(file, "--topic", "review", **more) == ExitCode.CONFIG
    assert "Did you mean 'reviews'?" in capsys.readouterr().err
    assert produce(file, "--topic", "reviews", **more) == ExitCode.CONFIG
    assert "the cluster has no topic 'reviews'; --create N" in capsys.readouterr().err
    assert produce(file, "--topic", "reviews", "--create", "2", **more) == ExitCode.OK
    assert FakeProducer.sent == [("reviews", b"1", b'{"id": 1}')]


def test_rows_and_files_that_cannot_be_sent_are_named_and_the_rest_is_sent(
    produce: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    written(folder, "a.csv", b"id,title,body,updated_at\n1,a,a,1\n2,\xff,b,1\n3,c\n4,d,d,1\n")
    written(folder, "b.parquet", "not Parquet")
    long = '{"id": "7", "body": "' + "x" * MAX_REQUEST_BYTES + '"}'
    written(folder, "c.jsonl", f'{{"id": "5"}}\n{{oops\n{{"_raw": null}}\n{long}\n')
    written(folder, "notes.txt", "x")
    assert produce(str(folder), "--json", limits__max_record_bytes=100_000_000) == ExitCode.FAILED
    assert [key for _, key, _ in FakeProducer.sent] == [b"1", b"4", b"5"]
    shown = capsys.readouterr()
    report = json.loads(shown.out)
    assert (report["sent"], report["rejected"]) == (
        3,
        {"invalid_row": 2, "invalid_json": 1, "no_key": 1, "record_too_large": 1},
    )
    assert list(report["failed"]) == [f"{folder}/b.parquet#0"]
    for words in (
        "a.csv, line 3: invalid_row: column 'title': not UTF-8",
        "a.csv, line 4: invalid_row: 2 fields, the header has 4",
        "c.jsonl, line 2: invalid_json",
        "b.parquet#0: cannot be read beyond row 0",
        "1 file (notes.txt)",
    ):
        assert words in shown.err
