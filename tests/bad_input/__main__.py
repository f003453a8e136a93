"""Prints the table: `python -m tests.bad_input [--json FILE]`. Exit code 1 when an outcome is not the decided one."""

import argparse
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bad_input.table import TITLES, Result, results
from tests.config_trees import ROOT

_MARKS = {True: "yes", False: "NO", None: "-"}


def main() -> int:
    """Tries every case, runs the tests that prove the others, and shows both."""
    parser = argparse.ArgumentParser(prog="python -m tests.bad_input", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there as well")
    parser.add_argument("--alone", action="store_true", help="do not run the tests of other suites that prove rows")
    options = parser.parse_args()
    progress = Console(stderr=True, markup=False, highlight=False)
    shown = 0
    found = []
    for result in results():
        found.append(result if options.alone or not result.case.proven_by else _proven(result))
        if result.case.row != shown:
            shown = result.case.row
            progress.print(f"row {shown} of {len(TITLES)}: {TITLES[shown]}")
    _print(found)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            {
                "row": result.case.row,
                "case": f"{TITLES[result.case.row]}: {result.case.given}",
                "expected": result.case.expected,
                "seen": result.seen,
                "passed": result.passed,
            }
            for result in found
        ]
        options.json.write_text(json.dumps({"rows": rows}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 1 if any(result.passed is False for result in found) else 0


def _proven(result: Result) -> Result:
    """Runs the test that stands for a row."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", result.case.proven_by]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)  # noqa: S603 - our own table
    seen = result.case.expected if ran.returncode == 0 else f"failed: {result.case.proven_by}"
    return replace(result, seen=seen, passed=ran.returncode == 0)


def _print(found: list[Result]) -> None:
    table = Table("row", "what", "given", "expected", "seen", "passed")
    for result in found:
        case = result.case
        seen = "as expected" if result.seen == case.expected else result.seen
        cells = (str(case.row), TITLES[case.row], case.given[:120], case.expected, seen, _MARKS[result.passed])
        table.add_row(*(cell.encode("ascii", "backslashreplace").decode() for cell in cells))
    console = Console(markup=False, width=None if sys.stdout.isatty() else 200)
    console.print(table)
    counts = Counter(result.passed for result in found)
    complete = {result.case.row for result in found} - {result.case.row for result in found if not result.passed}
    console.print(
        f"{len(found)} cases of {len(TITLES)} rows: {counts[True]} as decided, {counts[False]} otherwise, "
        f"{counts[None]} not tried; {len(complete)} rows complete"
    )


if __name__ == "__main__":
    sys.exit(main())
