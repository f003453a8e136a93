"""`refract repair`: embeds again and writes exactly what a comparison found wrong."""

from dataclasses import asdict
from typing import Annotated

import typer

from pipeline.cli.compare_view import print_comparison, print_repaired
from pipeline.cli.exits import ExitCode
from pipeline.cli.options import (
    AsJson,
    ConfigFile,
    InputFile,
    InputKey,
    InputRowNumber,
    InputTopic,
    Sample,
    Wait,
    sample_size,
)
from pipeline.cli.output import print_json, print_note
from pipeline.cli.progress import progress


def repair(
    config: ConfigFile,
    *,
    file: InputFile = None,
    topic: InputTopic = None,
    key: InputKey = None,
    row_number: InputRowNumber = None,
    sample: Sample = "100",
    wait_s: Wait = 30.0,
    delete_extras: Annotated[
        bool,
        typer.Option("--delete-extras", help="Also delete points the source knows nothing of.", show_default=False),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare as `refract verify` does, and write what differs; exit 0 when nothing is left.

    Never over a newer point, so beside a Qdrant server the pipeline may run meanwhile; what it has not come to yet is
    left to it.
    Wrong vectors are found among --sample; `all` finds every one, at the price of embedding everything.
    """
    from pipeline.context import Context
    from pipeline.usecases import compare

    request = compare.CompareRequest(
        file=file,
        topic=topic,
        key=key,
        row_number=row_number,
        sample=sample_size(sample),
        wait_s=wait_s,
        examples=0,
    )
    with progress() as step:
        report = compare.repair(Context.open(config), request, step, delete_extras=delete_extras)
    if as_json:
        print_json(asdict(report))
    else:
        print_comparison(report.found)
        print_repaired(report)
    if not report.complete:
        print_note("something is left: extras need --delete-extras, a foreign collection another name")
        raise typer.Exit(ExitCode.FAILED)
