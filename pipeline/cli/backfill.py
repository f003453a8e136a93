"""`refract backfill`: files of records, or ranges of a topic, into the tasks' collections; resumable."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.backfill_report import print_report, print_status
from pipeline.cli.backfill_view import BackfillView
from pipeline.cli.exits import ExitCode
from pipeline.cli.options import AsJson, ConfigFile
from pipeline.errors import ConfigError


class Target(StrEnum):
    """Where the vectors go."""

    STORE = "store"
    PARQUET = "parquet"


def backfill(
    config: ConfigFile,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT…",
            help="CSV, JSON or Parquet: file, folder or glob; or kafka://TOPIC?from=2026-01-01&to=latest",
        ),
    ] = None,
    *,
    tasks: Annotated[str | None, typer.Option("--tasks", help="Some tasks, by comma.", show_default="all")] = None,
    topic: Annotated[
        str | None, typer.Option("--topic", help="Whose rules the rows follow.", show_default="the only one")
    ] = None,
    to: Annotated[Target, typer.Option("--to", help="The tasks' collections, or files of vectors.")] = Target.STORE,
    output: Annotated[Path | None, typer.Option("--output", help="Folder of --to parquet.", show_default=False)] = None,
    share: Annotated[
        bool,
        typer.Option("--share", help="Use the running app's embedders, live records first.", show_default=False),
    ] = False,
    show_status: Annotated[
        bool, typer.Option("--status", help="Show what earlier runs have finished, and do nothing.", show_default=False)
    ] = False,
    address: Annotated[
        str | None, typer.Option("--address", help="Ray cluster to join.", show_default="ray.address, else a new one")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Embed files of records into the store; run again, it continues where it was stopped.

    Versions decide, so it may run before, after and beside live traffic. An embedded store belongs to one process: stop
    the app first, or use --share.
    """
    from pipeline.context import Context
    from pipeline.usecases.backfill import BackfillRequest, backfill_status
    from pipeline.usecases.backfill import backfill as run_backfill

    context = Context.open(config)
    if (to is Target.PARQUET) != (output is not None):
        raise ConfigError("--to parquet needs --output FOLDER, and --output needs --to parquet")
    request = BackfillRequest(inputs or [], topic, None if tasks is None else tasks.split(","), output, share)
    if show_status:
        print_status(backfill_status(context, request), as_json=as_json)
        return
    if not inputs:
        raise ConfigError("name at least one INPUT, or --status")
    from actors.backfill_run import RayExecutor

    with BackfillView() as view:
        report = run_backfill(context, request, RayExecutor(address or context.config.ray.address), view)
    print_report(report, as_json=as_json)
    if not report.ok:
        raise typer.Exit(ExitCode.FAILED)
