"""A backfill killed wherever it hurts ends equal to its source, by `refract verify`, without beginning anew."""

import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

from tests.e2e.harness import PATIENCE_S, ROOT, end, environment, start_python, wait_until  # noqa: E402

GROUP_ROWS = 250
TICKETS = Path(os.environ.get("REFRACT_TICKETS", ROOT / "../shared/data/tickets.csv"))

pytestmark = [pytest.mark.ray, pytest.mark.e2e]


def write_config(folder: Path, *, delay_ms: int = 0, **changes: Any) -> Path:
    tree: dict[str, Any] = {
        "pipeline": "backfilled",
        "source": {
            "bootstrap_servers": ["localhost:9092"],
            "group_id": "backfilled",
            "dead_letter_topic": "dead",
            "topics": {
                "tickets": {
                    "key": "id",
                    "text": "{title?}\n\n{body?}",
                    "version": "version",
                    "payload": ["title"],
                    "tasks": ["one", "two"],
                }
            },
        },
        "models": {"null": {"model": "null:32", "overrides": {"delay_ms_per_batch": delay_ms}, "num_cpus": 0.5}},
        "tasks": {"one": {"model": "null", "instruction": "first"}, "two": {"model": "null", "instruction": "second"}},
        "store": {"type": "edge", "path": str(folder / "store")},
        "limits": {"max_batch_records": 64},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree | changes))
    return path


def tickets() -> list[dict[str, Any]]:
    if not TICKETS.is_file():
        pytest.skip(f"REFRACT_TICKETS names a CSV with title and body; {TICKETS} is missing")
    with TICKETS.open(newline="", encoding="utf-8") as file:
        rows = [{"title": row["title"], "body": row["body"]} for row in csv.DictReader(file)]
    return [{"id": f"T-{number}", "version": 5, **row} for number, row in enumerate(rows)]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=GROUP_ROWS)
    return path


def refract(*arguments: str, timeout_s: float = 2 * PATIENCE_S, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "pipeline.cli", *arguments],
        cwd=ROOT,
        env=environment(**environ),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def num_done(folder: Path) -> int:
    try:
        with sqlite3.connect(f"file:{folder / 'store.backfill/ledger.sqlite'}?mode=ro", uri=True) as db:
            return int(db.execute("SELECT count(DISTINCT fragment) FROM progress WHERE done").fetchone()[0])
    except sqlite3.OperationalError:  # it is not there yet
        return 0


def _reached(folder: Path, count: int, run: subprocess.Popen[bytes]) -> bool:
    return num_done(folder) >= count or run.poll() is not None


def processes(root: int, name: str) -> list[psutil.Process]:
    """Returns Ray's workers of a class below a process."""
    found = []
    for process in psutil.Process(root).children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if f"ray::{name}" in " ".join(process.cmdline()):
                found.append(process)
    return found


def verify(config: Path, rows: Path) -> dict[str, Any]:
    done = refract("verify", str(config), "--input", str(rows), "--sample", "all", "--json")
    assert done.stdout, done.stderr
    return dict(json.loads(done.stdout))


def test_killed_as_driver_carrier_embedder_and_store_owner_ends_equal_to_the_source(tmp_path: Path) -> None:
    tickets_of = tickets()
    rows, config, log = (
        write_rows(tmp_path / "tickets.parquet", tickets_of),
        write_config(tmp_path, delay_ms=150),
        tmp_path / "log",
    )
    num_fragments = -(-len(tickets_of) // GROUP_ROWS)
    command = ["-m", "pipeline.cli", "backfill", str(config), str(rows), "--json"]

    first = start_python(*command, log=log)
    family: list[psutil.Process] = []
    try:
        wait_until(lambda: num_done(tmp_path) >= 3 or first.poll() is not None, "three fragments are noted")
        assert first.poll() is None, log.read_text()
        family = psutil.Process(first.pid).children(recursive=True)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait(PATIENCE_S)
    noted = num_done(tmp_path)
    assert 3 <= noted < num_fragments, log.read_text()

    again = start_python(*command, log=tmp_path / "again")
    try:
        for number, victim in enumerate(("CarrierActor", "BackfillEmbedder", "StoreOwner"), start=1):
            reached = noted + 3 * number
            wait_until(partial(_reached, tmp_path, reached, again), "it goes on")
            assert again.poll() is None, (tmp_path / "again").read_text()
            processes(again.pid, victim)[0].kill()
        again.wait(2 * PATIENCE_S)
    finally:
        end(again)
        for process in family:  # what the killed driver started notices by itself, or here
            with suppress(psutil.NoSuchProcess):
                process.kill()
    output = (tmp_path / "again").read_text()
    assert f"{num_fragments - noted} of {num_fragments} fragments to do" in output
    assert again.returncode == 0, output
    report = json.loads(output[output.index("{\n") :])
    assert report["fragments_done"] == num_fragments - noted
    assert report["rows"] <= len(tickets_of) - noted * GROUP_ROWS + GROUP_ROWS
    assert report["retries"] > 0  # the embedder and the store were away

    compared = verify(config, rows)
    assert compared["equal"], compared
    assert {task["keys"] for task in compared["tasks"].values()} == {len(tickets_of)}

    status = json.loads(refract("backfill", str(config), "--status", "--json").stdout)
    assert {(task["task"], task["fragments_done"]) for task in status["tasks"]} == {
        ("one", num_fragments),
        ("two", num_fragments),
    }
