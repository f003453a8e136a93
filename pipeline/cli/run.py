"""`refract run`: the whole pipeline, until it is told to stop."""

import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.exits import ExitCode
from pipeline.cli.options import ConfigFile
from pipeline.cli.output import print_note
from pipeline.errors import TransientError

if TYPE_CHECKING:
    from actors.run import RunningApp

_LIVE_S = 1.0
"""Between two looks at a terminal."""

_LINE_S = 30.0
"""Between two lines where nobody looks, and only when something was done."""


def run(
    config: ConfigFile,
    *,
    address: Annotated[
        str | None,
        typer.Option("--address", help="Ray cluster to join: auto, or host:port.", show_default="ray.address"),
    ] = None,
) -> None:
    """Run the pipeline until Ctrl-C or SIGTERM; a second run continues where this one stopped.

    On a signal it finishes what is in flight, commits and leaves the consumer group. A second signal
    stops at once, which loses nothing: what was unfinished is read again.
    """
    from actors.boot import start_ray
    from pipeline.config.load import load_config

    begun_s = time.monotonic()
    stop = threading.Event()
    heed_signals(stop)
    settings = load_config(config)
    start_ray(settings, address or settings.ray.address, print_note)

    # Only now: it brings Serve, which has been imported while Ray started.
    from actors.run import RunningApp

    app = RunningApp(config, address)
    try:
        app.start(print_note)
        _follow(app, stop, begun_s)
    finally:
        app.stop(print_note)
    raise typer.Exit(ExitCode.OK)


def heed_signals(stop: threading.Event) -> None:
    """Sets the event at the first SIGINT or SIGTERM; the second one interrupts whatever runs."""

    def on_signal(_number: int, _frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)


def _follow(app: "RunningApp", stop: threading.Event, begun_s: float) -> None:
    """Waits until the app is ready, says where it answers, and shows what it does."""
    said = ""
    while not stop.is_set():
        try:
            ready, reason = app.ready()
        except TransientError as error:
            ready, reason = False, str(error)
        if ready:
            print_note(f"ready after {time.monotonic() - begun_s:.0f} s: {app.url}/docs (Ctrl-C stops)")
            break
        if reason != said:
            said = reason
            print_note(f"waiting: {reason}")
        stop.wait(_LIVE_S)
    if sys.stdout.isatty():
        _show_live(app, stop)
    else:
        _print_lines(app, stop)


def _show_live(app: "RunningApp", stop: threading.Event) -> None:
    from rich.live import Live

    from pipeline.cli.status import status_view

    with Live(auto_refresh=False) as live:
        while not stop.wait(_LIVE_S):
            try:
                live.update(status_view(app.state()), refresh=True)
            except TransientError as error:
                live.update(str(error), refresh=True)


def _print_lines(app: "RunningApp", stop: threading.Event) -> None:
    """A line while records flow; a healthy idle pipeline says nothing."""
    written = 0
    while not stop.wait(_LINE_S):
        try:
            state = app.state()
        except TransientError as error:
            print_note(str(error))
            continue
        if (now := total_written(state)) != written:
            written = now
            lag = sum(facts["lag_records"] for facts in state["topics"].values())
            print_note(f"{written:,} points written, {lag:,} records behind")


def total_written(state: dict[str, Any]) -> int:
    """Returns points written since the start, over all topics and tasks."""
    return sum(task["written"] for topic in state["topics"].values() for task in topic["tasks"].values())
