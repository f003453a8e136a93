"""What a topic's configuration asks of the rows of files, and what a row is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config.paths import top_names
from pipeline.config.pipeline import LimitsConfig
from pipeline.config.source import TopicConfig
from pipeline.errors import EnvironmentFault, RecordError
from pipeline.records.meaning import Expected, expected_by

RAW = "_raw"
"""Field of a JSON object that stands for a whole message, see `pipeline.records.files.messages`."""

At = tuple[str, int]
"""A place in a file: ("line", 17), ("row", 17) or ("byte", 17)."""


class FileFault(EnvironmentFault):
    """A file that cannot be read to its end; others may be."""


@dataclass(slots=True)
class Row:
    """One row of a file. Exactly one of `fields`, `text` and `error` is set."""

    at: At
    """Where it stands in its file."""
    num_bytes: int = 0
    """Bytes of the row as JSON, or more."""
    fields: dict[str, Any] | None = None
    """Of files with columns: what JSON can hold."""
    text: bytes | None = None
    """Of JSON files: the value as it stands there, parsed by nobody."""
    error: RecordError | None = None
    """Why the row cannot be read; names columns, never their values."""

    @property
    def place(self) -> str:
        """Where it stands in its file, for messages."""
        unit, number = self.at
        return f"{unit} {number}"


@dataclass(frozen=True, slots=True)
class Reading:
    """How the files of a topic are read."""

    needed: frozenset[str]
    """Columns that decide what becomes of a row. A bad value in another one is read as null."""
    expected: Mapping[str, Expected]
    """What the texts of some columns mean."""
    max_bytes: int
    """Of a row of a text file; a longer one is rejected and never held."""
    max_depth: int
    """Levels of objects and arrays; a row whose columns may have more is judged as JSON."""
    all_columns: bool = False
    """Whether rows have every column of their file, not only the needed ones."""

    def keeps(self, column: str) -> bool:
        """Whether rows have a column."""
        return self.all_columns or column in self.needed


def reading_of(
    topic: TopicConfig, limits: LimitsConfig, *, all_columns: bool = False, also: Iterable[str] = ()
) -> Reading:
    """Returns how a topic's files are read. `also`: paths that are needed besides those of the configuration."""
    paths = [*topic.placeholders, *topic.payload_fields.values(), *topic.key_paths, *also]
    if topic.version is not None:
        paths.append(topic.version)
    if topic.delete_when is not None:
        paths.append(topic.delete_when.field)
    if topic.schema_version is not None:
        paths.append(str(topic.schema_version["field"]))
    needed = frozenset(name for path in paths for name in top_names(path))
    return Reading(needed, expected_by(topic), limits.max_record_bytes, limits.max_depth, all_columns)
