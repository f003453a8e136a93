"""`refract rewind`: re-reads records, for a new task or a lost collection."""

from dataclasses import asdict, astuple
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.options import AsJson, ConfigFile
from pipeline.cli.output import print_json, print_note, print_table
from pipeline.cli.time_options import unix_ms
from pipeline.errors import ConfigError, nearest

if TYPE_CHECKING:
    from pipeline.usecases.rewind import RewindReport

_EARLIEST = "earliest"


def rewind(
    config: ConfigFile,
    *,
    to: Annotated[
        str, typer.Option("--to", help="earliest, or an RFC 3339 date or time: from there on.", show_default=False)
    ],
    topic: Annotated[
        str | None, typer.Option("--topic", help="Only this source topic.", show_default="all of the file's")
    ] = None,
    execute: Annotated[
        bool, typer.Option("--execute", help="Do it. Without it only the plan is shown.", show_default=False)
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Move the group's offsets back, so that the next run reads records again. The group must be stopped.

    Nothing is overwritten by what is read again: the version guard lets a record through only where its point is
    missing or older. So this fills the collection of a new task, or one that was lost; the price is one embedding
    per record and task.
    """
    from pipeline.context import Context
    from pipeline.usecases import rewind as usecase

    report = usecase.rewind(Context.open(config), _since_ms(to), topic, execute=execute)
    if as_json:
        print_json(asdict(report))
    else:
        _print(report, config, to)


def _print(report: "RewindReport", config: Path, to: str) -> None:
    columns = ["topic", "partition", "committed", "target", "records"]
    print_table("", columns, [astuple(partition) for partition in report.partitions])
    print_note(f"at most {report.records:,} records are read again, {report.embeddings:,} embeddings")
    if not report.records:
        print_note("nothing to move")
    elif report.executed:
        print_note(f"moved; the next `refract run {config}` reads them")
    else:
        for name in dict.fromkeys(partition.topic for partition in report.partitions if partition.records):
            print_note(f"how long it takes: refract plan {config} 'kafka://{name}?from={to}'")
        stop = f", once the group's {report.members} members are stopped" if report.members else ""
        print_note(f"nothing was changed; --execute does it{stop}")


def _since_ms(to: str) -> int | None:
    if to == _EARLIEST:
        return None
    try:
        return unix_ms("--to", to, _EARLIEST)
    except ConfigError as error:
        raise ConfigError(f"{error}{nearest(to, [_EARLIEST])}") from None
