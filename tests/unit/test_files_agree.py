"""One reader of files: whatever a column holds and whatever the topic asks of it, all verbs make the same of a row.

A table of columns, every Arrow type as Parquet, and its values as JSON and CSV, under every use that a topic has of a
field, through `backfill`, `produce`, `verify --input` and `plan`; and the formats among each other.
"""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.arrow_columns import BAD, COLUMNS, name_of
from tests.unit.file_verbs import REFUSED, agreed, config_of, outcomes

USES: dict[str, dict[str, Any]] = {
    "payload": {"payload": ["x"]},
    "text": {"text": "{x}"},
    "optional text": {"text": "{x?}{text}"},
    "key": {"key": "x"},
    "integer key": {"key": "x", "key_type": "integer"},
    "version": {"version": "x"},
    "integer version": {"version": "x", "version_type": "integer"},
    "time version": {"version": "x", "version_type": "time"},
    "schema version": {"schema_version": {"field": "x", "max": 5}},
    "deleted when true": {"delete_when": {"field": "x", "equals": True}},
    "deleted when 1": {"delete_when": {"field": "x", "equals": 1}},
    "deleted when 1.5": {"delete_when": {"field": "x", "equals": 1.5}},
    "deleted when a": {"delete_when": {"field": "x", "equals": "a"}},
    "deleted when null": {"delete_when": {"field": "x", "equals": None}},
    "nested path": {"payload": {"inner": "x.a"}},
}
VERSIONED = {"version": "v"}
"""verify reads files of topics whose rows have versions only."""

Row = dict[str, Any]


def rows_of(values: Sequence[Any]) -> list[Row]:
    return [{"id": str(number), "text": f"t{number}", "v": number, "x": value} for number, value in enumerate(values)]


def put_parquet(path: Path, column: Any) -> Path:
    rows = rows_of([None] * len(column))
    columns = {name: [row[name] for row in rows] for name in ("id", "text", "v")}
    pq.write_table(pa.table({**columns, "x": column}), path, row_group_size=3)
    return path


