"""`refract repair`: embeds again and writes exactly what a comparison found wrong."""

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
from pipeline.cli.output import print_json, print_note, print_table
from pipeline.cli.progress import progress
from pipeline.compare.accounting import Accounts
from pipeline.config.app import Config
from pipeline.interfaces import Progress, RecordRange


def repair(
    config: ConfigFile,
    *,
    file: InputFile = None,
    topic: Topic = None,
    key: KeyField = None,
    row_number: RowNumber = None,
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
    from pipeline.config.load import load_config

    loaded = load_config(config)
    source, topics = open_range(loaded, file, topic, key, row_number)
    with (
        progress() as step,
        compared(loaded, source, topics, sample=sample, wait_s=wait_s, progress=step) as outcome,
    ):
        mended = outcome.revisit.repair(outcome.tasks, delete_extras=delete_extras)
        num_letters = _write_letters(loaded, source, outcome.accounts, step)
    rows = [(name, done.num_written, done.num_deleted_extras, done.num_left) for name, done in mended.items()]
    columns = ["task", "written", "deleted", "left"]
    if as_json:
        repaired = {row[0]: dict(zip(columns[1:], row[1:], strict=True)) for row in rows}
        print_json({"found": as_tree(outcome, 0), "repaired": repaired, "letters_written": num_letters})
    else:
        print_reports(outcome)
        print_table("repaired", columns, rows)
        if num_letters:
            print_note(f"{num_letters:,} dead letters written")
    unusable = [report for report in outcome.tasks if report.fingerprint_fault]
    if unusable or any(done.num_left for done in mended.values()):
        print_note("something is left: extras need --delete-extras, a foreign collection another name")
        raise typer.Exit(ExitCode.FAILED)


def _write_letters(config: Config, source: RecordRange, accounts: Accounts, step: Progress) -> int:
    from pipeline.compare.accounting import write_missing
    from pipeline.sources.letters.dead_letters import KafkaDeadLetters

    if not accounts.num_missing:
        return 0
    dead_letters = KafkaDeadLetters(config.source, config.pipeline)
    try:
        return write_missing(source, accounts, dead_letters, step)
    finally:
        dead_letters.close()
