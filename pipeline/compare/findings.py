"""What a comparison has found, as it works with it; `report` turns it into figures."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from uuid import UUID

import numpy as np

from pipeline.binding import Task
from pipeline.compare.accounting import Undecodable
from pipeline.compare.report import TaskReport
from pipeline.compare.source_keys import ENTRY, Entries
from pipeline.records.record import place_of


class DifferenceKind(IntEnum):
    """How a point can differ from the source."""

    MISSING = 0
    STALE = 1
    EXTRA = 2
    WRONG_STATE = 3
    """The right version, but live where the source deleted it or the other way round."""
    TOMBSTONE_MISSING = 4
    WRONG_VECTOR = 5
    """Not the vector that the task gives the text: damaged, or of another fingerprint, which points do not carry."""
    PENDING = 6
    """The pipeline has not read the record yet."""


FAULT = np.dtype([*ENTRY.descr, ("kind", "<u1"), ("stored", "<i8")])
"""An entry of the source, its kind, and the stored version, -1 if there is none. An extra has an id and a stored
version only."""


MAX_SOURCES = 1_000
"""Names of sources that a task's findings keep."""


@dataclass(slots=True)
class TaskFindings:
    """What the comparison has found of one task so far."""

    task: Task
    num_keys: int = 0
    """Keys the source says are live."""
    num_tombstones: int = 0
    """Deleted keys whose tombstone stands in the store."""
    num_newer: int = 0
    """Points whose record lies beyond the range, or is no longer retained."""
    num_elsewhere: int = 0
    """Points of other sources, whose keys this source does not have."""
    elsewhere: Counter[str] = field(default_factory=Counter)
    """Live points by the source they name: those of sources that are not compared, whether or not this one has their
    keys. `file@hash`, or a topic."""
    num_points: int = 0
    """Live points of the collection."""
    num_checked: int = 0
    """Vectors that were computed again and compared."""
    fingerprint_fault: str = ""
    """Why the collection belongs to something else; nothing more was compared then."""
    faults: list[Entries] = field(default_factory=list)
    """Arrays of FAULT."""
    sample: Entries = field(default_factory=lambda: np.empty(0, ENTRY))
    """Entries of live keys whose vectors are to be checked, by id."""

    @property
    def counts(self) -> dict[str, int]:
        """Faults by the kind's name in lower case."""
        found = Counter(kind for faults in self.faults for kind in faults["kind"].tolist())
        return {kind.name.lower(): found[kind] for kind in DifferenceKind}

    @property
    def equal(self) -> bool:
        """Whether the store holds what the source says."""
        return not self.fingerprint_fault and not any(map(len, self.faults))

    def select(self, *kinds: DifferenceKind) -> Entries:
        """Returns the faults of the given kinds by id."""
        rows = np.concatenate([np.empty(0, FAULT), *self.faults])
        rows = rows[np.isin(rows["kind"], kinds)]
        return np.asarray(rows[np.argsort(rows["id"])])

    def note_elsewhere(self, sources: Iterable[str]) -> None:
        """Counts points by the source that their `_source` names."""
        for source in sources:
            found = place_of(source)
            name = source.partition("#")[0] if found is None else found[0].topic
            if len(self.elsewhere) < MAX_SOURCES or name in self.elsewhere:
                self.elsewhere[name] += 1

    def examples(self, limit: int, place: Callable[[np.void], str]) -> list[dict[str, object]]:
        """Returns the first faults of each kind: id, versions and the record's place, never its text."""
        rows = [row for kind in DifferenceKind for row in self.select(kind)[:limit]]
        return [
            {
                "id": str(UUID(bytes=row["id"].ljust(16, b"\0"))),
                "kind": DifferenceKind(row["kind"]).name.lower(),
                "version": None if row["kind"] == DifferenceKind.EXTRA else int(row["version"]),
                "stored_version": None if row["stored"] < 0 else int(row["stored"]),
                "record": None if row["kind"] == DifferenceKind.EXTRA else place(row),
            }
            for row in rows
        ]

    def report(self, limit: int, place: Callable[[np.void], str], not_compared: Mapping[str, int]) -> TaskReport:
        """Returns the findings in figures, with up to `limit` examples of each kind; `place` names their records."""
        return TaskReport(
            collection=self.task.collection,
            keys=self.num_keys,
            **self.counts,
            wrong_fingerprint=self.fingerprint_fault or None,
            tombstones=self.num_tombstones,
            newer=self.num_newer,
            elsewhere=self.num_elsewhere,
            not_compared=not_compared,
            points=self.num_points,
            vectors_checked=self.num_checked,
            examples=self.examples(limit, place),
        )


@dataclass(slots=True)
class SourceFindings:
    """What was read of the source."""

    num_records: int = 0
    dead_letters: Counter[str] = field(default_factory=Counter)
    """By reason: refused by the decoder, or found in the dead-letter topic."""
    undecodable: Undecodable = field(default_factory=Undecodable)
    """The places of those that the decoder refused."""
