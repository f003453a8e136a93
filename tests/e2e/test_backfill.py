"""A backfill killed in the middle and run again ends equal to its source, without beginning anew."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

from actors.context import ConfigTree, Context  # noqa: E402
from pipeline.records import point_id  # noqa: E402
from pipeline.stores.open import open_store  # noqa: E402

NUM_ROWS = 2_000
CONFIG = """
pipeline: backfilled
source:
  bootstrap_servers: ["localhost:9092"]
  group_id: backfilled
  dead_letter_topic: dead
  topics:
    tickets: {{key: id, text: "{{title}}", version: version, payload: [title], tasks: [one, two]}}
models: {{"null": {{model: "null:32", overrides: {{delay_ms_per_batch: {delay_ms}}}}}}}
tasks:
  one: {{model: "null", instruction: first}}
  two: {{model: "null", instruction: second}}
store: {{type: edge, path: {path}}}
"""

pytestmark = [pytest.mark.ray, pytest.mark.e2e]


def _command(config: Path, rows: Path) -> list[str]:
    return [sys.executable, "-m", "pipeline.cli", "backfill", str(config), str(rows)]


def _num_done(ledger: Path) -> int:
    if not ledger.exists():
        return 0
    try:
        with sqlite3.connect(ledger) as db:
            return int(db.execute("SELECT count(DISTINCT fragment) FROM done").fetchone()[0])
    except sqlite3.OperationalError:  # the table is not there yet
        return 0


def test_killed_and_run_again_ends_equal_to_the_source(tmp_path: Path) -> None:
    rows, config = tmp_path / "rows.parquet", tmp_path / "config.yaml"
    texts = [f"ticket {number}" for number in range(NUM_ROWS)]
    texts[1_990] = ""
    ids = [str(number) for number in range(NUM_ROWS)]
    pq.write_table(
        pa.table({"id": ids, "title": texts, "version": [5] * NUM_ROWS, "unused": ids}), rows, row_group_size=100
    )
    config.write_text(CONFIG.format(path=tmp_path / "store", delay_ms=100))
    ledger = tmp_path / "store.backfill" / "ledger.sqlite"
    first = subprocess.Popen(_command(config, rows), start_new_session=True)  # noqa: S603
    deadline_s = time.monotonic() + 100
    while _num_done(ledger) < 4 and time.monotonic() < deadline_s and first.poll() is None:
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    num_done = _num_done(ledger)
    assert 4 <= num_done < 20

    again = subprocess.run(  # noqa: S603
        _command(config, rows), capture_output=True, text=True, timeout=150, check=False
    )
    assert again.returncode == 1, again.stderr  # one row was rejected
    assert f"{20 - num_done} of 20 fragments to do" in again.stderr
    assert f"rows {NUM_ROWS - num_done * 100:,}" in again.stdout
    (rejects,) = (ledger.parent / "rejects").iterdir()
    assert pq.read_table(rejects).select(["row", "reason"]).to_pylist() == [{"row": 90, "reason": "text_empty"}]

    context = Context(ConfigTree.read(config))
    store = open_store(context.config.store, context.config.pipeline, ())
    try:
        store.open(context.tasks.values())
        expected = {point_id("backfilled", f"s:{key}") for key in ids if key != "1990"}
        for task in context.tasks.values():
            stored = store.scroll(task.collection, None, NUM_ROWS + 1)
            assert len(stored) == len(expected)
            assert {point.id for point in stored} == expected
    finally:
        store.close()
