"""What became of fragments: counted while they are under way, summed up at the end."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import NamedTuple

from prometheus_client import CollectorRegistry

from pipeline.metrics import samples, snapshot, total


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
    """Points sent to the store, tombstones not counted; those that were stale included."""
    deleted: int = 0
    """Tombstones."""
    points: int = 0
    """Good rows times tasks: what was to be written, superseded rows of a batch and tombstones included."""
    stale: int = 0
    """Points that lost against a newer version."""
    retries: int = 0
    """Repetitions after an outage or a lost answer."""
    rejected: Counter[str] = field(default_factory=Counter)
    """Rows by reason."""

    def add(self, other: "Counts") -> None:
        """Adds another's counts."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    @property
    def num_rejected(self) -> int:
        """Rows that went to the rejects."""
        return sum(self.rejected.values())


def counts_of(registry: CollectorRegistry, rows: int, finished: int) -> Counts:
    """Returns what a refractor's metrics say of so many rows, of which some are finished."""
    taken = [snapshot("backfill", "", 0.0, registry)]
    names = {"embedded": "records_embedded", "written": "points_written", "deleted": "points_deleted"}
    found = {name: int(total(taken, f"refract_{metric}_total")) for name, metric in names.items()}
    rejected = Counter[str]()
    for sample in samples(taken, "refract_dead_letters_total"):
        rejected[sample.labels["reason"]] += int(sample.value)
    return Counts(
        rows=rows,
        finished=finished,
        stale=int(total(taken, "refract_points_stale_total")),
        retries=int(total(taken, "refract_retries_total")),
        rejected=rejected,
        **found,
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a fragment, or of its rows below `next_row`."""

    counts: Counts
    next_row: int
    """Every row below is durable, stale, or among the rejects."""
    rejects: Sequence[Reject]


@dataclass(slots=True)
class Report:
    """What a run did. `refract backfill` prints it."""

    counts: Counts = field(default_factory=Counts)
    fragments_done: int = 0
    fragments_skipped: int = 0
    """Finished by earlier runs."""
    failed: dict[str, str] = field(default_factory=dict)
    """Fragment -> why it could not be finished."""
    elapsed_s: float = 0.0
    working_s: float = 0.0
    """Without the start of Ray and the models."""

    @property
    def ok(self) -> bool:
        """Whether every row of every input is where it belongs."""
        return not self.failed and not self.counts.num_rejected
