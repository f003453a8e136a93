"""`refract verify`: does the store hold what the source says?"""

from typing import Annotated

import typer

from pipeline.cli.comparing import (
    InputFile,
    KeyField,
    RowNumber,
    Sample,
    Topic,
    Wait,
    as_tree,
    compared,
    open_range,
    print_reports,
)
from pipeline.cli.exits import ExitCode
from pipeline.cli.options import AsJson, ConfigFile
from pipeline.cli.output import print_json, print_note
from pipeline.cli.progress import progress


def verify(
    config: ConfigFile,
    *,
    file: InputFile = None,
    topic: Topic = None,
    key: KeyField = None,
    row_number: RowNumber = None,
    sample: Sample = "100",
    wait_s: Wait = 30.0,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Points of each kind that --json names.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Compare the store with the source, key by key; exit 0 only when they are equal. Writes nothing.

    What can never be stored must be in the dead-letter topic instead; a record in neither is lost, and named.
    With a Qdrant server the pipeline may run meanwhile: what differs is looked at again once the group has
    committed it.
    """
    from pipeline.config.load import load_config

    loaded = load_config(config)
    source, topics = open_range(loaded, file, topic, key, row_number)
    with (
        progress() as step,
        compared(loaded, source, topics, sample=sample, wait_s=wait_s, progress=step) as outcome,
    ):
        pass
    if as_json:
        print_json(as_tree(outcome, limit))
    else:
        print_reports(outcome)
        print_note("equal" if outcome.equal else f"not equal; mend it with: refract repair {config}")
    if not outcome.equal:
        raise typer.Exit(ExitCode.FAILED)
