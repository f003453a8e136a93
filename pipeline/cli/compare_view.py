"""What `refract verify` and `refract repair` show to people."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.cli.output import print_note, print_table
from pipeline.compare.report import RepairReport, VerifyReport

_KINDS = ("missing", "stale", "extra", "wrong_state", "tombstone_missing", "wrong_vector", "pending")


_SHOWN = 5
"""Sources that a note names."""


def print_comparison(report: VerifyReport, config: Path) -> None:
    """Prints a table of tasks and one of dead letters, and what is pending."""
    columns = [
        "task",
        "keys",
        *(kind.replace("_", " ") for kind in _KINDS),
        "tombstones",
        "newer",
        "elsewhere",
        "vectors checked",
    ]
    rows = [
        [
            name,
            task.keys,
            *(getattr(task, kind) for kind in _KINDS),
            task.tombstones,
            task.newer,
            task.elsewhere,
            task.vectors_checked,
        ]
        for name, task in report.tasks.items()
    ]
    print_table("", columns, rows)
    for name, task in report.tasks.items():
        if task.wrong_fingerprint:
            print_note(f"{name}: {task.wrong_fingerprint}")
    print_note(f"compared with {_listed(report.sources)}")
    for uri, why in report.unread.items():
        print_note(f"not compared, though it was backfilled: {uri} ({why})")
    for name, task in report.tasks.items():
        if task.not_compared:
            named = [f"{source} ({points:,} points)" for source, points in task.not_compared.items()]
            print_note(f"{name}: from sources not given: {task.elsewhere:,} points. Not compared: {_listed(named)}")
    _print_letters(report)
    if report.has_pending:
        print_note(_pending(report, config))


def _print_letters(report: VerifyReport) -> None:
    if report.dead_letters:
        print_table("dead letters", ["reason", "records"], sorted(report.dead_letters.items()))
    print_note(f"{report.records:,} records read, {sum(report.dead_letters.values()):,} of them dead letters")
    if report.dead_letters_missing:
        print_note(f"{report.dead_letters_missing:,} of them are in no dead letter: they are lost")
    if report.dead_letters_pending:
        print_note(f"{report.dead_letters_pending:,} of them the pipeline has not dead-lettered yet")
    if report.dead_letters_unknown:
        print_note(f"{report.dead_letters_unknown:,} of them are older than what the dead-letter topic has kept")


def _pending(report: VerifyReport, config: Path) -> str:
    """Returns what will become of the records that the pipeline has not come to."""
    meaning = (
        "pending: records that the pipeline has not come to yet; they are not missing, and a repair leaves them to it"
    )
    if report.running:
        return f"{meaning}. It is running: see how far behind with `refract status {config}`, or say a longer --wait"
    return (
        f"{meaning}. It is not running: start it with `refract run {config}`, and compare again once "
        f"`refract status {config}` shows no lag"
    )


def advice(report: VerifyReport, config: Path) -> str:
    """Returns a line on what to do about a comparison."""
    if report.equal:
        return "equal"
    return f"not equal; mend it with: refract repair {config}" if report.has_faults else "not equal yet"


def print_repaired(report: RepairReport) -> None:
    """Prints a table of what was done to each task."""
    rows = [[name, task.written, task.deleted, task.left] for name, task in report.repaired.items()]
    print_table("repaired", ["task", "written", "deleted", "left"], rows)
    if report.letters_written:
        print_note(f"{report.letters_written:,} dead letters written")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
