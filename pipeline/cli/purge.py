"""`refract purge`: removes old tombstones for good."""

from dataclasses import asdict, astuple
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.options import AsJson, ConfigFile
from pipeline.cli.output import print_json, print_note, print_table
from pipeline.cli.progress import progress
from pipeline.cli.time_options import span_ms

if TYPE_CHECKING:
    from pipeline.usecases.purge import PurgeReport


def purge(
    config: ConfigFile,
    *,
    older_than: Annotated[
        str,
        typer.Option(
            "--older-than",
            metavar="AGE",
            help="Age such as 30d, 36h or 2w; more than your longest outage.",
            show_default=False,
        ),
    ],
    execute: Annotated[
        bool, typer.Option("--execute", help="Do it. Without it tombstones are only counted.", show_default=False)
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Even if a backfill is begun and not finished.", show_default=False)
    ] = False,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            help="Ray cluster of the running app, for an embedded store that it holds.",
            show_default="ray.address, else this machine's",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Remove tombstones that are older than any record that could still come. The pipeline may run meanwhile.

    A tombstone stays while a committed offset or the backfill's ledger names it, and when a newer record arrives. The
    age may not be below delete.retention.ms of the topics, so the brokers must answer.
    """
    from pipeline.context import Context
    from pipeline.usecases.purge import PurgeRequest
    from pipeline.usecases.purge import purge as run_purge

    request = PurgeRequest(span_ms("--older-than", older_than), execute=execute, force=force)
    with progress() as step:
        report = run_purge(Context.open(config), request, step, partial(_app_store, address))
    if as_json:
        print_json(asdict(report))
    else:
        _print(report)


def _app_store(address: str | None, config: Any) -> Any:
    from actors.app_store import app_store  # Ray

    return app_store(config, address)


def _print(report: "PurgeReport") -> None:
    columns = ["task", "collection", "tombstones", "due", "witnesses", "without a time", "purged"]
    print_table("", columns, [(name, *astuple(task)) for name, task in report.tasks.items()])
    for sentence in report.fills:
        print_note(sentence)
    if any(task.undated for task in report.tasks.values()):
        dated = "they have one now, and leave with a later purge" if report.executed else "--execute gives them one"
        print_note(f"without a time: tombstones of earlier versions; {dated}")
    if not report.executed:
        print_note("nothing was changed; --execute does it" if report.due else "nothing to purge")
