"""`refract demo`: the whole pipeline on this machine, on tickets that come with it or on a file of one's own."""

import os
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.output import print_note
from pipeline.errors import RefractError

if TYPE_CHECKING:
    from actors.run import RunningApp
    from pipeline.cli.demo_setup import Demo

RATE = 80.0
"""Records a second: slow enough to watch, fast enough not to wait."""

LOOK_S = 0.5
LINE_S = 5.0
PATIENCE_S = 240.0


def demo(
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Your own CSV, JSON Lines or Parquet file.", show_default="demo tickets"),
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

    Ends by itself when its output is no terminal.
    """
    from actors.run import RunningApp
    from pipeline.cli.demo_setup import prepare
    from pipeline.cli.run import heed_signals
    from pipeline.logs import configure_logs

    os.environ.setdefault("REFRACT_LOG_LEVEL", "WARNING")
    configure_logs()
    stop = threading.Event()
    heed_signals(stop)
    with ExitStack() as closing:
        prepared = prepare(config, data, text, key, bootstrap_servers, closing)
        app = RunningApp(prepared.path)
        closing.callback(app.stop, print_note)
        app.start(print_note)
        _wait_ready(app, stop)
        _stream(app, prepared, stop)
        if not stop.is_set():
            _present(app, prepared)
        if sys.stdout.isatty():
            typer.echo("Ctrl-C stops it.")
            stop.wait()


def _wait_ready(app: "RunningApp", stop: threading.Event) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not stop.is_set():
        ready, reason = app.ready()
        if ready:
            return
        if time.monotonic() > deadline_s:
            raise RefractError(f"the demo did not get ready within {PATIENCE_S:.0f} s: {reason}")
        stop.wait(LOOK_S)


def _stream(app: "RunningApp", prepared: "Demo", stop: threading.Event) -> None:
    """Sends the records from a thread and shows what becomes of them until all are finished."""
    failures: list[BaseException] = []

    def send() -> None:
        try:
            prepared.send(RATE if prepared.is_demo_data else None, stop)
        except RefractError as error:
            failures.append(error)

    sender = threading.Thread(target=send, name="produce", daemon=True)
    print_note(f"sending {prepared.num_records:,} records to topic {prepared.topic}")
    sender.start()
    deadline_s = time.monotonic() + PATIENCE_S + prepared.num_records / 10
    with _view() as show:
        while not stop.is_set():
            state = app.state()
            show(state)
            if failures:
                raise failures[0]
            if not sender.is_alive() and _finished(state, prepared):
                return
            if time.monotonic() > deadline_s:
                raise RefractError("the records did not arrive in time; the table above shows where they are")
            stop.wait(LOOK_S)


def _finished(state: dict[str, Any], prepared: "Demo") -> bool:
    """Whether every record sent was stored, found older, or dead-lettered."""
    facts = state["topics"][prepared.topic]
    task = next(iter(facts["tasks"].values()))
    done: int = task["written"] + task["deleted"] + task["stale"] + sum(facts["dead_letters"].values())
    received, behind = int(facts["received"]), int(facts["lag_records"])
    return received >= prepared.num_records and behind == 0 and done >= prepared.num_records


def _present(app: "RunningApp", prepared: "Demo") -> None:
    from pipeline.cli import demo_view
    from pipeline.usecases.client import AppClient

    with AppClient(app.config) as client:
        demo_view.show_searches(client, app.config, prepared)
        demo_view.show_neighbours(client, app.config, prepared)
    demo_view.show_proof(app, prepared)
    demo_view.show_next_steps(app, prepared)


def _view() -> Any:
    """A live table on a terminal; a line every few seconds elsewhere."""
    from contextlib import contextmanager

    from pipeline.cli.status import status_view

    @contextmanager
    def live() -> Any:
        from rich.live import Live

        with Live(auto_refresh=False) as table:
            yield lambda state: table.update(status_view(state), refresh=True)

    @contextmanager
    def lines() -> Any:
        last_s = 0.0

        def show(state: dict[str, Any]) -> None:
            nonlocal last_s
            if time.monotonic() - last_s >= LINE_S:
                last_s = time.monotonic()
                facts = next(iter(state["topics"].values()))
                tasks = ", ".join(
                    f"{name}: {task['written']:,} written, {task['stale']} stale"
                    for name, task in facts["tasks"].items()
                )
                dead = sum(facts["dead_letters"].values())
                print_note(f"{facts['received']:,} in; {tasks}; {dead} dead letters")

        yield show

    return live() if sys.stdout.isatty() else lines()
