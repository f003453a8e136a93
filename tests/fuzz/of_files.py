"""Files of text: what is read and what is rejected account for every line, wherever their blocks end."""

import csv
import io
import json
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.errors import ConfigError, EnvironmentFault, RecordError
from pipeline.records.files.csv_rows import CsvRow, CsvTable
from pipeline.records.files.filesystems import open_filesystem
from pipeline.records.files.folders import hive_columns
from pipeline.records.files.json_rows import JsonArray, read_lines
from pipeline.records.files.kinds import kind_of
from pipeline.records.files.listing import list_files
from pipeline.records.files.reading import FileFault, Row
from pipeline.records.files.streams import BOM, Lines
from tests.fuzz.target import Target, choice

MAX_BYTES = (1 << 20, 24)


def blocks_at(content: bytes, size: int, offset: int) -> Iterator[bytes]:
    """Blocks of a file in memory."""
    for begin in range(offset, len(content), size):
        yield content[begin : begin + size]


def table(content: bytes, size: int, max_bytes: int) -> tuple[list[str], list[CsvRow]] | str:
    """Header and rows; in words, why there are none."""
    try:
        found = CsvTable(Lines(partial(blocks_at, content, size), max_bytes), ",", max_bytes)
    except FileFault as fault:
        return str(fault)
    return list(found.names), list(found)


def check_csv(data: bytes) -> None:
    """CSV, against the standard library's parser line by line."""
    number, content = choice(data)
    max_bytes = MAX_BYTES[number % 2]
    whole = table(content, max(len(content), 1), max_bytes)
    in_blocks = table(content, number % 7 + 1, max_bytes)
    assert shown(whole) == shown(in_blocks)
    if not isinstance(whole, str):
        accounted(content.removeprefix(BOM).splitlines(keepends=True), *whole, max_bytes)


def shown(found: tuple[list[str], list[CsvRow]] | str) -> Any:
    """What a table says, to compare."""
    if isinstance(found, str):
        return found
    return found[0], [
        (row.line, str(row.values) if isinstance(row.values, RecordError) else row.values) for row in found[1]
    ]


def accounted(lines: list[bytes], names: list[str], rows: list[CsvRow], max_bytes: int) -> None:
    """Fails where a line belongs to no row, or a row is not what its lines say."""
    if not names:
        assert not rows
        return
    first = rows[0].line if rows else len(lines) + 1
    assert parsed(lines[: first - 1]) in ([names], [names, None]), "lines between header and first row"
    ends = [*(following.line - 1 for following in rows[1:]), len(lines)]
    for row, end in zip(rows, ends, strict=False):
        assert row.line <= end, "lines are not in order"
        own = lines[row.line - 1 : end]
        found = parsed(own)
        if not isinstance(row.values, RecordError):
            assert found == [list(row.values)]
            assert len(row.values) == len(names)
        elif found is not None and len(found) == 1:
            assert len(found[0]) != len(names) or sum(map(len, own)) > max_bytes, "a good row is rejected"
        else:
            assert parsed(own[1:]) == [], "a rejected row takes lines with it"


def parsed(lines: list[bytes]) -> list[list[str]] | None:
    """What the standard library makes of lines, without blank ones; None where it makes nothing of them."""
    texts = [line.decode(errors="surrogateescape") for line in lines]
    try:
        return [row for row in csv.reader(texts, strict=True) if row]
    except csv.Error:
        return None


def check_json_array(data: bytes) -> None:
    """A JSON array: in any blocks the same, and what JSON's own reader reads is read."""
    number, content = choice(data)
    max_bytes = MAX_BYTES[number % 2]
    found = array(content, max(len(content), 1), max_bytes)
    assert list(map(str, found)) == list(map(str, array(content, number % 7 + 1, max_bytes)))
    lines = [int(each.at[1]) for each in found if isinstance(each, Row)]
    assert lines == sorted(lines)
    try:
        expected = json.loads(content)
    except (ValueError, RecursionError):
        return
    if isinstance(expected, list) and max_bytes > len(content) and not any(isinstance(each, str) for each in found):
        texts = [each.text for each in found if isinstance(each, Row) and each.text is not None]
        if len(texts) == len(found):
            assert [json.loads(text) for text in texts] == expected


