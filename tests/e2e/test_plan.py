"""`refract plan` runs the beginning of the real thing, and leaves nothing behind."""

import json
import tempfile
from pathlib import Path

import pytest

from tests.e2e.test_backfill import refract, write_config, write_rows

NUM_ROWS = 3_000

pytestmark = [pytest.mark.ray, pytest.mark.e2e]


def test_a_plan_measures_the_real_path_and_writes_nothing(tmp_path: Path) -> None:
    config, scratch = write_config(tmp_path, delay_ms=20), tmp_path / "tmp"
    tickets = [{"id": str(n), "title": f"ticket {n}", "body": "", "version": 5} for n in range(NUM_ROWS)]
    rows = write_rows(tmp_path / "rows.parquet", tickets)
    scratch.mkdir()
    before = set(tmp_path.iterdir())
    # Ray's own folder stays where it is: the paths of its sockets must be short.
    ray_folder = tempfile.gettempdir()
    arguments = ("plan", str(config), str(rows), "--json", "--sample", "500")
    done = refract(*arguments, TMPDIR=str(scratch), RAY_TMPDIR=ray_folder)
    assert done.returncode == 0, done.stderr
    planned = json.loads(done.stdout)
    assert planned["input"]["rows"] == NUM_ROWS
    assert planned["pace"]["num_embedders"] == 1
    assert 0 < planned["pace"]["num_rows"] <= NUM_ROWS
    assert planned["seconds"] >= planned["pace"]["first_s"] > 1  # no Ray starts in a second
    assert [task["points"] for task in planned["tasks"]] == [NUM_ROWS, NUM_ROWS]
    assert set(tmp_path.iterdir()) == before
    assert [path for path in scratch.iterdir() if path.name.startswith("refract-plan-")] == []
