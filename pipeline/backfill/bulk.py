"""Fills a fresh collection without building its index on the way, where the store can do that."""

import time
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from pipeline.errors import TransientError
from pipeline.interfaces import Progress
from pipeline.tasks import Task

POLL_S = 1.0


@runtime_checkable
class BulkStore(Protocol):
    """A store that builds an index in the background."""

    def defer_index(self, task: Task) -> bool:
        """Puts building off if the task's collection is empty; whether it is put off now."""

    def restore_index(self, task: Task) -> bool:
        """Starts building if that was put off, by this run or an earlier one; whether it was."""

    def is_indexed(self, task: Task) -> bool:
        """Whether nothing is left to build."""


def finish_index(store: object, tasks: Sequence[Task], progress: Progress) -> list[str]:
    """Restores what this run or a crashed one put off, waits until it is built, and returns those tasks' names.

    Raises like the store; while it waits, it asks again after a TransientError.
    """
    if not isinstance(store, BulkStore):
        return []
    left = [task for task in tasks if store.restore_index(task)]
    names = [task.name for task in left]
    while left:
        progress(f"building the index of {', '.join(task.name for task in left)}", len(names) - len(left), len(names))
        time.sleep(POLL_S)
        try:
            left = [task for task in left if not store.is_indexed(task)]
        except TransientError:
            continue
    return names
