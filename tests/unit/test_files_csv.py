"""CSV: what Python's `csv` reads is read so, in bounded memory; what it refuses costs one row, not the file."""

import csv
import io
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import RecordError
from pipeline.records.files.csv_rows import CsvTable
from pipeline.records.files.reading import FileFault
from pipeline.records.files.streams import Lines

MAX_BYTES = 1_000

CELLS = st.text(alphabet=',;"\r\n\t ab\u00e9\U0001f600\0', max_size=8)
RAW = st.lists(st.sampled_from(['"', '""', ",", "\n", "\r\n", "\r", "a", "b c", "\u00e9"]), max_size=60).map("".join)
BLOCKS = st.integers(1, 40)


def table(content: bytes, block: int = 7, max_bytes: int = MAX_BYTES, delimiter: str = ",") -> CsvTable:
    def blocks_at(offset: int) -> Iterator[bytes]:
        for begin in range(offset, len(content), block):
            yield content[begin : begin + block]

    return CsvTable(Lines(blocks_at, max_bytes), delimiter, max_bytes)


Seen = tuple[int, Sequence[str] | str]


def rows(content: bytes | str, block: int = 7, max_bytes: int = MAX_BYTES) -> list[Seen]:
    """The rows by line: their values, or why they have none."""
    found = table(content.encode() if isinstance(content, str) else content, block, max_bytes)
    return [(row.line, row.values.detail if isinstance(row.values, RecordError) else row.values) for row in found]


@given(
    content=st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1, max_size=8),
    # With another line end Python's writer leaves a CR without quotes.
    dialect=st.sampled_from([("\r\n", csv.QUOTE_MINIMAL), ("\r\n", csv.QUOTE_ALL), ("\n", csv.QUOTE_ALL)]),
    block=BLOCKS,
)
def test_what_a_writer_wrote_comes_back(content: list[list[str]], dialect: tuple[str, int], block: int) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator=dialect[0], quoting=dialect[1])  # type: ignore[arg-type]  # typed as a literal
    writer.writerows([["first", "second"], *content])
    assert [values for _, values in rows(file.getvalue(), block=block)] == content


@given(content=RAW, block=BLOCKS)
def test_what_the_parser_reads_without_complaint_is_read_the_same(content: str, block: int) -> None:
    text = f"x,y\n{content}"
    try:
        expected = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row][1:]
    except csv.Error:
        return
    found = [values for _, values in rows(text, block=block)]
    assert [values for values in found if not isinstance(values, str)] == [row for row in expected if len(row) == 2]
    assert len(found) == len(expected)


@given(content=RAW, block=BLOCKS, max_bytes=st.integers(4, 60))
def test_whatever_the_bytes_rows_come_in_order_and_whole(content: str, block: int, max_bytes: int) -> None:
    text = f"x,y\n{content}"
    found = rows(text, block=block, max_bytes=max_bytes)
    lines = [line for line, _ in found]
    assert lines == sorted(set(lines))
    assert all(isinstance(values, str) or len(values) == 2 for _, values in found)
    if '"' not in text:
        assert rows(f"{text}\n1,2\n", block=block, max_bytes=max_bytes)[-1][1] == ["1", "2"]


def test_a_quoted_crlf_across_any_border_of_blocks_stays() -> None:
    content = b'id,text\r\n1,"first\r\nsecond"\r\n2,"a\rb\nc"\r\n'
    for block in range(1, len(content) + 1):
        assert rows(content, block=block) == [(2, ["1", "first\r\nsecond"]), (4, ["2", "a\rb\nc"])]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_lines_may_end_in_any_way_and_the_file_may_begin_with_a_byte_order_mark(ending: str) -> None:
    found = table(("\ufeff" + ending.join(['"id",text', "1,a", "", "2,b"])).encode())
    assert list(found.names) == ["id", "text"]
    assert [(row.line, row.values) for row in found] == [(2, ["1", "a"]), (4, ["2", "b"])]


