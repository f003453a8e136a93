"""`refract plan` next to the run it speaks of: time, points and room on disk, for the null engine and for MiniLM.

time_error   estimated seconds over those of `refract backfill`, less one
disk_error   the same of the store's bytes on disk
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.config.load import load_config
from tests.benchmarks import _harness as harness
from tests.benchmarks.backfill import write_rows


def main() -> None:
    """Runs both and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write one JSON object here")
    parser.add_argument("--rows", type=int, default=200_000, help="rows of the null engine's input")
    parser.add_argument("--texts", type=int, default=5_431, help="tickets of MiniLM's input")
    parser.add_argument("--only", choices=("null", "minilm"))
    given = parser.parse_args()
    texts = harness.tickets(given.texts)
    models: dict[str, tuple[Mapping[str, Any], int]] = {
        "null": ({"model": "null:384"}, given.rows),
        "minilm": (harness.MINILM, len(texts)),
    }
    figures: dict[str, Any] = {}
    for name, (model, count) in models.items():
        if given.only in {None, name}:
            figures |= {f"{name}_{fact}": value for fact, value in compare(model, texts, count).items()}
    harness.report(figures, {"rows": given.rows, "texts": len(texts), "tasks": len(harness.TASKS)}, given.json)


def compare(model: Mapping[str, Any], texts: list[str], count: int) -> dict[str, float]:
    """Plans a backfill and runs it."""
    with TemporaryDirectory(prefix="refract-bench-") as folder:
        rows = write_rows(texts, count, Path(folder) / "rows.parquet")
        with harness.app_config("localhost:9092", model, "bench") as path:
            planned = run("plan", path, rows)
            done = run("backfill", path, rows)
            store = load_config(path).store.path  # type: ignore[union-attr]  # an embedded one
            disk = sum(file.stat().st_blocks * 512 for file in store.rglob("*") if file.is_file())
    planned_disk = sum(task["disk_bytes"] for task in planned["tasks"])
    return {
        "planned_s": planned["seconds"],
        "real_s": done["seconds"],
        "time_error": planned["seconds"] / done["seconds"] - 1,
        "planned_rows_per_s": planned["pace"]["rows_per_s"],
        "planned_disk_mb": planned_disk / 1e6,
        "real_disk_mb": disk / 1e6,
        "disk_error": planned_disk / disk - 1,
    }


def run(verb: str, config: Path, rows: Path) -> Any:
    """Returns what a verb says as JSON."""
    command = [sys.executable, "-m", "pipeline.cli", verb, str(config), str(rows), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=harness.ROOT, env=os.environ)
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
