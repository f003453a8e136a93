"""The reader of files: which files inputs name, and the same rows of every format, compressed or not."""

import bz2
import csv
import gzip
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from pipeline.config.pipeline import LimitsConfig
from pipeline.config.source import TopicConfig
from pipeline.errors import ConfigError, EnvironmentFault
from pipeline.records.files import listing
from pipeline.records.files.listing import FilePart, left_out_words, list_files
from pipeline.records.files.reader import read_rows
from pipeline.records.files.reading import FileFault, Reading, Row, reading_of

ROWS = [{"id": f"T-{number}", "text": f'a "row",\r\nnumber {number} \u00e9', "v": number} for number in range(50)]


def reading(limits: dict[str, int] | None = None, /, **topic: Any) -> Reading:
    tree = {"key": "id", "text": "{text}", "version": "v", "tasks": ["one"]} | topic
    config = TopicConfig.model_validate({name: value for name, value in tree.items() if value is not None})
    return reading_of(config, LimitsConfig.model_validate(limits or {}), all_columns=True)


def as_csv(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=20)
    return file.getvalue()


def as_lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


FORMATS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    ".csv": as_csv,
    ".tsv": lambda rows: as_csv(rows, "\t"),
    ".jsonl": as_lines,
    ".ndjson": as_lines,
    ".json": lambda rows: json.dumps(rows, indent=1).encode(),
    ".parquet": as_parquet,
}
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
    ".zstd": zstandard.compress,
    ".bz2": bz2.compress,
}


