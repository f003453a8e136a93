"""Waits for the running pipeline: what it has not come to yet is neither missing nor anything to mend."""

import time
from collections.abc import Callable

from pipeline.interfaces import Progress

RECHECK_S = 1.0
"""Between two looks at what is pending; of dead letters, each reads their topic again."""


class Waiting:
    """The time that one comparison waits, for all of its tasks and dead letters together. Use from one thread."""

    def __init__(self, wait_s: float, ask_running: Callable[[], bool], progress: Progress) -> None:
        """Takes the longest wait, and what asks whether a pipeline is running that may finish anything meanwhile.

        `ask_running` is called at most once, and only where something is pending.
        """
        self._ask_running = ask_running
        self._progress = progress
        self._wait_s = self._left_s = wait_s
        self._running: bool | None = None
        self._what = ""
        self._total = 0
        self._counted_s = 0.0

    @property
    def is_running(self) -> bool:
        """Whether a pipeline was running. Raises like `ask_running`."""
        if self._running is None:
            self._running = self._ask_running()
        return self._running

    def goes_on(self, what: str, num_pending: int) -> bool:
        """Waits a moment before the next look at what is pending; False where that is over, or makes no sense.

        Args:
            what: Is waited for, the same words at every look.
            num_pending: How many of them are left.

        Raises like `ask_running`.
        """
        if what != self._what:
            self._what, self._total, self._counted_s = what, num_pending, time.monotonic()
        self._count()
        if not self.is_running or self._left_s <= 0:
            return False
        doing = f"waiting up to {self._wait_s:,.0f} s for the pipeline to come to {what}"
        self._progress(doing, self._total - num_pending, self._total)
        time.sleep(min(RECHECK_S, self._left_s))
        self._count()
        return True

    def _count(self) -> None:
        """Takes the time since the last call from what is left."""
        now_s = time.monotonic()
        self._left_s -= now_s - self._counted_s
        self._counted_s = now_s
