"""What the rows of files are as Kafka messages: keyed by what identifies them, JSON as it stands."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config.pipeline import LimitsConfig
from pipeline.config.source import TopicConfig
from pipeline.errors import ConfigError, RecordError
from pipeline.records.decode import TopicDecoder
from pipeline.records.files.messages import Keys, Message, Messages, RowDecoder, keys_of
from pipeline.records.files.reading import FileFault
from pipeline.records.files.topic_files import TopicFiles, first_value
from pipeline.records.record import Position
from pipeline.usecases.demo_setup import DemoRequest, _own_settings

BY_ID = Keys("id")


def topic(**changes: Any) -> TopicConfig:
    tree = {"key": "id", "text": "{title?}", "tasks": ["one"]} | changes
    return TopicConfig.model_validate({name: value for name, value in tree.items() if value is not None})


def messages(path: Path, keys: Keys = BY_ID, **changes: Any) -> list[Message | str]:
    """Of each row its message, or where and why it has none."""
    limits = LimitsConfig()
    made = Messages(keys, limits.max_depth)
    found: list[Message | str] = []
    for number, _, row in TopicFiles([str(path)], topic(**changes), limits, keys, all_columns=True).rows():
        try:
            found.append(made.of(row, number))
        except RecordError as error:
            found.append(f"{row.place}: {error}")
    return found


def read(path: Path, keys: Keys = BY_ID, **changes: Any) -> list[Any]:
    return [
        each if isinstance(each, str) else (each.key, each.value if each.value is None else json.loads(each.value))
        for each in messages(path, keys, **changes)
    ]


def written(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_csv_rows_become_objects_of_texts(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", '\ufeffid,title\n1,"two\nlines, ""quoted"""\n2,\n')
    assert read(path) == [(b"1", {"id": "1", "title": 'two\nlines, "quoted"'}), (b"2", {"id": "2", "title": ""})]


def test_csv_columns_that_the_topic_counts_by_become_numbers(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "id,updated_at,other\n7,1767225600000,8\n1234567890123456789,,8\n")
    assert read(path, version="updated_at", key_type="integer") == [
        (b"7", {"id": 7, "updated_at": 1_767_225_600_000, "other": "8"}),
        (b"1234567890123456789", {"id": 1_234_567_890_123_456_789, "updated_at": None, "other": "8"}),
    ]


def test_tab_separated_values(tmp_path: Path) -> None:
    assert read(written(tmp_path, "a.tsv", "id\ttitle\n1\ta,b\n")) == [(b"1", {"id": "1", "title": "a,b"})]


def test_a_json_line_is_sent_as_it_stands(tmp_path: Path) -> None:
    line = '{"id": 5,  "n": 1.10, "n2": 12345678901234567890123}'
    assert messages(written(tmp_path, "a.jsonl", f"\ufeff{line}\n\n")) == [Message(b"5", line.encode())]
    assert messages(written(tmp_path, "a.json", f"[{line}, {line}]")) == [Message(b"5", line.encode())] * 2


def test_a_raw_line_is_sent_literally(tmp_path: Path) -> None:
    lines = ['{"_raw": "{broken", "_key": "k"}', '{"_raw": null, "_key": "k"}', '{"_raw": "x"}']
    assert messages(written(tmp_path, "a.jsonl", "\n".join(lines))) == [
        Message(b"k", b"{broken"),
        Message(b"k", None),
        Message(None, b"x"),
    ]


