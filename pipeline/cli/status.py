"""`refract status`: what the running app is doing, per topic and task."""

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.options import AsJson, ConfigFile
from pipeline.cli.output import print_json, print_rich
from pipeline.cli.status_view import status_view

if TYPE_CHECKING:
    from pipeline.usecases.client import AppClient

_WATCH_S = 2.0


def status(
    config: ConfigFile,
    *,
    as_json: AsJson = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Repeat every two seconds until Ctrl-C.", show_default=False)
    ] = False,
) -> None:
    """Show lag, writes, dead letters, freshness and embedders of the running app."""
    from pipeline.config.load import load_config
    from pipeline.usecases.client import AppClient

    with AppClient(load_config(config)) as app:
        if not watch:
            _print(app.status(), as_json=as_json)
        elif as_json or not sys.stdout.isatty():
            while True:
                _print(app.status(), as_json=as_json, indent=False)
                sys.stdout.flush()
                time.sleep(_WATCH_S)
        else:
            _watch(app)


def _watch(app: "AppClient") -> None:
    from rich.live import Live

    with Live(status_view(app.status()), auto_refresh=False, screen=False) as live:
        while True:
            time.sleep(_WATCH_S)
            live.update(status_view(app.status()), refresh=True)


def _print(state: dict[str, Any], *, as_json: bool, indent: bool = True) -> None:
    if as_json:
        print_json(state, indent=indent)
    else:
        print_rich(status_view(state))
