"""How `refract backfill` prints its report, and what its ledger holds."""

from typing import TYPE_CHECKING

import typer

from pipeline.cli.output import print_json, print_table

if TYPE_CHECKING:
    from pipeline.backfill.counts import BackfillReport, BackfillStatus


def print_report(report: "BackfillReport", *, as_json: bool) -> None:
    """Prints what a run did."""
    tree = report.tree()
    if as_json:
        print_json(tree)
        return
    facts = {name: value for name, value in tree.items() if not isinstance(value, dict)}
    names = [name.replace("_per_s", "/s").replace("_", " ") for name in facts]
    print_table("", names, [list(facts.values())])
    if report.rejected_by_reason:
        print_table("rejected rows", ["reason", "rows"], sorted(report.rejected_by_reason.items()))
    if report.payload_values_dropped:
        dropped = sorted(report.payload_values_dropped.items())
        print_table("payload values left out: not of their field's type", ["field", "values"], dropped)
    if report.failed:
        print_table("failed", ["fragment", "why"], sorted(report.failed.items()))


def print_status(status: "BackfillStatus", *, as_json: bool) -> None:
    """Prints what the ledger holds, by task; fingerprints that no task has now stand without a name."""
    tree = status.tree()
    if as_json:
        print_json(tree)
    elif rows := tree["tasks"]:
        columns = [name.replace("_", " ") for name in rows[0]]
        print_table(f"ledger in {status.ledger}", columns, [list(row.values()) for row in rows])
    else:
        typer.echo(f"nothing is noted in {status.ledger}")