def test_parquet_rows_become_objects(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": [1, 2], "nested": [{"a": 1}, None]}), path)
    assert read(path, key_type="integer") == [
        (b"1", {"id": 1, "nested": {"a": 1}}),
        (b"2", {"id": 2, "nested": None}),
    ]


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


@pytest.mark.parametrize(
    ("field", "row"),
    [
        ("customer.id", {"customer": {"id": 3}}),
        ("customer.id", {"customer.id": 3, "customer": {"id": 4}}),
        ('"customer.id"', {"customer.id": 3}),
        (r"customer\.id", {"customer.id": 3}),
        ('customer."the.id"', {"customer": {"the.id": 3}}),
    ],
)
def test_a_key_may_be_nested_or_have_a_dot_of_its_own(field: str, row: Any, tmp_path: Path) -> None:
    assert read(written(tmp_path, "a.jsonl", json.dumps(row)), Keys(field))[0][0] == b"3"


def test_rows_without_an_identifier_can_be_numbered(tmp_path: Path) -> None:
    keys = keys_of("tickets", topic(), None, "id")
    rows = [(b"1", {"title": "a", "id": "1"}), (b"2", {"title": "b", "id": "2"})]
    assert read(written(tmp_path, "a.csv", "title\na\n\nb\n"), keys) == rows
    assert read(written(tmp_path, "a.jsonl", '{"title": "a"}\n\n{"title": "b"}\n'), keys) == rows
    integers = keys_of("tickets", topic(key_type="integer"), None, "id")
    assert read(tmp_path / "a.csv", integers, key_type="integer")[0] == (b"1", {"title": "a", "id": 1})


def test_a_numbered_row_that_is_too_deep_to_be_written_is_not_sent(tmp_path: Path) -> None:
    deep = '{"title": ' + "[" * 255 + "]" * 255 + "}\n"
    found = read(written(tmp_path, "a.jsonl", deep + '{"title": "b"}\n'), keys_of("tickets", topic(), None, "id"))
    assert found[0].startswith("line 1: too_deep: nested deeper than 254")
    assert found[1] == (b"2", {"title": "b", "id": "2"})


@pytest.mark.parametrize(
    ("name", "content", "bad"),
    [
        ("a.csv", "id,title\n1\n2,b\n", "line 2: invalid_row: 1 fields, the header has 2"),
        ("a.csv", "id\n1,2\n2\n", "line 2: invalid_row: 2 fields, the header has 1"),
        ("a.csv", 'id,title\n1,"open\n2,b\n', "line 2: invalid_row: a quoted field is not closed"),
        ("a.csv", b"id,title\n1,\xff\n2,b\n", "line 2: invalid_row: column 'title': not UTF-8"),
        ("a.jsonl", '{oops\n{"id": "2"}\n', "line 1: invalid_json: line 1 column 2"),
        ("a.jsonl", '[1]\n{"id": "2"}\n', "line 1: not_an_object"),
        ("a.json", '[{"id": NaN},\n{"id": "2"}]', "line 1: invalid_json: NaN, Infinity"),
    ],
)
def test_a_row_that_cannot_be_sent_is_named_and_the_others_are_sent(
    name: str, content: str | bytes, bad: str, tmp_path: Path
) -> None:
    first, second = read(written(tmp_path, name, content))
    assert first.startswith(bad)
    assert second[0] == b"2"


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("a.csv", "title\nx\n", ConfigError, r"no column 'id', which `key` \(string\) needs"),
        ("a.csv", "id;title\n1;x\n", ConfigError, "divided by ';'"),
        ("a.parquet", "no", FileFault, "a.parquet#0: cannot be read"),
        ("a.xlsx", "", ConfigError, "expected a name that ends in .csv, .tsv"),
        ("b.csv", None, ConfigError, "no file matches"),
        ("b.parquet", None, ConfigError, "no file matches"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    name: str, content: str | None, error: type[Exception], message: str, tmp_path: Path
) -> None:
    path = tmp_path / name if content is None else written(tmp_path, name, content)
    with pytest.raises(error, match=message):
        read(path)


def test_a_topic_keyed_by_the_message_key_needs_a_column(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name the column with --key"):
        keys_of("tickets", topic(key=None), None, None)
    assert keys_of("tickets", topic(key=None), "id", None).field == "id"
    path = written(tmp_path, "a.csv", "id,title\n1,a\n")
    assert read(path, Keys("id"), key=None)[0][0] == b"1"
    with pytest.raises(ConfigError, match="no column 'nr', which the message key needs"):
        read(path, Keys("nr"), key=None)


@pytest.mark.parametrize(
    ("name", "content", "first"),
    [
        ("a.csv", "id\n\n1\n", "1"),
        ("a.jsonl", '{}\n{oops\n{"id": null}\n{"id": 1}\n{"id": "x"}\n', 1),
        ("a.json", '[{"id": "x"}]', "x"),
        ("a.jsonl", "{}\n", None),
    ],
)
def test_the_first_value_of_a_field_tells_what_it_holds(name: str, content: str, first: Any, tmp_path: Path) -> None:
    assert first_value(str(written(tmp_path, name, content)), "id") == first


@pytest.mark.parametrize(("ids", "key_type"), [([1, 2], "integer"), (["1", "2"], None)])
def test_the_demo_takes_keys_of_either_type(ids: list[Any], key_type: str | None, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": ids, "title": ["a", "b"], "body": [None, "c"]}), path)
    request = DemoRequest(data=str(path), text="{title} {body?}", key="id")
    settings = _own_settings({"tasks": ["one"]}, request)
    assert settings.get("key_type") == key_type
    assert settings["payload"] == ["title", "body"]
    config = TopicConfig.model_validate(settings)
    decoder = RowDecoder(
        TopicDecoder(config, LimitsConfig(), lambda _data, _headers: {}), BY_ID, config, LimitsConfig()
    )
    rows = TopicFiles([str(path)], config, LimitsConfig(), BY_ID, all_columns=True).rows()
    position = Position("t", 0, 0, -1)
    assert [decoder.record_of(row, number, position).text for number, _, row in rows] == ["a", "b c"]
