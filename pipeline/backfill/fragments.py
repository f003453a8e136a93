"""Splits input files into fragments: the unit of work, of resumption and of the ledger."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from pipeline.errors import ConfigError, EnvironmentFault, nearest

RANGE_BYTES = 16 << 20
SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".csv")


@dataclass(frozen=True, slots=True)
class Fragment:
    """A Parquet row group, a byte range of JSON Lines, or a whole CSV file."""

    uri: str
    size: int
    """Bytes of the file when it was listed."""
    mtime_ns: int
    part: int
    """Row group, or number of the byte range."""

    @property
    def name(self) -> str:
        """Names the fragment in the ledger."""
        return f"{self.uri}#{self.part}"

    @property
    def suffix(self) -> str:
        """The kind of the file."""
        return PurePosixPath(self.uri).suffix.lower()


def filesystem(uri: str) -> tuple[Any, str]:
    """Returns pyarrow's filesystem and the path in it. Raises ConfigError."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - an optional dependency
        from pyarrow import fs  # noqa: PLC0415
    except ModuleNotFoundError:
        raise ConfigError("backfill needs pyarrow: pip install 'refract[parquet]'") from None
    if "://" not in uri:
        return fs.LocalFileSystem(), str(Path(uri).absolute())
    try:
        found, path = fs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, OSError) as error:
        raise ConfigError(f"{uri.partition('://')[0]} input cannot be opened ({type(error).__name__})") from None
    return found, path


def list_fragments(inputs: Sequence[str]) -> list[Fragment]:
    """Returns the fragments of files, folders and globs, in order.

    Raises ConfigError where nothing matches or a file is of no known kind, EnvironmentFault where one cannot be read.
    """
    fragments: dict[str, Fragment] = {}
    for given in inputs:
        files, path = filesystem(given)
        scheme = f"{given.partition('://')[0]}://" if "://" in given else ""
        try:
            infos = _matching(files, path)
            if not infos:
                raise ConfigError(f"{given}: no file matches; expected names that end in {', '.join(SUFFIXES)}")
            for info in infos:
                for fragment in _split(files, scheme, info):
                    fragments.setdefault(fragment.name, fragment)
        except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
            raise EnvironmentFault(f"{given}: cannot be read ({type(error).__name__})") from None
    return list(fragments.values())


def hive_columns(uri: str) -> dict[str, str]:
    """Returns the `name=value` folders of a path."""
    parts = (part.partition("=") for part in PurePosixPath(uri).parts[:-1] if "=" in part)
    return {name: unquote(value) for name, _, value in parts}


def _matching(files: Any, path: str) -> list[Any]:
    from pyarrow import fs  # noqa: PLC0415 - checked in `filesystem`

    if not any(sign in path for sign in "*?["):
        info = files.get_file_info(path)
        if info.type == fs.FileType.File:
            if PurePosixPath(path).suffix.lower() not in SUFFIXES:
                suffix = PurePosixPath(path).suffix
                raise ConfigError(f"{path}: expected {', '.join(SUFFIXES)}.{nearest(suffix, SUFFIXES)}")
            return [info]
        if info.type == fs.FileType.NotFound:
            return []
        base, pattern = path, "*"
    else:
        parts = PurePosixPath(path).parts
        fixed = next(number for number, part in enumerate(parts) if any(sign in part for sign in "*?["))
        base, pattern = str(PurePosixPath(*parts[:fixed])), path
    found = files.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))
    return sorted(
        (
            info
            for info in found
            if info.type == fs.FileType.File
            and PurePosixPath(info.path).suffix.lower() in SUFFIXES
            and fnmatch(info.path, pattern)
        ),
        key=lambda info: str(info.path),
    )


def _split(files: Any, scheme: str, info: Any) -> list[Fragment]:
    suffix = PurePosixPath(info.path).suffix.lower()
    num_parts = 1
    if suffix == ".parquet":
        import pyarrow.parquet as pq  # noqa: PLC0415 - checked in `filesystem`

        num_parts = pq.read_metadata(info.path, filesystem=files).num_row_groups
    elif suffix in {".jsonl", ".ndjson"}:
        num_parts = max(1, -(-info.size // RANGE_BYTES))
    return [Fragment(scheme + info.path, info.size, info.mtime_ns or 0, part) for part in range(num_parts)]
