"""Who looks on while a backfill or its estimate runs."""

from collections.abc import Sequence
from typing import Protocol

from pipeline.backfill.executor import RunState
from pipeline.backfill.work import Work


class Watch(Protocol):
    """Watches what takes long, on a terminal for example. All methods are called from one thread."""

    def step(self, doing: str, done: int, total: int) -> None:
        """See `pipeline.interfaces.Progress`."""

    def note(self, text: str) -> None:
        """Something that is worth a line."""


class BackfillWatch(Watch, Protocol):
    """Watches a run."""

    def doing(self, what: str) -> None:
        """What goes on before anything can be counted."""

    def begin(self, works: Sequence[Work]) -> None:
        """These works are to be carried through now."""

    def over(self, work: Work) -> None:
        """A work is done or has failed."""

    def show(self, state: RunState) -> None:
        """How the run stands."""


class Unwatched:
    """Implements BackfillWatch: nobody looks."""

    def step(self, doing: str, done: int, total: int) -> None:
        """See BackfillWatch."""

    def note(self, text: str) -> None:
        """See BackfillWatch."""

    def doing(self, what: str) -> None:
        """See BackfillWatch."""

    def begin(self, works: Sequence[Work]) -> None:
        """See BackfillWatch."""

    def over(self, work: Work) -> None:
        """See BackfillWatch."""

    def show(self, state: RunState) -> None:
        """See BackfillWatch."""
