"""What `refract run` shows of the running app: tables on a terminal, now and then a line elsewhere."""

import sys
from threading import Event

from pipeline.cli.output import print_note
from pipeline.cli.status_view import status_view
from pipeline.errors import TransientError
from pipeline.usecases.running import App, states, total_behind, total_written

_LIVE_S = 1.0
"""Between two looks at a terminal."""

_LINE_S = 30.0
"""Between two lines where nobody looks, and only when something was done."""


def show_states(app: App, stop: Event) -> None:
    """Shows what the app does until `stop` is set."""
    if sys.stdout.isatty():
        _show_live(app, stop)
    else:
        _print_lines(app, stop)


def _show_live(app: App, stop: Event) -> None:
    from rich.live import Live

    with Live(auto_refresh=False) as live:
        for state in states(app, stop, _LIVE_S):
            live.update(str(state) if isinstance(state, TransientError) else status_view(state), refresh=True)


def _print_lines(app: App, stop: Event) -> None:
    """Prints a line while records flow; a healthy idle pipeline says nothing."""
    written = 0
    for state in states(app, stop, _LINE_S):
        if isinstance(state, TransientError):
            print_note(str(state))
        elif (now := total_written(state)) != written:
            written = now
            print_note(f"{written:,} points written, {total_behind(state):,} records behind")
