"""The one reader of files: rows of every format, wherever the file is, the same for every verb."""

from collections.abc import Callable, Iterator, Mapping

from pipeline.records.files.filesystems import READ_ERRORS, is_unchanged
from pipeline.records.files.kinds import Format
from pipeline.records.files.listing import FilePart
from pipeline.records.files.parquet_rows import parquet_rows
from pipeline.records.files.reading import FileFault, Reading, Row
from pipeline.records.files.text_rows import csv_rows, json_lines, json_values

_READERS: Mapping[Format, Callable[[FilePart, Reading, int], Iterator[Row]]] = {
    Format.CSV: csv_rows,
    Format.TSV: csv_rows,
    Format.LINES: json_lines,
    Format.JSON: json_values,
    Format.PARQUET: parquet_rows,
}


def read_rows(part: FilePart, reading: Reading, start: int = 0) -> Iterator[Row]:
    """Yields the rows of a part of a file, good or bad, in order.

    Args:
        part: What to read.
        reading: How the topic's files are read.
        start: Number of the first row wanted, from 0. Blank lines are no rows; bad rows count.

    Raises FileFault where the file cannot be read to its end, or was replaced meanwhile.
    """
    number = start
    try:
        for row in _READERS[part.kind.format](part, reading, start):
            yield row
            number += 1
        replaced = not is_unchanged(part.uri, part.size, part.mtime_ns)
    except FileFault as fault:
        raise FileFault(f"{part.name}: {fault}") from None
    except READ_ERRORS as error:
        raise FileFault(f"{part.name}: cannot be read beyond row {number} ({fault_words(part, error)})") from None
    if replaced:
        raise FileFault(f"{part.name}: the file was replaced while it was read; run again to read the new one")


def fault_words(part: FilePart, error: BaseException) -> str:
    """Returns what is wrong with a file, in the words of who found it; of what could quote a value, its kind only."""
    if isinstance(error, OSError):
        return (error.strerror or str(error).partition("\n")[0])[:200] or type(error).__name__
    return f"damaged, or not {part.kind.format}: {type(error).__name__}"
