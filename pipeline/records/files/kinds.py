"""What the name of a file says: its format, and how it is compressed."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath

from pipeline.errors import ConfigError, nearest


class Format(StrEnum):
    """How a file holds rows."""

    CSV = "CSV"
    TSV = "TSV"
    LINES = "JSON Lines"
    JSON = "JSON"
    """An array of objects, or objects one after another."""
    PARQUET = "Parquet"


_FORMATS = {
    ".csv": Format.CSV,
    ".tsv": Format.TSV,
    ".jsonl": Format.LINES,
    ".ndjson": Format.LINES,
    ".json": Format.JSON,
    ".parquet": Format.PARQUET,
}
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bz2"}

ENDINGS = f"{', '.join(_FORMATS)}, each also with {', '.join(_COMPRESSIONS)}"
"""For messages."""


@dataclass(frozen=True, slots=True)
class FileKind:
    """What a file holds, by its name."""

    format: Format
    compression: str | None = None
    """As pyarrow calls it."""

    @property
    def has_columns(self) -> bool:
        """Whether all rows have the columns that its beginning (or its end) names."""
        return self.format in {Format.CSV, Format.TSV, Format.PARQUET}

    @property
    def delimiter(self) -> str:
        """What is between the fields of CSV."""
        return "\t" if self.format is Format.TSV else ","

    @property
    def is_text(self) -> bool:
        """Whether the values of its columns are texts, whatever they mean."""
        return self.format in {Format.CSV, Format.TSV}


def kind_of(name: str) -> FileKind | None:
    """Returns the kind of a file by the endings of its name, in upper or lower case; None for other files."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    compression = _COMPRESSIONS.get(suffixes.pop()) if suffixes and suffixes[-1] in _COMPRESSIONS else None
    found = _FORMATS.get(suffixes[-1]) if suffixes else None
    return None if found is None else FileKind(found, compression)


def expect_kind(name: str) -> FileKind:
    """Returns the kind of a file. Raises ConfigError for one that has none of the endings."""
    found = kind_of(name)
    if found is None:
        ending = PurePosixPath(name).suffix.lower()
        known = [*_FORMATS, *_COMPRESSIONS]
        raise ConfigError(f"{name}: expected a name that ends in {ENDINGS}.{nearest(ending, known)}")
    return found
