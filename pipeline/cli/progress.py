"""Shows how far a long verb is: a bar on a terminal, elsewhere a line now and then, more and more seldom."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.cli.output import print_note
from pipeline.interfaces import Progress

_QUIET_S = 2.0
"""A verb that ends sooner shows nothing."""

_LONGEST_S = 60.0
"""Between two lines about one thing; each pause is twice as long as the one before."""


class Shown:
    """What to call with each step: a total of 0 is unknown."""

    def __init__(self, step: Progress, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self._step = step
        self._pause = pause
        self._resume = resume

    def __call__(self, doing: str, done: int, total: int) -> None:
        """Shows a step, see `pipeline.interfaces.Progress`."""
        self._step(doing, done, total)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Shows nothing inside: for a question, which a bar would draw over."""
        self._pause()
        try:
            yield
        finally:
            self._resume()


@contextmanager
def progress() -> Iterator[Shown]:
    """Yields what to call with each step."""
    if not sys.stderr.isatty():
        yield Shown(_lines(), _nothing, _nothing)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        shown: dict[str, object] = {}

        def step(doing: str, done: int, total: int) -> None:
            if doing not in shown:
                shown[doing] = bars.add_task(doing, total=total or None)
            bars.update(shown[doing], completed=done, total=total or None)  # type: ignore[arg-type]  # rich's TaskID

        yield Shown(step, bars.stop, bars.start)


def _nothing() -> None:
    """There is no bar to stop or to start."""


def _lines() -> Progress:
    pause_s = _QUIET_S
    next_line_s = time.monotonic() + pause_s
    told = ""

    def step(doing: str, done: int, total: int) -> None:
        nonlocal next_line_s, pause_s, told
        now_s = time.monotonic()
        if doing != told:
            told, pause_s, next_line_s = doing, _QUIET_S, min(next_line_s, now_s + _QUIET_S)
        if now_s >= next_line_s:
            pause_s = min(2 * pause_s, _LONGEST_S)
            next_line_s = now_s + pause_s
            print_note(f"{doing}: {done:,} of {total:,}" if total else doing)

    return step
