"""What `refract tune` shows while it works: what begins, and a line per step."""

import signal
import sys
import time
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

from pipeline.cli.output import print_note

if TYPE_CHECKING:
    from pipeline.tuning.loop import StepFacts

_LINE_S = 10.0
"""Between two lines where no terminal shows the running one."""


class StepLines:
    """Progress of a run on stderr: one running line on a terminal, a line now and then elsewhere.

    While it is open, SIGTERM ends a run as Ctrl-C does: with the best state so far.
    """

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._next_s = 0.0
        self._steps: int | None = None
        self._before: Any = None

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGTERM, _interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)
        if self._is_terminal:
            sys.stderr.write("\r\x1b[K")

    def progress(self, doing: str, done: int, total: int) -> None:
        """Shows what begins, and how far it is."""
        if done:
            doing += f": {done:,} of {total:,}" if total else f": {done:,}"
        print_note(doing)

    def step(self, facts: "StepFacts") -> None:
        """Shows a step."""
        if facts.steps is not None and self._steps is None:
            self._steps = facts.steps
            print_note(f"{facts.steps:,} steps")
        line = step_line(facts)
        if self._is_terminal:
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()
        elif time.monotonic() >= self._next_s or facts.step in {facts.steps, facts.best_step}:
            self._next_s = time.monotonic() + _LINE_S
            print_note(line)


def step_line(facts: "StepFacts") -> str:
    """Returns a step in one line."""
    of = "" if facts.steps is None else f" of {facts.steps:,}"
    parts = [f"step {facts.step:,}{of}", f"loss {facts.loss:.3f}"]
    if facts.score is not None and facts.best_score is not None:
        parts.append(f"score {facts.score:.3f} (best {facts.best_score:.3f} after step {facts.best_step:,})")
    if facts.remaining_s is not None:
        parts.append(f"{_duration(facts.remaining_s)} left")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:,} min {rest:02d} s" if minutes else f"{rest} s"


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