def array(content: bytes, size: int, max_bytes: int) -> list[Row | str]:
    """Values of an array, and at last what is wrong with the file."""
    found: list[Row | str] = []
    try:
        found += JsonArray(partial(blocks_at, content, size), max_bytes)
    except FileFault as fault:
        found.append(str(fault))
    return found


def check_json_lines(data: bytes) -> None:
    """JSON Lines: ranges of bytes have each line once, and no line is lost."""
    number, content = choice(data)
    max_bytes = MAX_BYTES[number % 2]
    whole = [each.text or each.error for each in read_lines(io.BytesIO(content), 0, None, max_bytes)]
    longest = max_bytes + 2
    lines = content.split(b"\n")
    blank = [not line.strip() for line in (lines[0].removeprefix(BOM), *lines[1:])]
    assert len(whole) == sum(
        1 for line, is_blank in zip(lines, blank, strict=True) if not is_blank or len(line) >= longest
    )
    size = number % 50 + 1
    parts: list[bytes | RecordError | None] = []
    for begin in range(0, max(len(content), 1), size):
        file = io.BytesIO(content)
        file.seek(max(begin - 1, 0))
        parts += [each.text or each.error for each in read_lines(file, begin, begin + size, max_bytes)]
    assert list(map(str, parts)) == list(map(str, whole))


def check_inputs(data: bytes) -> None:
    """Names of files, folders and globs below a folder of this test, and addresses that are only opened."""
    text = data.decode(errors="surrogateescape").replace("\0", "").replace("..", "")
    hive_columns(text)
    kind_of(text)
    with TemporaryDirectory() as folder:
        (Path(folder) / "a=1").mkdir()
        for name in ("a.csv", "data[1].csv", "a=1/b.jsonl.gz", "notes.txt"):
            (Path(folder) / name).write_bytes(b"id,text\n")
        with suppress(ConfigError, EnvironmentFault):
            parts = list_files([f"{folder}/{text}"]).parts
            assert all(part.uri.startswith(folder) for part in parts)
    with suppress(ConfigError, EnvironmentFault):
        open_filesystem(f"file://{text}")


CSV = Target(
    check_csv,
    [
        b"\x00id,text\n1,a\n2,b\n",
        b'\x02id,text\r\n1,"a ""b"""\r\n2,"c\r\nd"\r\n',
        b"\x04\xef\xbb\xbfid,text\r1,a\r2,b",
        b'\x01id,text\n1,"open\n2,b\n3,c\n',
        b'\x03id,text\n1,"a"b\n2\n3,c,d\n\n4,\xe9\n',
        b"\x05a\n\n1\n",
        b'\x01id,text\n1,"a long row of more than a few bytes\nand more"\n2,b\n',
        b"\x00id,text\n1,a\x00b\n",
    ],
)
JSON_ARRAY = Target(
    check_json_array,
    [
        b'\x00[{"id":1},{"id":"a]"}]',
        b'\x03[\n  {"id": 1},\n  {"id": "open},\n  {"id": 3}\n]',
        b'\x02{"a":[1,{"b":2}]}\n{"c":"\\""}',
        b'\x05\xef\xbb\xbf[1, null, -1.5e3, "x", [2]]',
        b"\x00[[[[",
        b'\x01[{"id":1}',
    ],
)
JSON_LINES = Target(
    check_json_lines,
    [b'\x00{"id":1}\n\n{"id":2}\r\n', b"\x31\xef\xbb\xbf{}\n[1]\n x", b"\x03" + b"7" * 100 + b"\n{}\n"],
)
INPUTS = Target(
    check_inputs,
    [
        b"*.csv",
        b"data[1].csv",
        b"a=1/*",
        b"**",
        b"[",
        b"a.csv",
        b"s3://[",
        b"notes.txt",
        b"x=%zz/a.csv",
        b"a\xff.csv",
        b"",
    ],
    128,
)
