"""`refract produce`: sends a file as records to a source topic."""

from dataclasses import asdict
from typing import Annotated

import typer

from pipeline.cli.exits import ExitCode
from pipeline.cli.options import AsJson, ConfigFile
from pipeline.cli.output import print_json, print_note
from pipeline.cli.progress import progress


def produce(
    config: ConfigFile,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="CSV, JSON or Parquet: file, folder or glob.", show_default=False)
    ],
    *,
    topic: Annotated[
        str | None,
        typer.Option("--topic", help="Source topic; needed when the file names several.", show_default=False),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--key", help="Column or field of the Kafka message key.", show_default="the topic's `key`"),
    ] = None,
    row_number: Annotated[
        str | None,
        typer.Option("--row-number", help="Adds the row's number under this name.", show_default=False),
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", min=0.001, help="Records per second.", show_default="unbounded")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Only the first so many records.", show_default=False)
    ] = None,
    create: Annotated[
        int | None,
        typer.Option("--create", min=1, help="Creates missing topics with so many partitions.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send a file's records to a source topic, in order, and wait until the brokers have them.

    CSV and Parquet rows become JSON objects. A JSON line is sent as it stands; the line
    {"_raw": TEXT, "_key": KEY} sends TEXT literally, and null as a tombstone. A row that cannot be a record is not
    sent, but named; the exit code is then 1.
    """
    from pipeline.context import Context
    from pipeline.usecases import produce as usecase

    request = usecase.ProduceRequest(file, topic, key, row_number, rate, limit, create)
    with progress() as step:
        report = usecase.produce(Context.open(config), request, step, print_note)
    if as_json:
        print_json(asdict(report) | {"elapsed_s": round(report.elapsed_s, 3)})
    else:
        per_s = report.sent / report.elapsed_s
        typer.echo(f"sent {report.sent:,} records to {report.topic} in {report.elapsed_s:.1f} s ({per_s:,.0f}/s)")
        for reason, count in sorted(report.rejected.items()):
            typer.echo(f"not sent: {count:,} rows, {reason}")
        for name, why in report.failed.items():
            typer.echo(f"not read to the end: {name}: {why}")
    if not report.ok:
        raise typer.Exit(ExitCode.FAILED)
