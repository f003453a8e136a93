"""What a run did, and what earlier runs have finished: the fields that `refract backfill --json` prints."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.backfill.outcome import Counts


@dataclass(slots=True)
class BackfillReport:
    """What a run did: the fields that `refract backfill --json` prints."""

    fragments_done: int = 0
    fragments_skipped: int = 0
    """Finished by earlier runs."""
    rows: int = 0
    """Read, good or bad."""
    embedded: int = 0
    """Embeddings: records times tasks."""
    written: int = 0
    """Points and tombstones that were not stale."""
    stale: int = 0
    rejected: int = 0
    """Rows that can never be stored."""
    retries: int = 0
    seconds: float = 0.0
    working_seconds: float = 0.0
    """From the first rows on, without the start of Ray and the models."""
    rejected_by_reason: Counter[str] = field(default_factory=Counter)
    payload_values_dropped: Counter[str] = field(default_factory=Counter)
    """Stored field -> values left out because they do not fit its type."""
    failed: dict[str, str] = field(default_factory=dict)
    """Fragment -> why it could not be finished."""
    unresolved_paths: Sequence[str] = ()
    """Paths of the topic's configuration that no row of this run had; a misspelt one, perhaps."""

    @property
    def ok(self) -> bool:
        """Whether every row of every input is where it belongs."""
        return not self.failed and not self.rejected

    @property
    def fragments_failed(self) -> int:
        """How many fragments could not be finished."""
        return len(self.failed)

    @property
    def rows_per_s(self) -> float | None:
        """Rows a second, of the working seconds; None where there were none."""
        return self.rows / self.working_seconds if self.working_seconds else None

    def add(self, counts: Counts) -> None:
        """Adds the counts of a fragment that is done."""
        self.fragments_done += 1
        self.rows += counts.rows
        self.embedded += counts.embedded
        self.written += counts.points - counts.stale
        self.stale += counts.stale
        self.rejected += counts.num_rejected
        self.retries += counts.retries
        self.rejected_by_reason += counts.rejected
        self.payload_values_dropped += counts.dropped

    def tree(self) -> dict[str, Any]:
        """Returns the report as plain data, times rounded."""
        rate = self.rows_per_s
        return {
            "fragments_done": self.fragments_done,
            "fragments_skipped": self.fragments_skipped,
            "fragments_failed": self.fragments_failed,
            "rows": self.rows,
            "embedded": self.embedded,
            "written": self.written,
            "stale": self.stale,
            "rejected": self.rejected,
            "retries": self.retries,
            "seconds": round(self.seconds, 1),
            "working_seconds": round(self.working_seconds, 1),
            "rows_per_s": None if rate is None else round(rate, 1),
            "rejected_by_reason": dict(self.rejected_by_reason),
            "payload_values_dropped": dict(self.payload_values_dropped),
            "failed": self.failed,
            "unresolved_paths": list(self.unresolved_paths),
        }


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """What the ledger holds of one fingerprint."""

    task: str | None
    """None: no task has this fingerprint now."""
    fingerprint: str
    """Its first digits."""
    fragments_done: int
    fragments_begun: int
    rows: int
    rejected: int
    last: str
    """ISO 8601 time of the last entry."""


@dataclass(frozen=True, slots=True)
class BackfillStatus:
    """What earlier runs have finished."""

    ledger: Path
    tasks: Sequence[TaskStatus]

    def tree(self) -> dict[str, Any]:
        """Returns the status as plain data."""
        return {"ledger": str(self.ledger), "tasks": [asdict(task) for task in self.tasks]}