def put(path: Path, content: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


def rows_in(*inputs: str, by: Reading | None = None, start: int = 0) -> list[Row]:
    return [row for part in list_files(inputs).parts for row in read_rows(part, by or reading(), start)]


def fields_in(*inputs: str, by: Reading | None = None) -> list[Any]:
    """Of each row its fields, or why it has none."""
    found: list[Any] = []
    for row in rows_in(*inputs, by=by):
        text = None if row.text is None else json.loads(row.text)
        found.append(f"{row.place}: {row.error.detail}" if row.error else row.fields or text)
    return found


@pytest.mark.parametrize("compression", list(COMPRESSIONS))
@pytest.mark.parametrize("ending", list(FORMATS))
@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_every_format_has_the_same_rows_however_it_is_compressed(
    ending: str, compression: str, case: Callable[[str], str], tmp_path: Path
) -> None:
    path = put(tmp_path / f"rows{case(ending + compression)}", COMPRESSIONS[compression](FORMATS[ending](ROWS)))
    assert fields_in(path) == ROWS


@pytest.mark.parametrize("compression", ["", ".gz"])
@pytest.mark.parametrize("ending", list(FORMATS))
@pytest.mark.parametrize("start", [0, 1, 19, 20, 33, 50])
def test_reading_may_begin_at_any_row(ending: str, compression: str, start: int, tmp_path: Path) -> None:
    path = put(tmp_path / f"rows{ending}{compression}", COMPRESSIONS[compression](FORMATS[ending](ROWS[:20])))
    whole = [(row.place, row.fields, row.text) for row in rows_in(path)]
    assert [(row.place, row.fields, row.text) for row in rows_in(path, start=start)] == whole[start:]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
def test_a_byte_order_mark_is_no_part_of_the_text(name: str, tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + FORMATS[Path(name).suffix](ROWS[:2])
    assert fields_in(put(tmp_path / name, content)) == ROWS[:2]
    assert all(not (row.text or b"").startswith(b"\xef") for row in rows_in(str(tmp_path / name)))


def test_several_compressed_pieces_in_one_file_are_all_read(tmp_path: Path) -> None:
    for ending in (".gz", ".bz2", ".zst"):
        pieces = b"".join(COMPRESSIONS[ending](as_lines([row])) for row in ROWS)
        assert fields_in(put(tmp_path / f"a.jsonl{ending}", pieces)) == ROWS


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.zst", "a.parquet.bz2", "a.json.gz", "a.parquet"])
def test_a_damaged_file_gives_what_it_can_and_is_named(name: str, tmp_path: Path) -> None:
    many = [row | {"id": str(number), "text": f"{number * 7919}"} for number, row in enumerate(ROWS * 200)]
    format_, _, compression = name.removeprefix("a").rpartition(".") if name.count(".") > 1 else (".parquet", "", "")
    content = COMPRESSIONS[f".{compression}" if compression else ""](FORMATS[format_](many))
    path = put(tmp_path / name, content[: len(content) * 3 // 4])
    with pytest.raises(FileFault, match=rf"{name}#0: cannot be read beyond row \d+ \("):
        rows_in(path)


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz", "a.json.bz2", "a.parquet.zst", "a.parquet"])
def test_a_file_that_is_not_what_its_name_says_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileFault, match=f"{name}#0: cannot be read beyond row 0"):
        rows_in(put(tmp_path / name, b"something else"))


@pytest.mark.parametrize("name", ["data[1].csv", "a?.jsonl", "b*.json", "[x]/a.csv"])
def test_a_path_that_exists_is_that_path(name: str, tmp_path: Path) -> None:
    path = put(tmp_path / name, FORMATS[Path(name).suffix](ROWS[:1]))
    put(tmp_path / "data1.csv", as_csv(ROWS[:2]))
    put(tmp_path / "x" / "a.csv", as_csv(ROWS[:2]))
    assert fields_in(path) == ROWS[:1]
    assert [part.uri for part in list_files([str(Path(path).parent)]).parts if name.endswith(Path(part.uri).name)]


def test_a_glob_may_stand_in_a_folder_whose_name_looks_like_one(tmp_path: Path) -> None:
    put(tmp_path / "x[1]" / "a.csv", as_csv(ROWS[:1]))
    put(tmp_path / "x1" / "b.csv", as_csv(ROWS[:2]))
    assert [Path(part.uri).name for part in list_files([f"{tmp_path}/x[1]/*.csv"]).parts] == ["a.csv"]
    assert [Path(part.uri).name for part in list_files([f"{tmp_path}/x[0-9]/*.csv"]).parts] == ["b.csv"]


def test_what_a_folder_has_besides_is_named_and_counted(tmp_path: Path) -> None:
    put(tmp_path / "a.csv", as_csv(ROWS[:1]))
    for name in ("notes.txt", "b.xlsx", "c.csv.xz", "_SUCCESS", ".a.csv.crc", "_log/0.json"):
        put(tmp_path / name, b"x")
    found = list_files([str(tmp_path)])
    assert [Path(part.uri).name for part in found.parts] == ["a.csv"]
    assert {Path(path).name for path in found.left_out} == {"notes.txt", "b.xlsx", "c.csv.xz"}
    assert {Path(path).name for path in found.hidden} == {"_SUCCESS", ".a.csv.crc", "0.json"}
    words = left_out_words(found)
    assert "3 files (b.xlsx, c.csv.xz, notes.txt)" in words
    assert "3 files (.a.csv.crc, _SUCCESS, 0.json)" in words
    assert left_out_words(list_files([str(tmp_path / "*.csv")])) == ""


def test_a_name_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    put(tmp_path / "a.csv", as_csv(ROWS[:1]))
    odd = os.fsencode(tmp_path) + b"/caf\xe9.csv"
    Path(os.fsdecode(odd)).write_bytes(as_csv(ROWS[:1]))
    for given in (str(tmp_path), f"{tmp_path}/*.csv"):
        with pytest.raises(EnvironmentFault, match="the name of a file in it is not UTF-8; rename the file"):
            list_files([given])
    with pytest.raises(ConfigError, match=r"caf.udce9.csv': the path is not UTF-8"):
        list_files([os.fsdecode(odd)])
    assert fields_in(str(tmp_path / "a.csv")) == ROWS[:1]


@pytest.mark.parametrize(
    ("given", "message"), [("", "an empty name"), ("s3://[", "not an address"), ("file://x", "file")]
)
def test_an_input_that_names_nothing_is_refused(given: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        list_files([given])


def test_a_folder_of_other_files_says_which_it_has(tmp_path: Path) -> None:
    put(tmp_path / "notes.txt", b"x")
    with pytest.raises(ConfigError, match=r"no file matches \(left out: 1 file \(notes.txt\)\)"):
        list_files([str(tmp_path)])


@pytest.mark.parametrize(
    ("name", "hint"), [("a.jsn", "Did you mean '.json'"), ("a.csv.gzip", "Did you mean '.gz'"), ("a", "")]
)
def test_a_named_file_of_another_ending_is_refused(name: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"expected a name that ends in .csv, .*{hint}"):
        list_files([put(tmp_path / name, b"x")])


def test_folders_give_their_values_to_every_format_and_null_is_null(tmp_path: Path) -> None:
    for ending, write in FORMATS.items():
        for folder, value in (("night%20shift", "night shift"), ("__HIVE_DEFAULT_PARTITION__", None)):
            path = put(tmp_path / f"team={folder}" / f"a{ending}", write(ROWS[:2]))
            assert fields_in(path) == [{"team": value, **row} for row in ROWS[:2]], ending


def test_a_folder_is_read_as_what_the_topic_compares_it_with(tmp_path: Path) -> None:
    by = reading(delete_when={"field": "deleted", "equals": True}, version="at")
    for ending, write in FORMATS.items():
        path = put(tmp_path / "deleted=TRUE" / "at=007" / f"a{ending}", write([{"id": "a", "text": "t"}]))
        assert fields_in(path, by=by) == [{"deleted": True, "at": 7, "id": "a", "text": "t"}], ending
        path = put(tmp_path / "deleted=perhaps" / f"a{ending}", write([{"id": "a", "text": "t"}]))
        (refused,) = fields_in(path, by=by)
        assert refused.endswith("folder 'deleted': not true or false"), ending


def test_a_field_of_the_row_wins_over_its_folder(tmp_path: Path) -> None:
    for ending, write in FORMATS.items():
        assert fields_in(put(tmp_path / "text=folder" / f"a{ending}", write(ROWS[:1]))) == ROWS[:1]


def test_a_csv_row_names_its_column_and_line(tmp_path: Path) -> None:
    content = (
        b"id,text,v,other\n1,\xe9,1,x\n2,ok,--5,x\n3,ok,3,\xe9\n4,ok,\xc2\xb2,x\n5,ok,0123456789012345678,x\n6,ok\n"
    )
    by = reading(version_type="integer")
    assert fields_in(put(tmp_path / "a.csv", content), by=by) == [
        "line 2: column 'text': not UTF-8",
        "line 3: column 'v': not an integer of 64 bits",
        {"id": "3", "text": "ok", "v": 3, "other": None},
        "line 5: column 'v': not an integer of 64 bits",
        {"id": "5", "text": "ok", "v": 123_456_789_012_345_678, "other": "x"},
        "line 7: 2 fields, the header has 4",
    ]


def test_a_row_of_parquet_is_numbered_through_its_file(tmp_path: Path) -> None:
    days = pa.array([0] * 24 + [2_932_897], pa.int32()).cast(pa.date32())
    pq.write_table(
        pa.table({"id": [str(n) for n in range(25)], "text": days}), tmp_path / "a.parquet", row_group_size=10
    )
    (bad,) = [row for row in rows_in(str(tmp_path / "a.parquet")) if row.error]
    assert (bad.place, str(bad.error)) == (
        "row 25",
        "invalid_row: column 'text': a date outside the years 1 to 9999",
    )


def test_a_decimal_counts_where_the_topic_counts_and_is_a_text_elsewhere(tmp_path: Path) -> None:
    from decimal import Decimal  # noqa: PLC0415 - the one test of it

    column = pa.array([Decimal(7), Decimal(10) ** 30, None], pa.decimal128(38, 0))
    pq.write_table(pa.table({"id": column, "text": column}), tmp_path / "a.parquet")
    by = reading(key_type="integer", version=None)
    assert fields_in(str(tmp_path / "a.parquet"), by=by) == [
        {"id": 7, "text": "7"},
        "row 2: column 'id': not an integer of 64 bits",
        {"id": None, "text": None},
    ]


def test_only_the_needed_columns_are_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    topic = TopicConfig.model_validate({"key": "id", "text": "{text}", "payload": ["a.b"], "tasks": ["one"]})
    by = reading_of(topic, LimitsConfig())
    rows = [{"id": "1", "text": "t", "a.b": "flat", "a": "x", "other": "y"}]
    for ending in (".csv", ".tsv", ".parquet"):
        assert fields_in(put(tmp_path / f"a{ending}", FORMATS[ending](rows)), by=by) == [
            {"id": "1", "text": "t", "a.b": "flat", "a": "x"}
        ]


@pytest.mark.parametrize("range_bytes", [1, 100, 10_000])
def test_json_lines_are_split_by_bytes_and_other_files_are_not(
    range_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "RANGE_BYTES", range_bytes)
    path = put(tmp_path / "a.jsonl", as_lines(ROWS))
    assert len(list_files([path]).parts) == -(-len(as_lines(ROWS)) // range_bytes)
    assert fields_in(path) == ROWS
    for name in ("b.jsonl.gz", "b.json", "b.csv"):
        ending = Path(name).suffixes[0]
        content = COMPRESSIONS[".gz" if name.endswith(".gz") else ""](FORMATS[ending](ROWS))
        assert len(list_files([put(tmp_path / name, content)]).parts) == 1


def test_a_file_replaced_while_it_is_read_is_named(tmp_path: Path) -> None:
    path = Path(put(tmp_path / "a.csv", as_csv(ROWS)))
    rows = read_rows(list_files([str(path)]).parts[0], reading())
    next(rows)
    path.write_bytes(as_csv(ROWS[:3]))
    with pytest.raises(FileFault, match=r"a.csv#0: the file was replaced while it was read"):
        list(rows)


def test_a_ledger_of_earlier_versions_still_knows_the_parts(tmp_path: Path) -> None:
    part = FilePart("/rows/a.jsonl", 10, 1, 2)
    assert (part.name, part.state) == ("/rows/a.jsonl#2", "10-1")
    path = put(tmp_path / "a.csv", as_csv(ROWS))
    assert [part.name for part in list_files([path, str(tmp_path)]).parts] == [f"{path}#0"]


def test_an_address_of_this_machine_is_read_like_its_path(tmp_path: Path) -> None:
    path = put(tmp_path / "team=a" / "rows.csv.gz", gzip.compress(as_csv(ROWS)))
    assert fields_in(f"file://{path}") == [{"team": "a", **row} for row in ROWS]
    assert fields_in(f"file://{tmp_path}/*/*.csv.gz") == [{"team": "a", **row} for row in ROWS]
