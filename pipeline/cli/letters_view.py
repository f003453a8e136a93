"""What `refract dlq` shows to people."""

from collections.abc import Mapping, Sequence
from typing import Any

import typer

from pipeline.cli.output import print_note, print_table, shortened
from pipeline.usecases.letters import ReplayReport

_MAX_CELL = 60


def print_letters(letters: Sequence[Mapping[str, Any]]) -> None:
    """Prints a table of letters."""
    if not letters:
        typer.echo("no dead letters")
        return
    rows = [[shortened(value, _MAX_CELL) for value in letter.values()] for letter in letters]
    print_table("", list(letters[0]), rows)


def print_survey(report: ReplayReport) -> None:
    """Prints what becomes of the letters, and what can be done about those that are not replayed."""
    if not report.letters:
        typer.echo("no dead letters")
        return
    topic, reason, *fates = report.letters[0]
    shown = [topic, reason, *(fate for fate in fates if report.total(fate))]
    rows = [[row[column] for column in shown] for row in report.letters]
    print_table("", [column.replace("_", " ") for column in shown], rows)
    if report.refused_again:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in report.refused_again.items())
        print_note(f"refused by this configuration: {reasons}")
    if report.total("compacted"):
        print_note(
            "A replayed record becomes the last of its key, and compaction then drops a newer one: send the key's "
            "newest state again at its producer, or, where the letters are the newest, give --into-compacted"
        )
    if report.total("value_lost"):
        print_note("value lost: the letter keeps a part of the value, and the source topic does not retain the record")
