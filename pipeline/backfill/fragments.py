"""Splits inputs into fragments: the unit of work, of resumption and of the ledger."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

from pipeline.backfill.kafka_ranges import SCHEME as KAFKA
from pipeline.backfill.kafka_ranges import list_ranges
from pipeline.config.app import Config
from pipeline.errors import ConfigError, EnvironmentFault, nearest
from pipeline.records.files.filesystems import open_filesystem, scheme_of

RANGE_BYTES = 16 << 20
SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".csv")
NUM_LISTERS = 8
"""Footers read at once: on an object store each costs a round trip or two."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """A Parquet row group, a byte range of JSON Lines, a whole CSV file, or offsets of a Kafka partition."""

    uri: str
    size: int
    """Bytes of the file when it was listed; offsets of a Kafka range."""
    mtime_ns: int
    part: int
    """Row group, number of the byte range, or Kafka partition."""
    begin: int = 0
    """First offset of a Kafka range."""
    num_rows: int | None = None
    """Where it is known before reading."""
    tag: str = ""
    """The id of the Kafka topic: a topic that was made anew is another input."""

    @property
    def name(self) -> str:
        """Names the fragment in the ledger."""
        return f"{self.uri}#{self.part}" + (f"@{self.begin}+{self.size}" if self.is_kafka else "")

    @property
    def is_kafka(self) -> bool:
        """Whether this is a range of offsets, not a part of a file."""
        return self.uri.startswith(KAFKA)

    @property
    def suffix(self) -> str:
        """The kind of the file."""
        return PurePosixPath(self.uri).suffix.lower()

    @property
    def state(self) -> str:
        """Changes when the input does."""
        return self.tag or f"{self.size}-{self.mtime_ns}"


def list_fragments(
    inputs: Sequence[str], config: Config | None = None, on_file: Callable[[int], None] = lambda _done: None
) -> list[Fragment]:
    """Returns the fragments of files, folders, globs and Kafka ranges, in order; only the latter need `config`.

    A file that cannot be read as what its name says is one fragment all the same, which fails when it is read.
    `on_file` hears how many files are listed.

    Raises ConfigError where nothing matches or a file is of no known kind, EnvironmentFault where a place cannot be
    looked into.
    """
    fragments: dict[str, Fragment] = {}
    for given in inputs:
        for fragment in _fragments(given, config, on_file):
            fragments.setdefault(fragment.name, fragment)
    return list(fragments.values())


def hive_columns(uri: str) -> dict[str, str]:
    """Returns the `name=value` folders of a path."""
    parts = (part.partition("=") for part in PurePosixPath(uri).parts[:-1] if "=" in part)
    return {name: unquote(value) for name, _, value in parts}


def _fragments(given: str, config: Config | None, on_file: Callable[[int], None]) -> list[Fragment]:
    if given.startswith(KAFKA):
        if config is None:
            raise ConfigError("a Kafka range needs the pipeline's configuration")
        return [
            Fragment(found.uri, found.end - found.begin, 0, found.partition, found.begin, None, found.topic_id)
            for found in list_ranges(given, config.source)
        ]
    files, path = open_filesystem(given)
    try:
        infos = _matching(files, path)
    except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise EnvironmentFault(
            f"{scheme_of(given) or given}: cannot be listed ({type(error).__name__}); is the place right, and may this "
            "process read it?"
        ) from None
    if not infos:
        raise ConfigError(f"{given}: no file matches; expected names that end in {', '.join(SUFFIXES)}")
    fragments = []
    with ThreadPoolExecutor(NUM_LISTERS) as pool:
        for number, parts in enumerate(pool.map(partial(_split, files, scheme_of(given)), infos), start=1):
            fragments += parts
            on_file(number)
    return fragments


def _matching(files: Any, path: str) -> list[Any]:
    from pyarrow import fs  # noqa: PLC0415 - checked in `open_filesystem`

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
            and not any(part.startswith(("_", ".")) for part in PurePosixPath(info.path).relative_to(base).parts)
        ),
        key=lambda info: str(info.path),
    )


def _split(files: Any, scheme: str, info: Any) -> list[Fragment]:
    suffix = PurePosixPath(info.path).suffix.lower()
    uri, size, mtime_ns = scheme + info.path, info.size, info.mtime_ns or 0
    if suffix == ".parquet":
        import pyarrow.parquet as pq  # noqa: PLC0415 - checked in `open_filesystem`

        try:
            found = pq.read_metadata(info.path, filesystem=files)
        except (OSError, ValueError):
            return [Fragment(uri, size, mtime_ns, 0)]
        return [
            Fragment(uri, size, mtime_ns, part, num_rows=found.row_group(part).num_rows)
            for part in range(found.num_row_groups)
        ]
    num_parts = max(1, -(-size // RANGE_BYTES)) if suffix in {".jsonl", ".ndjson"} else 1
    return [Fragment(uri, size, mtime_ns, part) for part in range(num_parts)]
