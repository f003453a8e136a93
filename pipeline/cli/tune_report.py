"""What `refract tune` prints at the end: figures before and after, and how to serve the result."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline.cli.output import print_note, print_table

if TYPE_CHECKING:
    from pipeline.usecases.tune_request import TuneReport


def print_report(report: "TuneReport") -> None:
    """Prints the figures before and after, the notes, and how to use the result."""
    if "recall_at_1" in report.card["after"]:
        _print_pairs(report)
    else:
        _print_matrix(report)
    for line in [*_figures(report.card), *(f"note: {note}" for note in report.notes)]:
        print_note(line)
    print_note(f"{report.output} is written. To serve it:")
    for line in report.use:
        print_note(f"  {line}")


def _print_matrix(report: "TuneReport") -> None:
    before, after = report.card["before"]["accuracy"], report.card["after"]["accuracy"]
    labels = list(next(iter(after.values())))
    print_table(
        f"{report.method}: share of held-out texts told by their neighbours, before and after ({report.why})",
        ["under", *labels],
        [[name, *(f"{before[name][label]:.2f} → {after[name][label]:.2f}" for label in labels)] for name in after],
    )


def _print_pairs(report: "TuneReport") -> None:
    before, after = report.card["before"], report.card["after"]
    print_table(
        f"{report.method}: held-out queries among {after['documents']:,} documents, before and after ({report.why})",
        ["task", "queries", "recall at 1", "nDCG at 10"],
        [
            [
                task,
                f"{count:,}",
                *(
                    f"{before[name][task]['value']:.2f} → {after[name][task]['value']:.2f}"
                    for name in ("recall_at_1", "ndcg_at_10")
                ),
            ]
            for task, count in after["queries"].items()
        ],
    )


def _figures(card: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, title in (("separation", "separation"), ("flip_rate", "flip rate")):
        before, after = card["before"].get(name), card["after"].get(name)
        if before and after:
            lines.append(
                f"{title} {before['value']:.2f} → {after['value']:.2f} ({after['low']:.2f} to {after['high']:.2f})"
            )
    general = card.get("general_recall_at_1")
    if general:
        lines.append(f"recall of plain pairs {general['before']:.2f} → {general['after']:.2f}")
    if card.get("shuffled_labels"):
        lines.append("shuffled labels: κ " + ", ".join(f"{t} {v:+.2f}" for t, v in card["shuffled_labels"].items()))
    return lines
