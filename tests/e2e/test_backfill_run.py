"""`refract backfill` as a command: damaged files, bad rows, a store that goes away, tasks that come later, vectors."""

import json
import time
from contextlib import closing
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from pipeline.config.load import ConfigTree
from pipeline.context import Context
from pipeline.stores.open import open_store
from pipeline.stores.qdrant import QdrantStore
from tests.e2e.harness import PATIENCE_S, ROOT, end, start_python, wait_until
from tests.e2e.test_backfill import refract, verify, write_config, write_rows
from tests.qdrant_server.process import QdrantServer

pytestmark = [pytest.mark.ray, pytest.mark.e2e]


def rows(count: int, first: int = 0, **changes: Any) -> list[dict[str, Any]]:
    return [
        {"id": f"T-{number}", "title": f"ticket {number}", "body": "text", "version": 1} | changes
        for number in range(first, first + count)
    ]


def report_of(output: str) -> dict[str, Any]:
    return dict(json.loads(output[output.index("{\n") :]))


def test_what_is_wrong_is_told_the_rest_is_done_and_a_later_task_adds_only_itself(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_rows(folder / "a.parquet", [*rows(300), *rows(1, 300, title="", body=" ")])
    write_rows(folder / "b.parquet", rows(10, 400))
    damaged = folder / "c.parquet"
    damaged.write_bytes((folder / "b.parquet").read_bytes()[:-9])
    (folder / "d.jsonl").write_text('{"id": "J-1", "title": "one", "version": 1}\n{broken\n')
    config = write_config(tmp_path)

    first = refract("backfill", str(config), str(folder), "--tasks", "one", "--json")
    assert first.returncode == 1, first.stderr
    report = report_of(first.stdout)
    assert list(report["failed"]) == [f"{damaged}#0"]
    assert "cannot be read" in report["failed"][f"{damaged}#0"]
    assert report["rejected_by_reason"] == {"text_empty": 1, "invalid_json": 1}
    assert (report["rows"], report["written"], report["embedded"]) == (313, 311, 311)
    rejects = ds.dataset(tmp_path / "store.backfill/rejects").to_table().to_pylist()
    assert {(row["fragment"], row["row"], row["reason"]) for row in rejects} == {
        (f"{folder / 'a.parquet'}#1", 50, "text_empty"),
        (f"{folder / 'd.jsonl'}#0", 1, "invalid_json"),
    }

    damaged.unlink()
    both = refract("backfill", str(config), str(folder), "--json")
    assert both.returncode == 1  # the bad rows are bad for the other task as well
    report = report_of(both.stdout)
    assert (report["fragments_done"], report["embedded"], report["failed"]) == (4, 311, {})
    again = refract("backfill", str(config), str(folder), "--json")
    assert (again.returncode, report_of(again.stdout)["fragments_skipped"]) == (0, 4)


def test_vectors_go_to_parquet_and_are_those_of_the_store(tmp_path: Path) -> None:
    path, config = write_rows(tmp_path / "rows.parquet", rows(600)), write_config(tmp_path)
    out = tmp_path / "vectors"
    done = refract("backfill", str(config), str(path), "--to", "parquet", "--output", str(out))
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "store").exists()
    assert refract("backfill", str(config), str(path)).returncode == 0
    table = ds.dataset(out).to_table().sort_by("id")
    context = Context(ConfigTree.read(config))
    with closing(open_store(context.config.store, context.config.pipeline)) as store:
        stored = store.scroll(context.tasks["two"].collection, None, 1_000, with_vectors=True)
    assert [str(point.id.hex()) for point in stored] == [text.replace("-", "") for text in table["id"].to_pylist()]
    ours = np.stack(table["vector_two"].to_numpy(zero_copy_only=False))
    theirs = np.stack([point.vector for point in stored if point.vector is not None])
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.slow
def test_a_server_away_for_a_while_and_a_second_backfill_meanwhile(tmp_path: Path) -> None:
    server = QdrantServer(tmp_path / "server").start()
    name = f"away-{time.time_ns()}"
    try:
        path = write_rows(tmp_path / "rows.parquet", rows(3_000))
        store = {"type": "qdrant", "url": server.url}
        config = write_config(tmp_path, delay_ms=100, store=store, pipeline=name)
        context = Context(ConfigTree.read(config))
        log = tmp_path / "log"
        run = start_python("-m", "pipeline.cli", "backfill", str(config), str(path), "--json", log=log)
        try:
            wait_until(lambda: _count(context) > 200 or run.poll() is not None, "points are written")
            server.kill()
            other = refract("backfill", str(config), str(path))
            assert (other.returncode, "another backfill works on it" in other.stderr) == (1, True), other.stderr
            server.start()
            run.wait(2 * PATIENCE_S)
        finally:
            end(run)
        assert run.returncode == 0, log.read_text()
        report = report_of(log.read_text())
        assert (report["written"] + report["stale"], report["retries"] > 0) == (6_000, True)
        assert "put off while it was filled, is built" in log.read_text()
        assert verify(config, path)["equal"]
        with closing(_open(context)) as opened:
            assert all(opened._index._info(task.collection).config.hnsw_config.m for task in context.tasks.values())
    finally:
        server.stop()
        rmtree(ROOT / "var" / f"{name}.backfill", ignore_errors=True)


def _open(context: Context) -> QdrantStore:
    store = open_store(context.config.store, context.config.pipeline)
    assert isinstance(store, QdrantStore)
    return store


def _count(context: Context) -> int:
    with closing(_open(context)) as store:
        task = context.tasks["one"]
        return store.count(task.collection) if store.inspect([task])["one"].exists else 0


def test_rows_of_a_csv_and_hive_folders(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "team=night%20shift"
    folder.mkdir(parents=True)
    (folder / "a.csv").write_text('id,title,body,version\nC-1,"one,\n""two""",,3\n')
    pq.write_table(ds.dataset(write_rows(tmp_path / "x.parquet", rows(5))).to_table(), folder / "b.parquet")
    topic = {
        "key": "id",
        "text": "{title?} {body?}",
        "version": "version",
        "payload": ["team"],
        "tasks": ["one", "two"],
    }
    config = write_config(tmp_path)
    tree = ConfigTree.read(config).tree
    config.write_text(json.dumps({**tree, "source": {**tree["source"], "topics": {"tickets": topic}}}))
    done = refract("backfill", str(config), f"{tmp_path / 'in'}/*/*", "--json")
    assert done.returncode == 0, done.stderr
    context = Context(ConfigTree.read(config))
    with closing(open_store(context.config.store, context.config.pipeline)) as store:
        found = store.scroll(context.tasks["one"].collection, None, 100)
    assert len(found) == 6
    assert {point.payload["team"] for point in found} == {"night shift"}
