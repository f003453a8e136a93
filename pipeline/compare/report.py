"""What a comparison and a repair report. The fields are those that `--json` prints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class TaskReport:
    """How one task's collection compares with the source. The figures count keys."""

    collection: str
    """The physical collection."""
    keys: int
    """Live keys of the source."""
    missing: int
    stale: int
    extra: int
    """Points whose record must be in what was compared, by what they say themselves, and is not."""
    wrong_state: int
    """The right version, but live where the source deleted it or the other way round."""
    tombstone_missing: int
    wrong_vector: int
    """Found among the vectors that were checked."""
    pending: int
    """The pipeline has not finished the record yet."""
    wrong_fingerprint: str | None
    """Why the collection belongs to something else; nothing more was compared then."""
    tombstones: int
    newer: int
    """Points whose record lies beyond what was read of the source."""
    elsewhere: int
    """Points of sources that were not compared, such as a file: what was compared says nothing about them."""
    not_compared: Mapping[str, int]
    """Sources that may hold records of this task and were not compared: by the configuration, the backfill's ledger or
    the points themselves; each with the number of live points that name it. While there are any, no point is proven
    to be extra."""
    points: int
    """Live points of the collection."""
    vectors_checked: int
    examples: Sequence[Mapping[str, Any]]
    """The first faults of each kind: point id, versions and the record's place, never its text."""

    @property
    def has_faults(self) -> bool:
        """Whether something differs that the pipeline will not put right by itself."""
        found = (self.missing, self.stale, self.extra, self.wrong_state, self.tombstone_missing, self.wrong_vector)
        return any(found) or self.wrong_fingerprint is not None


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` found."""

    equal: bool
    """Whether every task's collection holds what the source says, and the dead-letter topic the rest."""
    sources: Sequence[str]
    """What was compared: topics as `kafka://TOPIC`, and files."""
    unread: Mapping[str, str]
    """Files that the backfill's ledger names and that could not be compared, with the reason."""
    records: int
    """Records read from the sources."""
    dead_letters: Mapping[str, int]
    """Records that cannot be stored, by reason; of a file the rows that are rejected."""
    dead_letters_missing: int
    """Records that are neither stored nor dead-lettered: they are lost."""
    dead_letters_pending: int
    """Records that the pipeline has not dead-lettered yet."""
    dead_letters_unknown: int
    """Records older than everything that the dead-letter topic retains."""
    running: bool | None
    """Whether a pipeline was running that will come to what is pending; None where nothing is."""
    missing_letters: Sequence[str]
    """The first lost records, as `topic:partition:offset`."""
    tasks: Mapping[str, TaskReport]
    """By the task's name."""

    @property
    def has_faults(self) -> bool:
        """Whether something differs that the pipeline will not put right by itself."""
        return bool(self.dead_letters_missing) or any(task.has_faults for task in self.tasks.values())

    @property
    def has_pending(self) -> bool:
        """Whether the pipeline has not come to some records yet."""
        return bool(self.dead_letters_pending) or any(task.pending for task in self.tasks.values())


@dataclass(frozen=True, slots=True)
class RepairedTask:
    """What a repair did to one task's collection."""

    written: int
    deleted: int
    """Extra points that became tombstones."""
    left: int
    """Faults that remain: extras that may not be deleted, and records without a finite vector."""


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What `repair` found and did."""

    found: VerifyReport
    """The comparison before the repair."""
    repaired: Mapping[str, RepairedTask]
    """By the task's name."""
    letters_written: int
    """Dead letters written for records that were lost."""

    @property
    def complete(self) -> bool:
        """Whether everything that was found is repaired."""
        foreign = any(task.wrong_fingerprint for task in self.found.tasks.values())
        return not foreign and not any(task.left for task in self.repaired.values())
