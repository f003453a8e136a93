"""What must have happened in the store before an offset may be committed."""

from collections.abc import Sequence

from pipeline import failpoints
from pipeline.binding import Task
from pipeline.interfaces import PointStore
from pipeline.live.offsets import OffsetTracker
from pipeline.live.witness import Confirm


class Durability:
    """Makes finished records survive a power loss, then lets their offsets be committed."""

    def __init__(self, store: PointStore, tasks: Sequence[Task], tracker: OffsetTracker, confirm: Confirm) -> None:
        """`tasks` are those whose collections are written; `confirm` asks the store for committed witnesses."""
        self._store = store
        self._tasks = tasks
        self._confirm = confirm
        self.tracker = tracker

    def open(self) -> None:
        """Creates or checks the tasks' collections. Raises like `PointStore.open`."""
        self._store.open(self._tasks)

    def secure(self) -> None:
        """Flushes the store and offers for commit what was finished before. Offsets must not outlive their records.

        Raises TransientError while the store is away, EnvironmentFault when it has lost what offsets stand for.
        """
        watermarks = self.tracker.advance()
        if watermarks:
            self._store.flush()
            if watermarks.witnesses:
                self._confirm(watermarks.witnesses)
            failpoints.reach("before_commit")
            self.tracker.secure(watermarks)
