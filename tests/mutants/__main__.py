"""`python -m tests.mutants --json FILE`: removes each leg of the promise from a copy; some test must fail.

The working tree is never touched. Exits with 1 when a removal goes unnoticed or its edit no longer
applies, because the source has moved.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.config_trees import ROOT
from tests.mutants.catalogue import MUTANTS, MovedError, Mutant, edited

TEST_TIMEOUT_S = 25
"""A test that hangs over a mutant has noticed it, and says so by its name."""

RUN_TIMEOUT_S = 120
COPIED = ("pipeline", "actors", "tests", "configs", "pyproject.toml")

console = Console(soft_wrap=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--json", type=Path, help="where to write the rows {mutant, failed_test}")
    parser.add_argument("--only", help="run the mutants whose name holds this")
    arguments = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if not arguments.only or arguments.only in mutant.name]
    with tempfile.TemporaryDirectory(prefix="refract-mutants-") as folder:
        copy = Path(folder)
        _copy(copy)
        try:
            sources = {mutant.name: edited(copy, mutant) for mutant in chosen}
        except MovedError as error:
            console.print(str(error), style="red", markup=False)
            return 1
        passing = sorted({test for mutant in chosen for test in mutant.tests})
        console.print(f"{len(passing)} tests must pass on the unchanged copy", highlight=False)
        if broken := _first_failure(copy, passing):
            console.print(f"{broken} fails without any mutant: nothing can be learnt from it", style="red")
            return 1
        rows = [_row(copy, mutant, sources[mutant.name]) for mutant in chosen]
    _show(rows)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n", encoding="utf-8")
    return 0 if all(row["failed_test"] for row in rows) else 1


def _copy(folder: Path) -> None:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)


def _row(folder: Path, mutant: Mutant, source: str) -> dict[str, str | None]:
    path = folder / mutant.path
    original = path.read_text(encoding="utf-8")
    began_s = time.monotonic()
    path.write_text(source, encoding="utf-8")
    try:
        failed = _first_failure(folder, mutant.tests)
    finally:
        path.write_text(original, encoding="utf-8")
    verdict = f"noticed by {failed}" if failed else "SURVIVED"
    console.print(f"{mutant.name}: {verdict} ({time.monotonic() - began_s:.0f} s)", highlight=False, markup=False)
    return {"mutant": mutant.name, "failed_test": failed}


def _first_failure(folder: Path, tests: tuple[str, ...] | list[str]) -> str | None:
    """Returns the first of the tests that fails on the copy, None when all pass. Raises when pytest itself fails."""
    # Bytecode is told apart by time and size: two edits within a second could look the same.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(folder)}
    options = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider", f"--timeout={TEST_TIMEOUT_S}"]
    done = subprocess.run(  # noqa: S603 - our own tests
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
    )
    if done.returncode == 0:
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (\S+::\S+)", done.stdout, re.MULTILINE)
    if failed is None:
        raise RuntimeError(f"pytest ended with {done.returncode}:\n{done.stdout[-2_000:]}{done.stderr[-2_000:]}")
    return failed[1]


def _show(rows: list[dict[str, str | None]]) -> None:
    table = Table("removed", title="Mutants")
    table.add_column("noticed by", overflow="fold")
    for row in rows:
        table.add_row(row["mutant"], escape(row["failed_test"] or "NOTHING"))
    console.print(table)
    survived = [row["mutant"] for row in rows if not row["failed_test"]]
    console.print(f"{len(rows)} mutants, {len(survived)} survived")


if __name__ == "__main__":
    sys.exit(main())
