"""`refract repair`: embeds again and writes exactly what a comparison found wrong."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.compare_view import print_comparison, print_repaired
from pipeline.cli.exits import ExitCode
from pipeline.cli.options import (
    AsJson,
    ConfigFile,
    InputKey,
    InputRowNumber,
    Inputs,
    InputTopic,
    Sample,
    Wait,
    sample_size,
)
from pipeline.cli.output import print_json, print_note
from pipeline.cli.progress import Shown, progress
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.compare.extras import Extras


def repair(
    config: ConfigFile,
    *,
    inputs: Inputs = None,
    topic: InputTopic = None,
    key: InputKey = None,
    row_number: InputRowNumber = None,
    sample: Sample = "100",
    wait_s: Wait = 30.0,
    delete_extras: Annotated[
        bool,
        typer.Option("--delete-extras", help="Also delete points whose record is gone.", show_default=False),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete extras without asking.", show_default=False)] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Delete extras even where a source was not compared, or they are over a tenth of a collection.",
            show_default=False,
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare as `refract verify` does, and write what differs; exit 0 when nothing is left.

    Never over a newer point, so beside a Qdrant server the pipeline may run meanwhile; what it has not come to yet is
    left to it.
    Wrong vectors are found among --sample; `all` finds every one, at the price of embedding everything.
    """
    if (yes or force) and not delete_extras:
        raise ConfigError("--yes and --force speak of --delete-extras, which is not given")
    from pipeline.context import Context
    from pipeline.usecases import compare
    from pipeline.usecases.compared_sources import CompareRequest

    request = CompareRequest(
        inputs=inputs or (),
        topic=topic,
        key=key,
        row_number=row_number,
        sample=sample_size(sample),
        wait_s=wait_s,
        examples=0,
    )
    with progress() as step:
        extras = (
            compare.DeleteExtras((lambda _extras: True) if yes else partial(_ask, step), force)
            if delete_extras
            else None
        )
        report = compare.repair(Context.open(config), request, step, extras)
    if as_json:
        print_json(asdict(report))
    else:
        print_comparison(report.found, config)
        print_repaired(report)
    if not report.complete:
        print_note("something is left: extras need --delete-extras, a foreign collection another name")
        raise typer.Exit(ExitCode.FAILED)


def _ask(step: Shown, found: Sequence["Extras"]) -> bool:
    """Shows what would be deleted and asks. Raises ConfigError where nobody can answer."""
    with step.paused():
        for extras in found:
            print_note(str(extras))
        if not sys.stdin.isatty():
            raise ConfigError("--delete-extras asks before it deletes, and nobody can answer here: say --yes")
        return typer.confirm("Delete them?", err=True)
