"""Runs the fault table and prints what came of it: `python -m tests.faults [--rows 1,5] [--json FILE]`.

`--random N --seed S` disturbs one long-lived app N times at random, `--hours H` keeps doing so: the
soak. Exit code 1 unless everything is green.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.config_trees import ROOT
from tests.faults.results import ALL, RESULTS
from tests.faults.row import Row
from tests.faults.table import rows

FILE_TIMEOUT_S = 1_800
COLUMNS = ("row", "fault", "seeds", "recovery_s", "duplicates", "lost", "doubled", "stale", "passed")

progress = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there as well")
    parser.add_argument("--rows", help="only these rows: 1,2,10")
    parser.add_argument("--random", type=int, metavar="N", help="N random faults to one long-lived app instead")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first random fault")
    parser.add_argument("--hours", type=float, help="soak: random faults for so long instead")
    options = parser.parse_args()
    if options.random or options.hours:
        # Read once, when Ray is imported: what its processes say would bury the seeds.
        os.environ.setdefault("RAY_LOG_TO_DRIVER", "0")
        from tests.faults.chance import main as disturb  # noqa: PLC0415 - starts the whole app

        kept = ROOT / "var" / ("soak.json" if options.hours else "faults_random.json")
        return disturb(options.random, options.hours, options.seed, options.json or kept)
    wanted = {int(number) for number in options.rows.split(",")} if options.rows else None
    chosen = [row for row in rows() if wanted is None or row.number in wanted]
    ran, failed = run_tests(sorted({test for row in chosen for test in row.tests}))
    lines = [summary(row, ran, failed) for row in chosen]
    show(chosen, lines)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"rows": lines}, indent=1) + "\n", encoding="utf-8")
    return 1 if any(line["passed"] is False for line in lines) else 0


def run_tests(tests: Sequence[str]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Runs the tests, a process for each file; returns the lines they recorded, and of what failed id -> why."""
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="refract-faults-") as folder:
        results = Path(folder) / "results.jsonl"
        results.touch()
        files = sorted({test.partition("::")[0] for test in tests})
        for number, file in enumerate(files, start=1):
            mine = [test for test in tests if test.startswith(f"{file}::")]
            progress.print(f"{number} of {len(files)}: {file}, {len(mine)} tests")
            begun_s = time.monotonic()
            found = _run_file(mine, results)
            told = f"{len(found)} failed" if found else "passed"
            progress.print(f"  {told} in {time.monotonic() - begun_s:.0f} s")
            for test, why in found.items():
                progress.print(f"  {test}: {why}")
            failed |= found
        return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()], failed


def _run_file(tests: Sequence[str], results: Path) -> dict[str, str]:
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "--tb=short", "-p", "no:cacheprovider", *tests]
    environ = {**os.environ, RESULTS: str(results), ALL: "all"}
    try:
        done = subprocess.run(  # noqa: S603 - our own tests
            command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=FILE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return dict.fromkeys(tests, f"not done within {FILE_TIMEOUT_S} s")
    found = re.findall(r"^(?:FAILED|ERROR) (\S+::\S+)(?: - (.*))?$", done.stdout, re.MULTILINE)
    if done.returncode and not found:
        return dict.fromkeys(tests, f"pytest ended with {done.returncode}: {done.stdout[-300:]}{done.stderr[-300:]}")
    if done.returncode:
        progress.print(done.stdout[-4_000:])
    return dict(found)


def summary(row: Row, ran: Sequence[dict[str, Any]], failed: dict[str, str]) -> dict[str, Any]:
    """One line of the result. Green only when every test of the row ran, recorded the row, and passed."""
    mine = [run for run in ran if run["row"] == row.number and base(run["test"]) in row.tests]
    complete = {base(run["test"]) for run in mine} == set(row.tests)
    green = complete and all(run["passed"] for run in mine) and not any(base(test) in row.tests for test in failed)
    recovered = [run["recovery_s"] for run in mine if run["recovery_s"] is not None]
    counts = {name: sum(run[name] for run in mine) for name in ("duplicates", "lost", "doubled", "stale", "wrong")}
    return {
        "row": row.number,
        "fault": row.fault,
        "seeds": sorted({run["seed"] for run in mine}),
        "recovery_s": max(recovered, default=None),
        **counts,
        "passed": green if row.tests else None,
        **({} if row.tests else {"reason": row.reason}),
    }


def base(test: str) -> str:
    """A test's id without its parameters."""
    return test.partition("[")[0]


def show(chosen: Sequence[Row], lines: Sequence[dict[str, Any]]) -> None:
    table = Table(*COLUMNS)
    for row, line in zip(chosen, lines, strict=True):
        cells = {**line, "seeds": " ".join(map(str, line["seeds"]))}
        cells["passed"] = {True: "yes", False: "NO", None: f"not here: {row.reason}"}[line["passed"]]
        table.add_row(*("" if cells[name] is None else str(cells[name]) for name in COLUMNS))
    console = Console(markup=False, width=None if sys.stdout.isatty() else 180)
    console.print(table)
    red = [line["row"] for line in lines if line["passed"] is False]
    console.print(f"{len(lines)} rows, {len(red)} red{': ' + ', '.join(map(str, red)) if red else ''}")


if __name__ == "__main__":
    sys.exit(main())
