"""What a backfill is told to do: the job as a whole, and one fragment of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.backfill.fragments import Fragment
from pipeline.config.load import ConfigTree


@dataclass(frozen=True, slots=True)
class Job:
    """What a backfill does with every fragment."""

    source: ConfigTree
    topic: str
    tasks: Sequence[str]
    output: Path | None
    """Folder of Parquet files; absent: the store."""
    share: bool
    """Whether embedders and embedded store are those of the running app."""


@dataclass(frozen=True, slots=True)
class Work:
    """A fragment, the tasks it is not finished for, and the first row that is left."""

    fragment: Fragment
    tasks: Sequence[str]
    start: int