def put_json(path: Path, rows: Sequence[Row]) -> Path:
    path.write_text(json.dumps(rows) if path.suffix == ".json" else "\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def put_csv(path: Path, rows: Sequence[Row]) -> Path:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, ["id", "text", "v", "x"])
    writer.writeheader()
    writer.writerows({**row, "x": cell_of(row["x"])} for row in rows)
    path.write_bytes(file.getvalue().encode())
    return path


def cell_of(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


@pytest.mark.parametrize("use", list(USES))
@pytest.mark.parametrize(("column", "expected"), COLUMNS, ids=[name_of(column) for column, _ in COLUMNS])
def test_all_verbs_agree_on_every_type_of_column_in_every_format(
    column: Any, expected: Sequence[Any], use: str, tmp_path: Path
) -> None:
    config = config_of(**(VERSIONED | USES[use]))
    parquet = agreed(outcomes(put_parquet(tmp_path / "a.parquet", column), config))
    good = rows_of([None if value is BAD else value for value in expected])
    lines = agreed(outcomes(put_json(tmp_path / "a.jsonl", good), config))
    array = agreed(outcomes(put_json(tmp_path / "a.json", good), config))
    agreed(outcomes(put_csv(tmp_path / "a.csv", good), config))
    assert lines == array
    assert len(lines) == len(expected)
    if parquet == REFUSED:
        assert use != "payload"
        return
    # What is bad is rejected; everything else is what the same JSON is.
    needed = "x" in config.source.topics["tickets"].model_dump_json()
    for value, by_parquet, by_json in zip(expected, parquet, lines, strict=True):
        if value is BAD and needed:
            assert by_parquet in {"invalid_row", "duplicate_field"}
        elif value is not BAD and _is_not_decimal(column, use):
            assert by_parquet == by_json


def _is_not_decimal(column: Any, use: str) -> bool:
    """A decimal counts where the topic counts; the JSON text of its digits does not."""
    return not pa.types.is_decimal(column.type) or use in {"payload", "text", "key", "deleted when a"}


CELLS: list[tuple[dict[str, Any], list[tuple[str, Any]]]] = [
    (
        {"key": "x", "key_type": "integer"},
        [
            ("7", 7),
            ("-7", -7),
            ("007", 7),
            ("-0", 0),
            ("1234567890123456789", 1_234_567_890_123_456_789),
            (str(2**63 - 1), 2**63 - 1),
            (str(-(2**63)), -(2**63)),
            (str(2**63), 2**63),
            (str(2**64 - 1), 2**64 - 1),
            (str(2**64), "x"),
            (str(-(2**63) - 1), "x"),
            ("--5", "--5"),
            ("+5", "+5"),
            ("\u00b2", "\u00b2"),
            ("\u0661", "\u0661"),
            ("5.0", "5.0"),
            ("1_000", "1_000"),
            (" 5", " 5"),
            ("5\n", "5\n"),
            ("", None),
            ("9" * 5_000, "x"),
            ("0" * 5_000 + "9", 9),
        ],
    ),
    ({"version": "x"}, [("5", 5), ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"), ("--5", "--5"), ("", None)]),
    (
        {"version": "x", "version_type": "integer"},
        [("5", 5), ("2026-01-01T00:00:00Z", "2026"), ("\u00b2", "x"), ("", None)],
    ),
    ({"version": "x", "version_type": "time"}, [("1000", 1_000), ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z")]),
    (
        {"delete_when": {"field": "x", "equals": True}},
        [
            (text, value)
            for value in (True, False)
            for text in (["true", "TRUE", "t", "1", "yes", "Y"] if value else ["false", "False", "f", "0", "no", "n"])
        ]
        + [("", None)],
    ),
    ({"delete_when": {"field": "x", "equals": False}}, [("false", False), ("true", True), ("0", False), ("", None)]),
    (
        {"delete_when": {"field": "x", "equals": 1}},
        [("1", 1), ("01", 1), ("2", 2), ("open", "open"), ("1.0", "1.0"), ("", None)],
    ),
    (
        {"delete_when": {"field": "x", "equals": 1.5}},
        [("1.5", 1.5), ("1.50", 1.5), ("15e-1", 1.5), ("2", 2.0), ("1e999", "1e999"), ("open", "open")],
    ),
    ({"delete_when": {"field": "x", "equals": None}}, [("", None), ("null", "null")]),
    ({"delete_when": {"field": "x", "equals": "true"}}, [("true", "true"), ("True", "True"), ("", "")]),
    ({"schema_version": {"field": "x", "max": 5}}, [("5", 5), ("6", 6), ("five", "five"), ("", None)]),
    ({"payload": ["x"]}, [("5", "5"), ("true", "true"), ("", ""), ("null", "null"), ('{"a": 1}', '{"a": 1}')]),
]
"""(what the topic has of the column x, [(cell of CSV, the JSON value that it means)])."""


@pytest.mark.parametrize(("use", "cells"), CELLS, ids=[str(use) for use, _ in CELLS])
@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_a_cell_of_csv_means_what_the_topic_compares_it_with(
    use: dict[str, Any], cells: Sequence[tuple[str, Any]], ending: str, tmp_path: Path
) -> None:
    config = config_of(**(VERSIONED | use))
    rows = rows_of([text for text, _ in cells])
    path = put_csv(tmp_path / "a.csv", rows)
    if ending == ".tsv":
        path = path.rename(tmp_path / "a.tsv")
        path.write_bytes(path.read_bytes().replace(b",", b"\t"))
    found = agreed(outcomes(path, config))
    meant = agreed(outcomes(put_json(tmp_path / "a.jsonl", rows_of([value for _, value in cells])), config))
    assert found == meant


def test_a_cell_that_is_neither_true_nor_false_costs_its_row(tmp_path: Path) -> None:
    config = config_of(**VERSIONED, delete_when={"field": "x", "equals": True})
    found = agreed(outcomes(put_csv(tmp_path / "a.csv", rows_of(["maybe", "true", "X"])), config))
    assert [found[0], found[2]] == ["invalid_row", "invalid_row"]
    assert found[1][2] is None


NOTHING: list[tuple[str, str, bytes, dict[str, Any], list[str | None]]] = [
    ("no bytes", f"a{format_}{compression}", b"", {}, ["failed"])
    for format_ in (".csv", ".jsonl", ".json", ".parquet")
    for compression in (".gz", ".zst", ".bz2")
]
FILES: list[tuple[str, str, bytes, dict[str, Any], list[str | None]]] = [
    ("an empty file", "a.csv", b"", {}, []),
    ("a header alone", "a.csv", b"id,text,v", {}, []),
    (
        "ragged rows",
        "a.csv",
        b"id,text,v\n1,a,1\n2,b\n3,c,3,4\n4,d,4\n",
        {},
        [None, "invalid_row", "invalid_row", None],
    ),
    ("a row that is not UTF-8", "a.csv", b"id,text,v\n1,\xe9,1\n2,b,2\n", {}, ["invalid_row", None]),
    ("bytes that nobody reads", "a.csv", b"id,text,v,other\n1,a,1,\xe9\n", {}, [None]),
    (
        "a row of 3 MB",
        "a.csv",
        b"id,text,v\n1," + b"x" * 3_000_000 + b",1\n2,b,2\n",
        {"limits": {"max_record_bytes": 1_048_576}},
        ["record_too_large", None],
    ),
    ("an unclosed quote", "a.csv", b'id,text,v\n1,"a,1\n2,b,2\n3,c,3\n', {}, ["invalid_row", None, None]),
    ("no column of the key", "a.csv", b"text,v\na,1\n", {}, ["refused"]),
    ("a header that is not UTF-8", "a.csv", b"id,text,\xe9\n1,a,1\n", {}, ["failed"]),
    ("a byte order mark", "A.CSV", b"\xef\xbb\xbfid,text,v\n1,a,1\n", {}, [None]),
    ("a byte order mark", "a.ndjson", b'\xef\xbb\xbf{"id": "1", "text": "a", "v": 1}\n', {}, [None]),
    (
        "broken lines",
        "a.jsonl",
        b'{"id": "1", "text": "a", "v": 1}\n{"id"\n\n[1]\nnull\n',
        {},
        [None, "invalid_json", "not_an_object", "not_an_object"],
    ),
    ("a name twice", "a.jsonl", b'{"id": "1", "text": "a", "v": 1, "v": 2}\n', {}, ["duplicate_field"]),
    ("NaN", "a.jsonl", b'{"id": "1", "text": "a", "v": NaN}\n', {}, ["invalid_json"]),
    (
        "a long line",
        "a.jsonl",
        b'{"id": "1", "text": "' + b"x" * 2_000 + b'"}\n{"id": "2", "text": "b", "v": 1}',
        {"limits": {"max_record_bytes": 1_024}},
        ["record_too_large", None],
    ),
    (
        "a raw message",
        "a.jsonl",
        b'{"_raw": "{\\"id\\": \\"1\\", \\"text\\": \\"a\\", \\"v\\": 1}", "_key": "k"}\n',
        {},
        [None],
    ),
    ("a raw tombstone without a key", "a.jsonl", b'{"_raw": null}', {}, ["no_key"]),
    (
        "a raw tombstone",
        "a.jsonl",
        b'{"_raw": null, "_key": "k"}\n{"_raw": "{broken", "_key": "k"}',
        {},
        ["version_missing", "invalid_json"],
    ),
    (
        "broken values",
        "a.json",
        b'[{"id": "1", "text": "a", "v": 1},\n5,\n{"id": "2},\n{"id": "4", "text": "d", "v": 1}]',
        {},
        [None, "not_an_object", "invalid_json", None],
    ),
    ("an array cut short", "a.json", b'[{"id": "1", "text": "a", "v": 1},', {}, [None, "failed"]),
    ("not Parquet", "a.parquet", b"x", {}, ["failed"]),
    ("not gzip", "a.csv.gz", b"x", {}, ["failed"]),
    *NOTHING,
    (
        "integers beyond what Kafka's key can spell",
        "a.csv",
        b"id,text,v\n5,a,1\n9223372036854775808,b,2\n2147483648,c,3\n",
        {"key_type": "integer", "kafka_key": "int32"},
        [None, "invalid_key", "invalid_key"],
    ),
    ("a payload column twice", "a.csv", b"id,text,v,x,x\n1,a,1,b,c\n", {"payload": ["x"]}, ["refused"]),
    ("another column twice", "a.csv", b"id,text,v,y,y\n1,a,1,b,c\n", {"payload": ["x"]}, [None]),
    (
        "a text nested deeper than JSON is written",
        "a.jsonl",
        b'{"id": "1", "text": ' + b"[" * 255 + b"]" * 255 + b', "v": 1}\n{"id": "2", "text": "b", "v": 2}\n',
        {"limits": {"max_depth": 500}},
        ["too_deep", None],
    ),
    ("another ending", "a.xml", b"x", {}, ["refused"]),
    ("a dotted name", "a.jsonl", b'{"id": "1", "v": 1, "service.name": "a"}\n', {"text": "{service.name}"}, [None]),
    ("a quoted path", "a.csv", b"id,v,service.name\n1,1,a\n", {"text": '{"service.name"}'}, [None]),
]
"""(what is odd, name, content, topic, what becomes of each row: None is good)."""


@pytest.mark.parametrize(
    ("what", "name", "content", "topic", "expected"), FILES, ids=[f"{each[0]}: {each[1]}" for each in FILES]
)
def test_all_verbs_agree_on_odd_files(
    what: str, name: str, content: bytes, topic: dict[str, Any], expected: list[str | None], tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    found = agreed(outcomes(path, config_of(**(VERSIONED | topic))))
    assert [each if isinstance(each, str) else None for each in found] == expected, what


@pytest.mark.parametrize("size", [1_015, 1_016, 1_017, 1_018, 1_019, 1_020, 1_021, 1_022, 1_023, 1_024, 1_025, 1_030])
@pytest.mark.parametrize("ending", [".jsonl", ".parquet", ".csv"])
def test_a_record_of_about_the_largest_size_is_judged_the_same(size: int, ending: str, tmp_path: Path) -> None:
    config = config_of(**VERSIONED, limits={"max_record_bytes": 1_024})
    row = {"id": "key", "text": "", "v": 1}
    row["text"] = "x" * (size - len(json.dumps(row, separators=(",", ":"))))
    path = tmp_path / f"a{ending}"
    if ending == ".parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
    elif ending == ".jsonl":
        path.write_text(json.dumps(row, separators=(",", ":")))
    else:
        path.write_text(f"id,text,v\n{row['id']},{row['text']},1\n")
    (found,) = agreed(outcomes(path, config))
    assert (found == "record_too_large") == (size + len("key") > 1_024)


def test_columns_that_are_too_deep_are_judged_as_json_is(tmp_path: Path) -> None:
    kind: Any = pa.int64()
    value: Any = 1
    for _ in range(5):
        kind, value = pa.list_(kind), [value]
    for max_depth, reason in ((6, None), (5, "too_deep")):
        config = config_of(**VERSIONED, payload=["x"], limits={"max_depth": max_depth})
        parquet = agreed(outcomes(put_parquet(tmp_path / "a.parquet", pa.array([value, None], kind)), config))
        lines = agreed(outcomes(put_json(tmp_path / "a.jsonl", rows_of([value, None])), config))
        assert parquet == lines
        assert (parquet[0] if isinstance(parquet[0], str) else None) == reason
