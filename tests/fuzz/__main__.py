"""Feeds readers with bytes that reach ever more of their code: `python -m tests.fuzz [--seconds 60] [TARGET …]`.

Exit code 1 when a target fails; the input that does it is named, and belongs into tests/fuzz/findings/TARGET once what
it shows is mended. Inputs that reached something new are kept in var/fuzz, for the next run.
"""

import argparse
import json
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from tests.config_trees import ROOT
from tests.fuzz.table import TARGETS, findings_of
from tests.fuzz.target import Target

FOLDER = ROOT / "var" / "fuzz"
HANGS_AFTER_S = 20
RSS_MIB = 2_048
_TAIL = 4_000


@dataclass(frozen=True)
class Run:
    """One target, fuzzed."""

    target: str
    seconds: int
    executions: int
    finding: str | None
    """Path of the input that failed, or hung."""
    said: str = ""
    """The end of what the process wrote, where it failed."""


def main() -> int:
    """Fuzzes the targets, one after another."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the runs there as well")
    options = parser.parse_args()
    console = Console(markup=False, highlight=False, soft_wrap=True)
    for name in options.targets:
        if name not in TARGETS:
            parser.error(f"there is no target {name!r}; targets are {', '.join(TARGETS)}")
    if find_spec("atheris") is None:
        console.print("fuzz: skipped, because there is no atheris here: it is published for Linux on x86-64 only")
        return 0
    runs = []
    for name in options.targets or TARGETS:
        runs.append(fuzz(name, options.seconds))
        console.print(told(runs[-1]))
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps([asdict(run) for run in runs], indent=1) + "\n", encoding="utf-8")
    return 1 if any(run.finding is not None for run in runs) else 0


def told(run: Run) -> str:
    """Returns a line about a run; of a failure also what it says."""
    line = f"fuzz: {run.target}: {run.executions:,} inputs in {run.seconds} s"
    return f"{line}, nothing found" if run.finding is None else f"{run.said}\n{line}, FAILED: {run.finding}"


def fuzz(name: str, seconds: int) -> Run:
    """Runs one target in a process of its own."""
    corpus, found = FOLDER / name, FOLDER / f"{name}-failed"
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    target = TARGETS[name]
    for data in (*target.seeds, *findings_of(name)):
        (corpus / sha256(data).hexdigest()[:16]).write_bytes(data)
    before = set(found.iterdir())
    command = [sys.executable, "-m", "tests.fuzz.process", name, str(found), *_arguments(target, seconds), str(corpus)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)  # noqa: S603 - our own
    said = ran.stderr.decode(errors="replace") + ran.stdout.decode(errors="replace")
    executions = re.search(r"stat::number_of_executed_units:\s*(\d+)", said)
    new = sorted(str(path.relative_to(ROOT)) for path in set(found.iterdir()) - before)
    finding = new[0] if new else "no input is kept" if ran.returncode else None
    return Run(name, seconds, int(executions[1]) if executions else 0, finding, said[-_TAIL:] if finding else "")


def _arguments(target: Target, seconds: int) -> list[str]:
    return [
        f"-max_total_time={seconds}",
        f"-timeout={HANGS_AFTER_S}",
        f"-rss_limit_mb={RSS_MIB}",
        f"-max_len={max(target.max_bytes, *map(len, target.seeds))}",
        "-print_final_stats=1",
        "-verbosity=1",
    ]


if __name__ == "__main__":
    sys.exit(main())
