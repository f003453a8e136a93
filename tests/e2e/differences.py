"""One point beside what the journal says of it, and what it means when they are not the same."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pipeline.interfaces import StoredPoint
from pipeline.records.record import uuid_text

MAX_SHOWN = 5


class Harm(StrEnum):
    """What is wrong with something that differs from the source."""

    LOST = "lost"
    """Sent, and neither stored nor dead-lettered."""
    DOUBLED = "doubled"
    """Stored or dead-lettered, and nothing that was sent explains it."""
    STALE = "stale"
    """An older version than the newest one sent, or one that was deleted."""
    WRONG = "wrong"
    """The right version with another content, vector, origin or reason."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One point or letter that is not as the source says."""

    harm: Harm
    what: str

    def __str__(self) -> str:
        return self.what


@dataclass(slots=True)
class State:
    """What must be stored for one key."""

    version: int
    text: str | None
    payload: Mapping[str, Any]
    sources: set[str] = field(default_factory=set)
    """Positions of the records that said so; more than one when a version was sent twice."""


def told(task: str, differences: Iterable[Difference]) -> list[str]:
    """Returns the first differences of a task as lines, and how many more there are."""
    lines = sorted(str(difference) for difference in differences)
    more = [f"… and {len(lines) - MAX_SHOWN} more"] if len(lines) > MAX_SHOWN else []
    return [f"task {task}: {line}" for line in lines[:MAX_SHOWN] + more]


def difference_of(point: bytes, state: State | None, stored: StoredPoint | None) -> Difference | None:
    name = uuid_text(point)
    if state is None:
        return Difference(Harm.DOUBLED, f"{name} is stored and was never sent")
    name = f"{name} ({state.payload['_key']})"
    if stored is None:
        return Difference(Harm.LOST, f"{name} is missing, expected version {state.version}")
    found = dict(stored.payload)
    source = found.pop("_source", None)
    checks: Sequence[tuple[str, Callable[[], tuple[object, object]]]] = (
        ("version", lambda: (stored.version, state.version)),
        ("deleted", lambda: (stored.deleted, state.text is None)),
        ("payload", lambda: (found, dict(state.payload))),
    )
    for what, values in checks:
        actual, wanted = values()
        if actual != wanted:
            harm = Harm.STALE if stored.version < state.version else Harm.WRONG
            return Difference(harm, f"{name}: {what} {actual!r}, expected {wanted!r}")
    if source in state.sources:
        return None
    return Difference(Harm.WRONG, f"{name}: from {source}, expected {sorted(state.sources)}")
