"""Rows of Parquet files."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow.parquet as pq

from pipeline.records.files.columns import rows_of
from pipeline.records.files.filesystems import open_filesystem
from pipeline.records.files.folders import FolderFields
from pipeline.records.files.listing import FilePart
from pipeline.records.files.reading import Reading, Row
from pipeline.records.files.streams import open_bytes

READ_ROWS = 4_096
READ_BYTES = 4 << 20
"""Rows decoded at once: so many, or fewer where they are long."""

BUFFER_BYTES = 1 << 20
"""Of each column of a row group so much is held undecoded: a row group may be larger than memory."""


def parquet_rows(part: FilePart, reading: Reading, start: int) -> Iterator[Row]:
    """Yields the rows of a row group, of a compressed file all rows, from a number on. Raises as pyarrow."""
    folders = FolderFields(part.uri, reading)
    with open_parquet(part) as parquet:
        names = [name for name in dict.fromkeys(parquet.schema_arrow.names) if reading.keeps(name)]
        groups = [part.part] if part.kind.compression is None else range(parquet.num_row_groups)
        counts = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
        number = 0
        for group in groups:
            first = sum(counts[:group])
            size = _rows_at_once(parquet.metadata.row_group(group), reading.keeps)
            for batch in parquet.iter_batches(size, row_groups=[group], columns=names, use_threads=False):
                skipped = min(max(start - number, 0), batch.num_rows)
                yield from _rows(batch.slice(skipped), reading, folders, first + 1 + skipped)
                first += batch.num_rows
                number += batch.num_rows


@contextmanager
def open_parquet(part: FilePart) -> Iterator[Any]:
    """Opens a file; a compressed one is written out first, because Parquet is read from its end."""
    if part.kind.compression is None:
        files, path = open_filesystem(part.uri)
        with files.open_input_file(path) as file:
            yield pq.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False)
        return
    with tempfile.TemporaryFile() as plain:
        with open_bytes(part.uri, part.kind) as stream:
            shutil.copyfileobj(stream, plain, BUFFER_BYTES)
        plain.seek(0)
        yield pq.ParquetFile(plain, buffer_size=BUFFER_BYTES, pre_buffer=False)


def _rows(batch: Any, reading: Reading, folders: FolderFields, first: int) -> list[Row]:
    rows = rows_of(batch, reading, folders.fields, first)
    return rows if folders.error is None else [Row(row.at, error=folders.error) for row in rows]


def _rows_at_once(group: Any, keeps: Callable[[str], bool]) -> int:
    columns = (group.column(number) for number in range(group.num_columns))
    num_bytes = sum(
        column.total_uncompressed_size
        for column in columns
        if keeps(column.path_in_schema) or keeps(column.path_in_schema.partition(".")[0])
    )
    fitting = int(READ_BYTES * group.num_rows // max(num_bytes, 1))
    return max(1, min(READ_ROWS, fitting))