@pytest.mark.parametrize(
    ("bad", "detail"),
    [
        ("1", "1 fields, the header has 2"),
        ("1,2,3", "3 fields, the header has 2"),
        ('1,"a\nb",3', "3 fields up to line 4, the header has 2"),
        ('1,"a"b', "',' expected after '\"'"),
        ("1," + "x" * MAX_BYTES, f"longer than max_record_bytes, {MAX_BYTES}"),
        ('1,"' + "many words\n" * MAX_BYTES + '"', f"longer than max_record_bytes, {MAX_BYTES}"),
    ],
)
@pytest.mark.parametrize("block", [5, 100_000])
def test_a_bad_row_is_named_and_the_others_are_read(bad: str, detail: str, block: int) -> None:
    found = rows(f'id,text\n0,"first"\n{bad}\n9,last\n', block=block)
    assert [values for _, values in found] == [["0", "first"], detail, ["9", "last"]]
    assert [line for line, _ in found][:2] == [2, 3]
    assert found[-1][0] == 3 + bad.count("\n") + 1


def test_a_row_that_is_not_utf_8_says_so_and_keeps_its_other_values() -> None:
    found = list(table(b"id,text\n1,caf\xe9\n2,caf\xc3\xa9\n"))
    assert [(row.is_broken, row.values) for row in found] == [(True, ["1", "caf\udce9"]), (False, ["2", "caf\u00e9"])]


@pytest.mark.parametrize("block", [3, 50, 1 << 20])
@pytest.mark.parametrize("num_rows", [1, 20, 2_000])
@pytest.mark.parametrize("tail", ["", '"quoted"\n', 'x,"a ""b"""\n'])
def test_an_unclosed_quote_costs_its_line_however_much_follows(block: int, num_rows: int, tail: str) -> None:
    content = 'id,text\n0,"open\n' + "".join(f"{number},word\n" for number in range(1, num_rows + 1))
    content += f"8,{tail}" if tail.startswith('"') else tail
    found = rows(content, block=block)
    assert found[0][0] == 2
    assert "a quoted field is not closed" in found[0][1]
    assert [values for _, values in found[1 : num_rows + 1]] == [[str(n), "word"] for n in range(1, num_rows + 1)]
    assert len(found) == 1 + num_rows + bool(tail)


def test_every_one_of_many_unclosed_quotes_costs_its_own_line() -> None:
    content = "id,text\n" + "".join(f'{number},"open\n{number},word\n' for number in range(50))
    found = rows(content)
    assert [values for _, values in found if not isinstance(values, str)] == [[str(n), "word"] for n in range(50)]
    assert sum(isinstance(values, str) for _, values in found) == 50


def test_a_long_row_is_not_held() -> None:
    held = 0

    def blocks_at(_offset: int) -> Iterator[bytes]:
        yield b'id,text\n1,"'
        for _ in range(1_000):
            yield b"some text\n" * 100
        yield b'"\n2,b\n'

    found = CsvTable(Lines(blocks_at, MAX_BYTES), ",", MAX_BYTES)
    seen = []
    for row in found:
        held = max(held, sum(map(len, found._feed.held)))
        seen.append(row.values)
    assert seen[-1] == ["2", "b"]
    assert held < 3 * MAX_BYTES


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfei\0d\0", "the header is UTF-16"),
        (b"id,\xe9\n", "the header is not UTF-8"),
        (b'"id"x,y\n', "the header is not CSV"),
        (b"x" * 2_000, "the header is longer than max_record_bytes"),
    ],
)
def test_a_header_that_cannot_be_read_is_a_fault_of_the_file(content: bytes, message: str) -> None:
    with pytest.raises(FileFault, match=message):
        table(content)


@pytest.mark.parametrize("length", range(18, 30))
def test_a_crlf_behind_a_long_line_is_one_line_end_wherever_blocks_end(length: int) -> None:
    content = b"id,text\n1," + b"x" * length + b"\r\n2,b\n"
    whole = rows(content, block=1_000, max_bytes=24)
    assert whole[-1] == (3, ["2", "b"])
    assert all(rows(content, block=block, max_bytes=24) == whole for block in range(1, 50))


@pytest.mark.parametrize("block", range(1, 60, 7))
def test_an_unclosed_quote_before_a_long_line_costs_its_own_line(block: int) -> None:
    content = 'id,text\n1,"open\n2,b\n3,' + "long " * 8 + 'with a quote"\n4,d\n'
    found = rows(content, block=block, max_bytes=24)
    assert found == [
        (2, "a quoted field is not closed"),
        (3, ["2", "b"]),
        (4, "longer than max_record_bytes, 24"),
        (5, ["4", "d"]),
    ]


def test_a_file_without_a_line_has_no_columns_and_no_rows() -> None:
    for content in (b"", b"\n\r\n", b"\xef\xbb\xbf"):
        assert list(table(content).names) in ([], [""])
        assert list(table(content)) == []
