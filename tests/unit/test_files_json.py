"""JSON Lines and JSON arrays: split as Python's `json` reads them; a broken value costs itself, and none is held."""

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records.files.json_rows import JsonArray, read_lines
from pipeline.records.files.reading import FileFault, Row

MAX_BYTES = 1_000

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(alphabet='{}[],:"\\ \n\t\u00e9\U0001f600a', max_size=8)
VALUES = st.recursive(
    SCALARS | TEXTS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=8
)
OBJECTS = st.lists(st.dictionaries(TEXTS, VALUES, max_size=3), max_size=6)
BLOCKS = st.integers(1, 40)

Seen = tuple[str, bytes | str]


def blocks_of(content: bytes, block: int) -> Any:
    def blocks_at(offset: int) -> Iterator[bytes]:
        for begin in range(offset, len(content), block):
            yield content[begin : begin + block]

    return blocks_at


def shown(row: Row) -> bytes | str:
    return (row.text or b"") if row.error is None else row.error.detail


def values(content: bytes, block: int = 7, max_bytes: int = MAX_BYTES) -> list[Seen]:
    """The values by place: their text, or why they have none; last, what is wrong with the file."""
    found: list[Seen] = []
    try:
        found += ((row.place, shown(row)) for row in JsonArray(blocks_of(content, block), max_bytes))
    except FileFault as fault:
        found.append(("file", str(fault)))
    return found


@given(
    objects=OBJECTS,
    indent=st.sampled_from([None, 0, 2]),
    escaped=st.booleans(),
    block=BLOCKS,
    mark=st.sampled_from(["", "\ufeff"]),
)
def test_an_array_is_split_as_json_reads_it(
    objects: list[Any],
    indent: int | None,
    escaped: bool,  # noqa: FBT001 - drawn
    block: int,
    mark: str,
) -> None:
    content = (mark + json.dumps(objects, indent=indent, ensure_ascii=escaped)).encode()
    assert [json.loads(text) for _, text in values(content, block, 1 << 20)] == objects


@given(objects=OBJECTS, between=st.sampled_from(["\n", " ", "\r\n\r\n", ""]), block=BLOCKS)
def test_objects_one_after_another_are_read_too(objects: list[Any], between: str, block: int) -> None:
    content = between.join(map(json.dumps, objects)).encode()
    assert [json.loads(text) for _, text in values(content, block, 1 << 20)] == objects


@given(content=st.lists(st.sampled_from(list('{}[],:"\\\n a1')), max_size=60).map("".join), block=BLOCKS)
def test_whatever_the_bytes_it_ends_and_names_lines(content: str, block: int) -> None:
    found = values(content.encode(), block, 20)
    lines = [int(place.removeprefix("line ")) for place, _ in found if place != "file"]
    assert lines == sorted(lines)


@pytest.mark.parametrize(
    ("bad", "detail"),
    [
        ('{"id": "open},', "a string is not closed on its line"),
        ('{"id": [1}},', "brackets do not match"),
        ("[" * 2_000 + ",", "1,000 brackets are open"),
        ('{"id": "' + "x" * MAX_BYTES + '"},', f"longer than max_record_bytes, {MAX_BYTES}"),
        ('{"id": ' + "7" * MAX_BYTES + "},", f"longer than max_record_bytes, {MAX_BYTES}"),
    ],
)
@pytest.mark.parametrize("block", [5, 100_000])
def test_a_broken_value_costs_itself(bad: str, detail: str, block: int) -> None:
    found = values(f'[\n{{"id": 0}},\n{bad}\n{{"id": 9}}\n]'.encode(), block)
    assert [place for place, _ in found] == ["line 2", "line 3", "line 4"]
    assert (found[0][1], found[2][1]) == (b'{"id": 0}', b'{"id": 9}')
    assert detail in str(found[1][1])


def test_behind_a_broken_value_no_object_within_another_is_taken_for_a_row() -> None:
    rows = [{"id": 0, "items": [{"id": "inner"}]}, {"id": 1, "items": [{"id": "inner"}]}, {"id": 2}]
    content = json.dumps(rows, indent=2).replace('"inner"', '"inner', 1).encode()
    found = values(content)
    assert found[0] == ("line 2", "a string is not closed on its line")
    assert [json.loads(text) for _, text in found[1:]] == rows[1:]


def test_a_value_that_is_no_object_is_for_its_parser() -> None:
    content = b'[1, "a,]", null, {"a": oops}, [2], -1.5e3'
    assert [text for _, text in values(content + b"]")] == [b"1", b'"a,]"', b"null", b'{"a": oops}', b"[2]", b"-1.5e3"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b'[{"id": 1}, {"id": 2}', "its array is not closed; is the file cut short?"),
        (b'[{"id": 1}, {"id": "cut', "nothing behind line 1 can be read"),
        (b'{"id": 1} {"id": {', "nothing behind line 1 can be read"),
    ],
)
def test_a_file_cut_short_is_told(content: bytes, fault: str) -> None:
    found = values(content)
    assert found[0] == ("line 1", b'{"id": 1}')
    assert found[-1] == ("file", fault)


def lines(content: bytes, begin: int, end: int | None, max_bytes: int = MAX_BYTES) -> list[bytes | str]:
    file = io.BytesIO(content)
    file.seek(max(begin - 1, 0))
    found = read_lines(file, begin, end, max_bytes)
    return list(map(shown, found))


@given(
    content=st.lists(st.sampled_from([b"\n", b"\r\n", b"{}", b"[1, 2]", b" ", b"\xc3\xa9", b'"a b"']), max_size=40).map(
        b"".join
    ),
    size=st.integers(1, 50),
)
def test_ranges_of_bytes_have_each_line_once(content: bytes, size: int) -> None:
    expected = [line.strip() for line in content.split(b"\n") if line.strip()]
    assert lines(content, 0, None) == expected
    parts = [lines(content, begin, begin + size) for begin in range(0, max(len(content), 1), size)]
    assert [line for part in parts for line in part] == expected


@pytest.mark.parametrize("size", [10, 100, 5_000, 1_000_000])
def test_a_long_line_is_named_once_whichever_ranges_it_spans(size: int) -> None:
    content = b'{"id": 0}\n' + b"7," * 3_000 + b'\n\xef\xbb\xbf{"id": 1}\r\n'
    parts = [lines(content, begin, begin + size) for begin in range(0, len(content), size)]
    assert [line for part in parts for line in part] == [
        b'{"id": 0}',
        f"longer than max_record_bytes, {MAX_BYTES}",
        b'\xef\xbb\xbf{"id": 1}',
    ]


def test_places_are_lines_from_the_start_of_a_file_and_bytes_within_it() -> None:
    content = b'\xef\xbb\xbf{"id": 0}\n\n{"id": 1}\n'
    file = io.BytesIO(content)
    assert [(row.at, row.text) for row in read_lines(file, 0, None, MAX_BYTES)] == [
        (("line", 1), b'{"id": 0}'),
        (("line", 3), b'{"id": 1}'),
    ]
    file.seek(4)
    assert [(row.at, row.text) for row in read_lines(file, 5, None, MAX_BYTES)] == [(("byte", 14), b'{"id": 1}')]
