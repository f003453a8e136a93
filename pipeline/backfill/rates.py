"""How fast a run is now, and how long it will still take."""

from collections import deque
from collections.abc import Sequence

from pipeline.backfill.executor import RunState
from pipeline.backfill.work import Work

_RATE_S = 60.0
"""Rates are of so much time: counts move by whole batches, and one of a slow model on a CPU takes half a minute."""


class Rates:
    """Keeps the states of the last minute. Times are seconds on any one clock."""

    def __init__(self, works: Sequence[Work]) -> None:
        self.num_works = len(works)
        self.num_done = 0
        self._num_rows = _total_rows(works)
        self._num_bytes = sum(work.fragment.size for work in works)
        self._bytes_done = 0
        self._first: tuple[float, int] | None = None
        self._recent: deque[tuple[float, RunState]] = deque()

    def finished(self, work: Work) -> None:
        """Counts a work that is done or has failed."""
        self._bytes_done += work.fragment.size
        self.num_done += 1

    def see(self, state: RunState, now: float) -> None:
        """Keeps a state: rates are since the youngest that is a minute old, and not since before the first rows."""
        if self._first is None and (done := self._done(state)[0]):
            self._first = now, done
        if self._recent and not self._recent[-1][1].counts.rows:
            self._recent.clear()
        self._recent.append((now, state))
        while len(self._recent) > 1 and now - self._recent[1][0] >= _RATE_S:
            self._recent.popleft()

    def per_s(self, state: RunState, now: float, *names: str) -> float:
        """Returns the rate of some of the counts together."""
        before_s, before = self._recent[0]
        # The counts of a process that died are gone with it.
        gained = sum(max(getattr(state.counts, name) - getattr(before.counts, name), 0) for name in names)
        return float(gained) / max(now - before_s, 1e-9)

    def busy(self, state: RunState, now: float) -> float:
        """Returns the share of the time that each embedder computed; 0 where none is ready."""
        before_s, before = self._recent[0]
        seconds = max(now - before_s, 1e-9) * max(state.num_embedders, 1)
        return min(max((state.busy_s - before.busy_s) / seconds, 0.0), 1.0)

    def left_s(self, state: RunState, now: float) -> float | None:
        """Returns the time left, by the pace since the first rows were finished; None while there is no pace.

        Before them, models load while rows are read ahead.
        """
        done, total = self._done(state)
        if self._first is None or done <= self._first[1]:
            return None
        return (now - self._first[0]) * max(total - done, 0) / (done - self._first[1])

    def _done(self, state: RunState) -> tuple[int, int]:
        """Returns what is finished, and of how much: rows where the inputs say how many they have, else bytes."""
        if self._num_rows:
            return state.counts.finished, self._num_rows
        return self._bytes_done, self._num_bytes


def _total_rows(works: Sequence[Work]) -> int:
    """Rows of all works; 0 where one of them does not say."""
    counts = [work.fragment.num_rows for work in works]
    if None in counts:
        return 0
    return sum(count for count in counts if count) - sum(work.start for work in works)
