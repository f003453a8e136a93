"""How many rows files have: counted where a footer says so or the file is small, else estimated from bytes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from pipeline.records.files import listing
from pipeline.records.files.csv_rows import CsvTable
from pipeline.records.files.filesystems import READ_ERRORS, open_filesystem
from pipeline.records.files.json_rows import JsonArray
from pipeline.records.files.kinds import FileKind, Format
from pipeline.records.files.listing import FilePart
from pipeline.records.files.parquet_rows import open_parquet
from pipeline.records.files.reading import FileFault
from pipeline.records.files.streams import Lines

HEAD_BYTES = 1 << 20
HEADS = 8
"""Files of one kind whose beginnings are counted."""


@dataclass(frozen=True, slots=True)
class RowCounts:
    """Rows by part."""

    rows: Sequence[float]
    exact: bool
    """Whether all are counted, not estimated."""

    @property
    def total(self) -> int:
        """Rows of all parts."""
        return round(sum(self.rows))


@dataclass(frozen=True, slots=True)
class _Head:
    """The beginning of a file."""

    num_rows: int
    num_bytes: int
    """Of the file, that have these rows."""
    whole: bool


def count_rows(parts: Sequence[FilePart]) -> RowCounts:
    """Counts the rows by footers, and estimates them by bytes where there are none.

    A Parquet file without a footer has none, another file that cannot be read one row.
    """
    unknown: dict[FileKind, dict[str, FilePart]] = {}
    for part in parts:
        if part.num_rows is None and not is_broken(part):
            unknown.setdefault(part.kind, {})[part.uri] = part
    density: dict[FileKind, float] = {}
    exact = True
    for kind, files in unknown.items():
        step = max(len(files) // HEADS, 1)
        heads = [_head(file) for file in [*files.values()][::step][:HEADS]]
        num_bytes = sum(head.num_bytes for head in heads)
        density[kind] = sum(head.num_rows for head in heads) / num_bytes if num_bytes else 0.0
        exact = exact and len(heads) == len(files) and all(head.whole for head in heads)
    return RowCounts([_rows(part, density) for part in parts], exact)


def is_broken(part: FilePart) -> bool:
    """Whether it is known to be damaged: Parquet whose footer could not be read, or a compressed file of no bytes."""
    is_cut = part.kind.compression is not None and not part.size
    return part.num_rows is None and (is_cut or part.kind == FileKind(Format.PARQUET))


def _rows(part: FilePart, density: Mapping[FileKind, float]) -> float:
    if part.num_rows is not None:
        return part.num_rows
    num_bytes = part.size
    if part.kind == FileKind(Format.LINES):
        num_bytes = max(min(listing.RANGE_BYTES, part.size - part.part * listing.RANGE_BYTES), 0)
    return num_bytes * density.get(part.kind, 0.0)


def _head(file: FilePart) -> _Head:
    try:
        if file.kind.format is Format.PARQUET:
            with open_parquet(file) as parquet:
                return _Head(parquet.metadata.num_rows, file.size, whole=True)
        head, num_bytes = _first_bytes(file)
        whole = num_bytes >= file.size
        if not whole:
            cut = head.rfind(b"\n") + 1 or len(head)
            num_bytes, head = num_bytes * cut // len(head), head[:cut]
        num_rows = _num_rows(head, file.kind)
    except (FileFault, *READ_ERRORS):
        return _Head(1, file.size, whole=False)
    return _Head(num_rows, num_bytes, whole=True) if whole else _Head(max(num_rows, 1), num_bytes, whole=False)


def _first_bytes(file: FilePart) -> tuple[bytes, int]:
    """Returns the first bytes of a file's content, and how many of its own bytes have them."""
    files, path = open_filesystem(file.uri)
    with files.open_input_file(path) as raw:
        stream: Any = raw if file.kind.compression is None else pa.CompressedInputStream(raw, file.kind.compression)
        head: bytes = stream.read(HEAD_BYTES)
        return head, file.size if len(head) < HEAD_BYTES else min(raw.tell(), file.size)


def _num_rows(head: bytes, kind: FileKind) -> int:
    blocks = partial(_from, head)
    if kind.is_text:
        return sum(1 for _ in CsvTable(Lines(blocks, HEAD_BYTES), kind.delimiter, HEAD_BYTES))
    if kind.format is Format.JSON:
        return _num_values(JsonArray(blocks, HEAD_BYTES))
    return sum(1 for line in head.split(b"\n") if line.strip())


def _num_values(values: JsonArray) -> int:
    """Counts the values up to where the beginning of a file is cut."""
    count = 0
    try:
        for _ in values:
            count += 1
    except FileFault:
        pass
    return count


def _from(head: bytes, offset: int) -> Iterator[bytes]:
    yield head[offset:]
