"""`refract run`: the whole pipeline, until it is told to stop."""

import time
from typing import Annotated

import typer

from pipeline.cli.options import ConfigFile
from pipeline.cli.output import print_note
from pipeline.cli.signals import heed_signals


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
    began_s = time.monotonic()
    stop = heed_signals()

    from actors.launch import launched
    from pipeline.cli.run_view import show_states
    from pipeline.usecases.running import wait_ready

    with launched(config, address, print_note) as app:
        if wait_ready(app, stop, print_note):
            print_note(f"ready after {time.monotonic() - began_s:.0f} s: {app.url}/docs (Ctrl-C stops)")
        show_states(app, stop)
