"""Follows an app that runs: waits until it is ready, and looks at it from time to time."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from threading import Event
from typing import Any, Protocol

from pipeline.errors import RefractError, TransientError

LOOK_S = 1.0
"""Between two looks at an app that is not ready yet."""

Note = Callable[[str], None]
"""Called with a line for the person who waits."""

State = Mapping[str, Any]
"""What `/v1/status` answers."""


class App(Protocol):
    """An app that was started.

    Both methods raise TransientError while it does not answer, RefractError once it is gone.
    """

    def ready(self) -> tuple[bool, str]:
        """Returns whether records flow and queries are answered, and what is missing if not."""

    def state(self) -> dict[str, Any]:
        """Returns what the app is doing."""


def wait_ready(app: App, stop: Event, note: Note = lambda _: None, *, patience_s: float = math.inf) -> bool:
    """Waits until the app is ready; returns False when `stop` is set before. Notes each reason to wait.

    Raises RefractError when the app is gone, or not ready within `patience_s`.
    """
    deadline_s = time.monotonic() + patience_s
    noted = ""
    while not stop.is_set():
        try:
            ready, reason = app.ready()
        except TransientError as error:
            ready, reason = False, str(error)
        if ready:
            return True
        if time.monotonic() > deadline_s:
            raise RefractError(f"not ready within {patience_s:.0f} s: {reason}")
        if reason != noted:
            noted = reason
            note(f"waiting: {reason}")
        stop.wait(LOOK_S)
    return False


def states(app: App, stop: Event, every_s: float) -> Iterator[State | TransientError]:
    """Yields the app's state every so many seconds until `stop` is set; an error while the app does not answer.

    Raises RefractError when the app is gone.
    """
    while not stop.wait(every_s):
        try:
            yield app.state()
        except TransientError as error:
            yield error


def total_written(state: State) -> int:
    """Returns the points written since the start, over all topics and tasks."""
    return sum(task["written"] for topic in state["topics"].values() for task in topic["tasks"].values())


def total_behind(state: State) -> int:
    """Returns the records that are still to be read, over all topics."""
    return sum(topic["lag_records"] for topic in state["topics"].values())
