"""Finds the files that inputs name, and splits them into the parts that are read at once."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from glob import escape
from pathlib import PurePosixPath
from typing import Any

import pyarrow.parquet as pq
from pyarrow import fs

from pipeline.errors import ConfigError, EnvironmentFault
from pipeline.records.files.filesystems import READ_ERRORS, open_filesystem, scheme_of
from pipeline.records.files.kinds import ENDINGS, FileKind, Format, expect_kind, kind_of

RANGE_BYTES = 16 << 20
"""Of JSON Lines without compression: so much is one part."""

NUM_LISTERS = 8
"""Footers read at once: on an object store each costs a round trip or two."""

_WILDCARDS = "*?["

_SHOWN = 5
"""Files that a message names."""


@dataclass(frozen=True, slots=True)
class FilePart:
    """A Parquet row group, a byte range of JSON Lines, or a whole file of another kind."""

    uri: str
    size: int
    """Bytes of the file when it was listed."""
    mtime_ns: int
    part: int = 0
    """Row group, or number of the byte range."""
    num_rows: int | None = None
    """Where it is known before reading."""

    @property
    def name(self) -> str:
        """Names the part, in messages and where progress is kept."""
        return f"{self.uri}#{self.part}"

    @property
    def begin(self) -> int:
        """Number of its first row."""
        return 0

    @property
    def kind(self) -> FileKind:
        """What the file holds."""
        return expect_kind(self.uri)

    @property
    def state(self) -> str:
        """Changes when the file does."""
        return f"{self.size}-{self.mtime_ns}"


@dataclass(frozen=True, slots=True)
class Listing:
    """What inputs name."""

    parts: Sequence[FilePart] = ()
    left_out: Sequence[str] = ()
    """Files of folders and globs that are not read, because their names have none of the endings."""
    hidden: Sequence[str] = ()
    """Files of folders that are not read, because they or their folders begin with `_` or `.`, as logs of jobs do."""


@dataclass(slots=True)
class _Found:
    infos: list[Any] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)


def list_files(inputs: Sequence[str], on_file: Callable[[int], None] = lambda _done: None) -> Listing:
    """Returns the parts of files, folders and globs, in order and each once, and what is left out.

    A file that cannot be read as what its name says is one part all the same, which fails when it is read. A path that
    exists is that path, even with the signs of a glob in its name. `on_file` is told how many files of an input are
    listed.

    Raises ConfigError where nothing matches or a named file has none of the endings, EnvironmentFault where a place
    cannot be listed.
    """
    parts: dict[str, FilePart] = {}
    left_out: dict[str, None] = {}
    hidden: dict[str, None] = {}
    for given in inputs:
        files, path = open_filesystem(given)
        scheme = scheme_of(given)
        try:
            found = _matching(files, path)
        except READ_ERRORS as error:
            if isinstance(error, UnicodeDecodeError):
                raise EnvironmentFault(
                    f"{scheme or given}: the name of a file in it is not UTF-8; rename the file, or name the others"
                ) from None
            raise EnvironmentFault(
                f"{scheme or given}: cannot be listed ({type(error).__name__}); is the place right, and may this "
                "process read it?"
            ) from None
        left_out |= dict.fromkeys(scheme + each for each in found.left_out)
        hidden |= dict.fromkeys(scheme + each for each in found.hidden)
        if not found.infos:
            others = f" (left out: {_named(found.left_out)})" if found.left_out else ""
            raise ConfigError(f"{given}: no file matches{others}; expected names that end in {ENDINGS}")
        with ThreadPoolExecutor(NUM_LISTERS) as pool:
            for number, split in enumerate(pool.map(partial(_split, files, scheme), found.infos), start=1):
                for each in split:
                    parts.setdefault(each.name, each)
                on_file(number)
    return Listing(list(parts.values()), list(left_out), list(hidden))


def left_out_words(listing: Listing) -> str:
    """Returns a sentence about what is not read; empty where that is nothing."""
    words = []
    if listing.left_out:
        words.append(f"{_named(listing.left_out)}, whose names do not end in {ENDINGS}")
    if listing.hidden:
        words.append(f"{_named(listing.hidden)}, whose names or folders begin with _ or a dot")
    return f"Left out: {'; and '.join(words)}." if words else ""


def _named(paths: Sequence[str]) -> str:
    shown = ", ".join(PurePosixPath(path).name for path in paths[:_SHOWN])
    count = f"{len(paths):,} {'file' if len(paths) == 1 else 'files'}"
    return f"{count} ({shown}{', …' if len(paths) > _SHOWN else ''})"


def _matching(files: Any, path: str) -> _Found:
    info = files.get_file_info(path)
    if info.type == fs.FileType.File:
        expect_kind(path)
        return _Found([info])
    if info.type != fs.FileType.NotFound:
        base, pattern = path, "*"
    else:
        base, pattern = _base_of(files, path)
        if not pattern:
            return _Found()
    found = _Found()
    selector = fs.FileSelector(base, recursive=True, allow_not_found=True)
    for info in sorted(files.get_file_info(selector), key=lambda info: str(info.path)):
        if info.type != fs.FileType.File or not fnmatchcase(info.path, pattern):
            continue
        names = PurePosixPath(info.path).relative_to(base).parts
        if any(name.startswith(("_", ".")) for name in names):
            found.hidden.append(info.path)
        elif kind_of(info.path) is None:
            found.left_out.append(info.path)
        else:
            found.infos.append(info)
    return found


def _base_of(files: Any, path: str) -> tuple[str, str]:
    """Returns the folder that a glob is about, and the pattern its files match; no pattern for another path."""
    base = PurePosixPath()
    for number, part in enumerate(parts := PurePosixPath(path).parts):
        is_pattern = any(sign in part for sign in _WILDCARDS)
        if is_pattern and files.get_file_info(str(base / part)).type == fs.FileType.NotFound:
            return str(base), str(PurePosixPath(escape(str(base)), *parts[number:]))
        base /= part
    return str(base), ""


def _split(files: Any, scheme: str, info: Any) -> list[FilePart]:
    whole = FilePart(scheme + info.path, info.size, info.mtime_ns or 0)
    kind = whole.kind
    if kind.compression is not None or kind.format not in {Format.PARQUET, Format.LINES}:
        return [whole]
    if kind.format is Format.LINES:
        num_parts = max(1, -(-whole.size // RANGE_BYTES))
        return [FilePart(whole.uri, whole.size, whole.mtime_ns, part) for part in range(num_parts)]
    try:
        found = pq.read_metadata(info.path, filesystem=files)
    except READ_ERRORS:
        return [whole]
    return [
        FilePart(whole.uri, whole.size, whole.mtime_ns, part, found.row_group(part).num_rows)
        for part in range(found.num_row_groups)
    ]
