"""What became of rows: counted while they are under way, summed up at the end."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import NamedTuple

from pipeline.records.record import Witness


class Reject(NamedTuple):
    """A row that can never be stored."""

    row: int
    """Its number within the fragment, from 0; of a Kafka range its offset."""
    reason: str
    task: str
    """The task that refused it; empty when the row itself is bad."""
    detail: str


@dataclass(slots=True)
class Counts:
    """Additive counts of some rows."""

    rows: int = 0
    """Read, good or bad."""
    finished: int = 0
    """Of those, what is written, stale, or among the rejects."""
    embedded: int = 0
    """Embeddings: records times tasks."""
    tokens: int = 0
    """Text tokens embedded, once per task."""
    written: int = 0
    """Points sent to the store without tombstones; stale ones included."""
    deleted: int = 0
    """Tombstones."""
    points: int = 0
    """Good finished rows times tasks: what was to be written, superseded rows and tombstones included."""
    stale: int = 0
    """Points that lost against a newer version, in the store or in their own batch."""
    retries: int = 0
    """Repetitions after an outage or a lost answer."""
    rejected: Counter[str] = field(default_factory=Counter)
    """Rows by reason."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Payload values that were left out because they do not fit their type, by field."""
    resolved: Counter[str] = field(default_factory=Counter)
    """Fragments by path of the configuration: those by whose end some record had a value there."""

    def add(self, other: "Counts") -> None:
        """Adds another's counts."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    @property
    def num_rejected(self) -> int:
        """Rows that went to the rejects."""
        return sum(self.rejected.values())


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a fragment, or of its rows below `next_row`."""

    counts: Counts
    next_row: int
    """Every row below is durable, stale, or among the rejects."""
    rejects: Sequence[Reject]
    witness: Witness | None = None
    """The last point that was stored; None where no row became one."""
