"""Who carries a backfill's works through, and whom it tells: on Ray, or in this process."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.backfill.outcome import Counts, Outcome
from pipeline.backfill.work import BackfillJob, Work

CHECKPOINT_S = 10.0
"""A killed run repeats at most so much of a large fragment, and what was in flight."""

TURN_S = 1.0
"""Between two reports of how a run stands."""


@dataclass(frozen=True, slots=True)
class RunState:
    """How a run stands."""

    counts: Counts
    """Of everything so far, what is under way included."""
    busy_s: float
    """Seconds that the embedders have spent computing, all together."""
    num_embedders: int
    """Those that are ready."""


class BackfillEvents(Protocol):
    """Hears of a run. All methods are called from the thread that called `run`; what they raise ends the run."""

    def doing(self, what: str) -> None:
        """Says what goes on before anything can be counted."""

    def noted(self, work: Work, outcome: Outcome, *, done: bool) -> None:
        """Rows are durable in the store now: those below `outcome.next_row`; `done`: all of them."""

    def failed(self, work: Work, why: str) -> None:
        """The fragment cannot be finished; the others go on."""

    def progress(self, state: RunState) -> None:
        """Called about once a second, and at the end."""


class BackfillExecutor(Protocol):
    """Carries works through."""

    def check(self, job: BackfillJob) -> None:
        """Raises ConfigError where this executor cannot do such a job; starts nothing."""

    def run(self, job: BackfillJob, works: Sequence[Work], events: BackfillEvents) -> None:
        """Returns when every work is done or has failed.

        Raises RefractError where something other than a fragment is at fault; what is noted by then is durable.
        """


class Interval:
    """Something that is due every so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since_s = time.monotonic()

    def is_due(self) -> bool:
        """Whether it is due now; if so, the next time is counted from here."""
        now = time.monotonic()
        if now - self._since_s < self._seconds:
            return False
        self._since_s = now
        return True
