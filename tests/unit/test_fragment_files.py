"""Files of vectors while they are written."""

import gc
import os
import time
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.backfill import vectors as vectors_module
from pipeline.backfill.vectors import FragmentFile, check_output
from pipeline.records.files.listing import FilePart
from tests.unit.test_backfill_output import TASKS, batch, unseen


def test_two_carriers_of_one_fragment_never_write_one_file(tmp_path: Path) -> None:
    """One was taken for dead and was only out of reach."""
    lost, other = (FragmentFile(tmp_path, FilePart("in/a.parquet", 1, 1, 0), TASKS) for _ in range(2))
    rows = vectors_module.GROUP_ROWS
    lost.upsert(batch(range(rows)))
    other.upsert(batch(range(rows)))
    lost.upsert(batch(range(rows, rows + 10)))
    other.upsert(batch(range(rows, rows + 10)))
    for file in (other, lost):
        file.flush()
        [whole] = tmp_path.glob("*.parquet")
        assert sorted(pq.read_table(whole)["version"].to_pylist()) == list(range(rows + 10))
    assert not list(tmp_path.glob("*.tmp"))


def test_an_unfinished_file_goes_with_its_writer_and_one_of_a_dead_process_after_a_day(tmp_path: Path) -> None:
    file = FragmentFile(tmp_path, FilePart("in/a.parquet", 1, 1, 0), TASKS)
    file.upsert(batch(range(vectors_module.GROUP_ROWS)))
    assert len(list(tmp_path.glob("*.tmp"))) == 1
    del file
    gc.collect()
    assert not list(tmp_path.glob("*.tmp"))
    for name, age_s in (("old.tmp", 90_000), ("new.tmp", 10)):
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    check_output(tmp_path, TASKS, unseen)
    assert [path.name for path in tmp_path.glob("*.tmp")] == ["new.tmp"]
