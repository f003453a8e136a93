"""`refract produce`: a file's rows become records, keyed by what identifies them, at the asked rate."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.cli.exits import ExitCode
from pipeline.cli.main import invoke
from pipeline.errors import ConfigError, RefractError
from pipeline.records.files.record_files import FileRecord, Keys, count_records, keys_of, read_records
from pipeline.usecases.produce import pace
from tests.config_trees import ABSENT, parsed, tree

BY_ID = Keys("id")


def read(path: Path, keys: Keys = BY_ID) -> list[tuple[bytes | None, Any]]:
    return [
        (record.key, record.value if record.value is None else json.loads(record.value))
        for record in read_records(path, keys)
    ]


def written(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_csv_rows_become_objects_of_texts(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", '\ufeffid,title\n1,"two\nlines, ""quoted"""\n2,\n')
    assert read(path) == [(b"1", {"id": "1", "title": 'two\nlines, "quoted"'}), (b"2", {"id": "2", "title": ""})]
    assert count_records(path) == 2


def test_csv_columns_that_the_topic_counts_by_become_numbers(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "id,updated_at,other\n7,1767225600000,8\n")
    keys = keys_of("t", parsed(source__topics__tickets__key_type="integer").source.topics["tickets"], None, None)
    assert read(path, keys) == [(b"7", {"id": 7, "updated_at": 1_767_225_600_000, "other": "8"})]


def test_tab_separated_values(tmp_path: Path) -> None:
    assert read(written(tmp_path, "a.tsv", "id\ttitle\n1\ta,b\n")) == [(b"1", {"id": "1", "title": "a,b"})]


def test_a_json_line_is_sent_as_it_stands(tmp_path: Path) -> None:
    line = '{"id": 5,  "n": 1.10, "n2": 12345678901234567890123}'
    [record] = read_records(written(tmp_path, "a.jsonl", f"{line}\n\n"), BY_ID)
    assert record == FileRecord(b"5", line.encode())


def test_a_raw_line_is_sent_literally(tmp_path: Path) -> None:
    lines = ['{"_raw": "{broken", "_key": "k"}', '{"_raw": null, "_key": "k"}', '{"_raw": "x"}']
    records = list(read_records(written(tmp_path, "a.jsonl", "\n".join(lines)), BY_ID))
    assert records == [
        FileRecord(b"k", b"{broken"),
        FileRecord(b"k", None),
        FileRecord(None, b"x"),
    ]


def test_parquet_rows_become_objects(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": [1, 2], "nested": [{"a": 1}, None]}), path)
    assert read(path) == [(b"1", {"id": 1, "nested": {"a": 1}}), (b"2", {"id": 2, "nested": None})]
    assert count_records(path) == 2


@pytest.mark.parametrize(
    ("row", "key"),
    [
        ('{"id": "a"}', b"a"),
        ('{"id": 5}', b"5"),
        ('{"id": null}', None),
        ('{"id": true}', None),
        ('{"id": [1]}', None),
        ("{}", None),
    ],
)
def test_the_message_key_is_a_text_or_a_number_or_absent(row: str, key: bytes | None, tmp_path: Path) -> None:
    assert read(written(tmp_path, "a.jsonl", row))[0][0] == key


def test_a_key_may_be_nested(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl", '{"customer": {"id": 3}}')
    assert read(path, Keys("customer.id"))[0][0] == b"3"


def test_rows_without_an_identifier_can_be_numbered(tmp_path: Path) -> None:
    topic = parsed().source.topics["tickets"]
    keys = keys_of("tickets", topic, None, "id")
    rows = [(b"1", {"title": "a", "id": "1"}), (b"2", {"title": "b", "id": "2"})]
    assert read(written(tmp_path, "a.csv", "title\na\nb\n"), keys) == rows
    assert read(written(tmp_path, "a.jsonl", '{"title": "a"}\n{"title": "b"}\n'), keys) == rows


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("a.csv", "title\nx\n", ConfigError, "no column 'id' to take the key from"),
        ("a.csv", "id,title\n1\n", RefractError, "row 1: has not as many fields as the header"),
        ("a.csv", "id\n1,2\n", RefractError, "row 1: has not as many fields"),
        ("a.csv", 'id\n"open\n', RefractError, "not well-formed CSV"),
        ("a.csv", b"id\n\xff\n", ConfigError, "not UTF-8"),
        ("a.jsonl", '{"id": 1}\n{oops\n', RefractError, "line 2: not a JSON object"),
        ("a.jsonl", "[1]\n", RefractError, "line 1: not a JSON object"),
        ("a.parquet", "no", ConfigError, "is not a Parquet file"),
        ("a.xlsx", "", ConfigError, "expected a file that ends in .csv, .tsv"),
    ],
)
def test_a_file_that_cannot_be_sent_is_refused_with_the_row(
    name: str, content: str | bytes, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        read(written(tmp_path, name, content))


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_missing_file_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / name)


def test_a_topic_keyed_by_the_message_key_needs_a_column() -> None:
    topic = parsed(source__topics__tickets__key=ABSENT).source.topics["tickets"]
    with pytest.raises(ConfigError, match="name the column with --key"):
        keys_of("tickets", topic, None, None)
    assert keys_of("tickets", topic, "id", None).field == "id"


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
    for _ in pace([FileRecord(None, b"x")] * 5, 10, clock, clock.sleep):
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
