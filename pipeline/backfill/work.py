"""What a backfill has to do: the job as a whole, and what is left of each fragment."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.backfill.inputs import Fragment
from pipeline.config.load import ConfigTree


@dataclass(frozen=True, slots=True)
class BackfillJob:
    """What is done with every fragment. Travels to every process that takes part."""

    source: ConfigTree
    topic: str
    """Rows follow this topic's rules."""
    tasks: Sequence[str]
    output: Path | None = None
    """Folder of Parquet files; None: the store."""
    share: bool = False
    """Whether the embedders, and an embedded store, are those of the running app."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is left of a fragment."""

    fragment: Fragment
    tasks: Sequence[str]
    """Names of the tasks it is not finished for; empty when nothing is left."""
    start: int
    """Rows below this number are finished for all of these tasks."""
    changed: bool = False
    """Whether the input differs from what an earlier run read."""

    @property
    def name(self) -> str:
        """The fragment's name, unique within a run."""
        return self.fragment.name
