"""Rows of CSV, TSV and JSON files."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import compress, islice
from typing import Any

from pipeline.errors import Reason, RecordError
from pipeline.records.files import listing
from pipeline.records.files.columns import ESCAPED, in_column, num_name_bytes
from pipeline.records.files.csv_rows import CsvTable
from pipeline.records.files.filesystems import open_filesystem
from pipeline.records.files.folders import FolderFields
from pipeline.records.files.json_rows import JsonArray, read_lines
from pipeline.records.files.listing import FilePart
from pipeline.records.files.reading import RAW, Reading, Row
from pipeline.records.files.streams import BLOCK_BYTES, Lines, blocks_from, open_bytes
from pipeline.records.meaning import value_of
from pipeline.records.strict_json import parse_object


def csv_rows(part: FilePart, reading: Reading, start: int) -> Iterator[Row]:
    """Returns the rows of a CSV or TSV file from a number on. Raises FileFault over its header, else as pyarrow."""
    table = open_table(part, reading.max_bytes)
    return islice(_CsvFields(part, reading, table.names).rows(table), start, None)


def open_table(part: FilePart, max_bytes: int) -> CsvTable:
    """Opens a CSV or TSV file and reads its header. Raises as `csv_rows`."""
    lines = Lines(partial(blocks_from, part.uri, part.kind), max_bytes)
    return CsvTable(lines, part.kind.delimiter, max_bytes)


def json_lines(part: FilePart, reading: Reading, start: int) -> Iterator[Row]:
    """Yields the lines of a range of JSON Lines from a number on. Raises as pyarrow."""
    with _open_lines(part) as (file, begin, end):
        yield from _json_rows(read_lines(file, begin, end, reading.max_bytes), part, reading, start)


def json_values(part: FilePart, reading: Reading, start: int) -> Iterator[Row]:
    """Returns the values of a JSON array from a number on. Raises FileFault over its brackets, else as pyarrow."""
    values = JsonArray(partial(blocks_from, part.uri, part.kind), reading.max_bytes)
    return _json_rows(iter(values), part, reading, start)


@contextmanager
def _open_lines(part: FilePart) -> Iterator[tuple[io.BufferedReader, int, int | None]]:
    """Opens the range of a part: a file as `read_lines` wants it, the first byte, and one past the last."""
    if part.kind.compression is not None:
        with open_bytes(part.uri, part.kind) as stream:
            yield io.BufferedReader(stream, BLOCK_BYTES), 0, None
        return
    files, path = open_filesystem(part.uri)
    begin = part.part * listing.RANGE_BYTES
    with io.BufferedReader(files.open_input_file(path), BLOCK_BYTES) as file:  # pyarrow's own file has no readline
        file.seek(max(begin - 1, 0))
        yield file, begin, begin + listing.RANGE_BYTES


def _json_rows(rows: Iterator[Row], part: FilePart, reading: Reading, start: int) -> Iterator[Row]:
    folders = FolderFields(part.uri, reading)
    wanted = islice(rows, start, None)
    return (_merged(row, folders, reading.max_depth) for row in wanted) if folders else wanted


def _merged(row: Row, folders: FolderFields, max_depth: int) -> Row:
    if row.text is None:
        return row
    try:
        fields = parse_object(row.text, max_depth)
        return row if RAW in fields else Row(row.at, row.num_bytes + folders.num_bytes, folders.beside(fields))
    except RecordError as error:
        return Row(row.at, row.num_bytes, error=error)


class _CsvFields:
    """Makes rows of the values of CSV."""

    def __init__(self, part: FilePart, reading: Reading, names: Sequence[str]) -> None:
        self._needed = reading.needed
        self._expected = [(name, reading.expected[name]) for name in dict.fromkeys(names) if name in reading.expected]
        kept = [reading.keeps(name) for name in names]
        self._names = list(compress(names, kept))
        self._kept = None if all(kept) else kept
        folders = FolderFields(part.uri, reading)
        self._folders = folders or None
        self._num_bytes = num_name_bytes(self._names) + folders.num_bytes

    def rows(self, table: CsvTable) -> Iterator[Row]:
        """Yields the rows of a table."""
        names, kept, more = self._names, self._kept, self._num_bytes
        for row in table:
            at, values = ("line", row.line), row.values
            try:
                if isinstance(values, RecordError):
                    raise values
                chosen = values if kept is None else compress(values, kept)
                fields: dict[str, Any] = dict(zip(names, chosen))  # noqa: B905 - as many by now; `strict` costs a tenth of the reading
                if row.is_broken:
                    self._drop_broken(fields)
                fields = self._meant(fields)
            except RecordError as error:
                yield Row(at, row.num_bytes, error=error)
            else:
                yield Row(at, row.num_bytes * ESCAPED + more, fields)

    def _meant(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Returns a row's fields as the topic reads them. Raises RecordError where it cannot."""
        for name, expected in self._expected:
            try:
                fields[name] = value_of(fields[name], expected)
            except RecordError as error:
                raise in_column(name, error) from None
        return fields if self._folders is None else self._folders.beside(fields)

    def _drop_broken(self, fields: dict[str, Any]) -> None:
        """Makes values null that are not UTF-8. Raises RecordError where one is needed."""
        for name, value in fields.items():
            try:
                value.encode()
            except UnicodeEncodeError:
                if name in self._needed:
                    raise in_column(name, RecordError(Reason.INVALID_ROW, "not UTF-8")) from None
                fields[name] = None
