"""Whether the store still holds what the ledger says is finished. A ledger outlives collections, as offsets do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.backfill.ledger import NotedPoint
from pipeline.binding import Task
from pipeline.interfaces import PointReader, StoredPoint


@dataclass(frozen=True, slots=True)
class Losses:
    """What stands for fragments and is not in the store as it was noted."""

    gone: list[NotedPoint] = field(default_factory=list)
    """Absent or older: the collection was dropped, recreated, or restored from an older state."""
    withdrawn: list[NotedPoint] = field(default_factory=list)
    """Deleted as extras under the version they had, which no backfill beats."""


def find_losses(points: Sequence[NotedPoint], tasks: Mapping[str, Task], store: PointReader) -> Losses:
    """Asks the store for the points of each task. Raises like `PointReader.retrieve`."""
    losses = Losses()
    for name, task in tasks.items():
        noted = [point for point in points if point.task == name]
        held = {found.id: found for found in store.retrieve(task.collection, [p.id for p in noted if p.id is not None])}
        is_empty = any(point.id is None for point in noted) and not store.scroll(task.collection, None, 1)
        for point in noted:
            found = None if point.id is None else held.get(point.id)
            if point.id is None:
                losses.gone.extend([point] if is_empty else [])
            elif found is None or found.version < point.version:
                losses.gone.append(point)
            elif found.version == point.version and _is_withdrawn(found):
                losses.withdrawn.append(point)
    return losses


def _is_withdrawn(point: StoredPoint) -> bool:
    """Whether a repair deleted the point as an extra: such a tombstone has no record, so it names no source."""
    return point.deleted and "_source" not in point.payload
