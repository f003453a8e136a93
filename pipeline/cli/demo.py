"""`refract demo`: the whole pipeline on this machine, on tickets that come with it or on a file of one's own."""

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.output import print_note
from pipeline.cli.signals import heed_signals


def demo(
    data: Annotated[
        str | None,
        typer.Option("--data", help="Your own CSV, JSON or Parquet file.", show_default="demo tickets"),
    ] = None,
    text: Annotated[
        str | None, typer.Option("--text", help='What to embed of your rows, as "{title} {body}".', show_default=False)
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", help="Column that identifies a row.", show_default="the row's number")
    ] = None,
    bootstrap_servers: Annotated[
        str | None, typer.Option("--bootstrap-servers", help="A real Kafka.", show_default="a broker in memory")
    ] = None,
    config: Annotated[Path, typer.Option("--config", help="The pipeline to show.")] = Path("configs/demo.yaml"),
) -> None:
    """Show the pipeline at work: tickets in from Kafka, one searchable collection per task.

    Ends by itself when its output is not a terminal.
    """
    from actors.launch import launched
    from pipeline.cli import demo_view
    from pipeline.logs import configure_logs
    from pipeline.usecases import demo as usecase
    from pipeline.usecases.demo_setup import DemoRequest, prepare
    from pipeline.usecases.running import wait_ready

    os.environ.setdefault("REFRACT_LOG_LEVEL", "WARNING")
    configure_logs()
    stop = heed_signals()
    with ExitStack() as closing:
        prepared = prepare(DemoRequest(config, data, text, key, bootstrap_servers), closing, print_note)
        app = closing.enter_context(launched(prepared.path, None, print_note))
        if wait_ready(app, stop, patience_s=usecase.PATIENCE_S):
            print_note(f"sending {prepared.num_rows:,} records to topic {prepared.topic}")
            demo_view.show_states(usecase.stream(app, prepared, stop))
        if not stop.is_set():
            demo_view.show_answers(usecase.ask(prepared))
            demo_view.show_matrix(usecase.measure(app, prepared))
            demo_view.show_proof(usecase.prove(app, prepared), usecase.dead_letters(prepared))
            demo_view.show_next_steps(prepared, app.url)
        if sys.stdout.isatty():
            typer.echo("Ctrl-C stops it.")
            stop.wait()
