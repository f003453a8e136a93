"""Fills a fresh collection without building its index on the way, where the store can do that."""

import time
from collections.abc import Sequence

from pipeline.binding import Task
from pipeline.errors import TransientError
from pipeline.interfaces import DeferrableIndex, Progress

POLL_S = 1.0


def finish_index(store: object, tasks: Sequence[Task], progress: Progress) -> list[str]:
    """Restores what this run or a crashed one put off, waits until it is built, and returns those tasks' names.

    Raises like the store; while it waits, it asks again after a TransientError.
    """
    if not isinstance(store, DeferrableIndex):
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
