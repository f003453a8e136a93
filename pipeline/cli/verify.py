"""`refract verify`: does the store hold what the source says?"""

from dataclasses import asdict
from typing import Annotated

import typer

from pipeline.cli.compare_view import advice, print_comparison
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
from pipeline.cli.progress import progress


def verify(
    config: ConfigFile,
    *,
    inputs: Inputs = None,
    topic: InputTopic = None,
    key: InputKey = None,
    row_number: InputRowNumber = None,
    sample: Sample = "100",
    wait_s: Wait = 30.0,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Points of each kind that --json names.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Compare the store with its sources, key by key; exit 0 only when they are equal. Writes nothing.

    Without --input these are the source topics and every file that was backfilled, as the backfill's ledger says.
    What can never be stored must be in the dead-letter topic instead; a record in neither is lost, and named.
    With a Qdrant server the pipeline may run meanwhile: what differs is looked at again once the group has
    committed it.
    """
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
        examples=limit,
    )
    with progress() as step:
        report = compare.verify(Context.open(config), request, step)
    if as_json:
        print_json(asdict(report))
    else:
        print_comparison(report, config)
        print_note(advice(report, config))
    if not report.equal:
        raise typer.Exit(ExitCode.FAILED)
