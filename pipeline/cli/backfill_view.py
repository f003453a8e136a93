"""What `refract backfill` shows while it runs: one changing line on a terminal, plain lines elsewhere."""

import datetime as dt
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from pipeline.cli.output import print_note
from pipeline.cli.progress import progress

if TYPE_CHECKING:
    from pipeline.backfill.executor import RunState
    from pipeline.backfill.rates import Rates
    from pipeline.backfill.work import Work
    from pipeline.interfaces import Progress

_WATCHED_S = 0.5
_PIPED_S = 10.0
"""Between two lines that nobody watches."""


class BackfillView:
    """Implements `pipeline.backfill.watch.BackfillWatch` on stderr."""

    def __init__(self) -> None:
        self._rates: Rates | None = None
        self._line: Any = None
        self._step: Progress | None = None
        self._shown = ExitStack()
        """The line or the bars that are on the screen: never both."""
        self._printed_s = float("-inf")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def step(self, doing: str, done: int, total: int) -> None:
        """Shows a bar."""
        if self._step is None:
            self._clear()
            self._step = self._shown.enter_context(progress())
        self._step(doing, done, total)

    def note(self, text: str) -> None:
        """Prints a line."""
        if self._line is None:
            self._clear()
        print_note(text)

    def doing(self, what: str) -> None:
        """Says what goes on before anything can be counted."""
        self._print(what)

    def begin(self, works: "Sequence[Work]") -> None:
        """Starts the line."""
        from pipeline.backfill.rates import Rates

        self._clear()
        self._rates = Rates(works)
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.status import Status

            self._line = self._shown.enter_context(Status("", console=Console(stderr=True)))

    def over(self, work: "Work") -> None:
        """Counts a fragment that is over."""
        if self._rates is not None:
            self._rates.finished(work)

    def show(self, state: "RunState") -> None:
        """Shows how things stand, and the rates of the last minute."""
        if self._rates is None:
            return
        now = time.monotonic()
        self._rates.see(state, now)
        if now - self._printed_s >= (_WATCHED_S if self._line else _PIPED_S):
            self._print(progress_line(self._rates, state, now))
            self._printed_s = now

    def _print(self, text: str) -> None:
        if self._line is not None:
            self._line.update(text)
        else:
            print_note(text)

    def _clear(self) -> None:
        self._shown.close()
        self._line = self._step = None


def progress_line(rates: "Rates", state: "RunState", now: float) -> str:
    """Returns the line of a state that the rates have seen."""
    counts = state.counts

    def rate(*names: str) -> str:
        return f"{rates.per_s(state, now, *names):,.0f}"

    parts = [
        f"fragments {rates.num_done:,}/{rates.num_works:,}",
        f"read {counts.rows:,} ({rate('rows')} rows/s)",
        f"embedded {counts.embedded:,} ({rate('tokens')} tokens/s)",
        f"written {counts.written + counts.deleted:,} ({rate('written', 'deleted')} points/s)",
    ]
    if state.num_embedders:
        parts.append(f"{state.num_embedders} embedders {rates.busy(state, now):.0%} busy")
    parts += [f"{reason} {number:,}" for reason, number in counts.rejected.items()]
    if counts.retries:
        parts.append(f"retries {counts.retries:,}")
    if (left_s := rates.left_s(state, now)) is not None:
        parts.append(f"about {dt.timedelta(seconds=round(left_s))} left")
    return " · ".join(parts)
