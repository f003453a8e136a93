"""Whether extra points may be deleted: what cannot be undone is counted, asked for and bounded first."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.compare.findings import DifferenceKind, TaskFindings
from pipeline.errors import ConfigError

MAX_SHARE = 0.1
"""Of a collection's live points. More extras than that are rather a sign of a wrong source than of lost deletes."""


_SHOWN = 5
"""Sources that a message names."""


@dataclass(frozen=True, slots=True)
class Extras:
    """The extra points of one task."""

    task: str
    number: int
    points: int
    """Live points of the task's collection, the extras included."""

    def __str__(self) -> str:
        return f"task {self.task!r}: {self.number:,} of {self.points:,} points are extra"


Approve = Callable[[Sequence[Extras]], bool]
"""Is asked before extras are deleted; False keeps them."""


def approved(
    findings: Sequence[TaskFindings], not_compared: Mapping[str, Sequence[str]], approve: Approve, *, force: bool
) -> bool:
    """Whether the extras of the findings are to be deleted; `not_compared` are further sources, by task.

    Raises ConfigError where a source that may hold their records was not compared, or more than a tenth of a collection
    is extra, and `force` does not say that it is meant.
    """
    found = [Extras(one.task.name, len(one.select(DifferenceKind.EXTRA)), one.num_points) for one in findings]
    found = [extras for extras in found if extras.number]
    if not found:
        return False
    unproven = next((extras for extras in found if not_compared.get(extras.task)), None)
    if unproven is not None and not force:
        sources = not_compared[unproven.task]
        more = f" and {len(sources) - _SHOWN:,} more" if len(sources) > _SHOWN else ""
        raise ConfigError(
            f"{unproven}, but their records may be in what was not compared: {', '.join(sources[:_SHOWN])}{more}. "
            "Nothing was deleted or written. Compare with all sources at once (several --input, or none), or say "
            "--force where these points are to go all the same"
        )
    most = max(found, key=lambda extras: extras.number / max(extras.points, 1))
    if most.number > MAX_SHARE * most.points and not force:
        raise ConfigError(
            f"{most}, more than a tenth. Nothing was deleted or written. Is this the source that filled the "
            f"collection? Look at `refract verify --json`, and say --force where all of them are to go"
        )
    return approve(found)
