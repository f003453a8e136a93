"""A store's owner that keeps nothing and counts the points that arrive, so that the rest can run without end."""

import numpy as np

from pipeline.binding import Task
from pipeline.config.load import ConfigTree
from pipeline.interfaces import Written
from pipeline.records.batches import PointBatch


class CountingOwner:
    """Stands where `actors.store_owner.StoreOwner` stands."""

    def __init__(self, source: ConfigTree, *, shared: bool) -> None:
        assert shared  # among all tasks of a backfill
        self._pipeline = source.origin
        self._num_points = 0

    async def open(self, tasks: list[Task]) -> None:
        """See Store."""

    async def upsert(self, batch: PointBatch) -> Written:
        """Looks at every vector, as a store would, and drops it."""
        for rows in batch.vectors.values():
            if not np.isfinite(rows).all():
                raise AssertionError("a vector that is not finite")
            self._num_points += len(rows)
        return Written(dict.fromkeys(batch.vectors, 0))

    async def flush(self) -> None:
        """See Store."""

    async def check(self) -> str:
        """See Store."""
        return "counting"

    async def num_points(self) -> int:
        """Points of all collections so far."""
        return self._num_points
