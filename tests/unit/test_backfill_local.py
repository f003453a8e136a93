"""A backfill in this process, for real: null model, embedded store, ledger; and its rehearsal."""

import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from pipeline.backfill import local as local_module
from pipeline.backfill.executor import RunState
from pipeline.backfill.in_process import LocalExecutor
from pipeline.backfill.inputs import list_inputs
from pipeline.backfill.rehearsal import rehearse
from pipeline.backfill.watch import Unwatched
from pipeline.backfill.work import BackfillJob, Work
from pipeline.config.load import ConfigTree
from pipeline.context import Context
from pipeline.engine.local import LocalEmbedder
from pipeline.errors import ConfigError, EnvironmentFault, TransientError
from pipeline.interfaces import StoredPoint
from pipeline.records.batches import Embeddings, Priority, TokenBatch
from pipeline.usecases.backfill import BackfillRequest, backfill, backfill_status
from pipeline.usecases.estimate import EstimateRequest, estimate_backfill
from tests.unit.test_backfill import _config

GROUP_ROWS = 100


class Watch(Unwatched):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.works: list[Work] = []
        self.over_: list[str] = []
        self.states: list[RunState] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def begin(self, works: Sequence[Work]) -> None:
        self.works = list(works)

    def over(self, work: Work) -> None:
        self.over_.append(work.name)

    def show(self, state: RunState) -> None:
        self.states.append(state)


def context_of(folder: Path, **topic: Any) -> Context:
    return Context(ConfigTree.read(_config(folder, {"max_batch_records": 16}, **topic)))


def write(path: Path, count: int, first: int = 0, title: str = "ticket") -> str:
    rows = [{"id": f"T-{n}", "title": f"{title} {n}", "v": n} for n in range(first, first + count)]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=GROUP_ROWS)
    return str(path)


def stored(context: Context) -> list[StoredPoint]:
    with closing(context.open_store()) as store:
        return store.scroll(context.tasks["one"].collection, None, 10_000, with_vectors=True)


def test_rows_are_embedded_stored_and_noted_and_not_carried_again(tmp_path: Path) -> None:
    context, watch = context_of(tmp_path), Watch()
    request = BackfillRequest([write(tmp_path / "a.parquet", 250)])
    report = backfill(context, request, LocalExecutor(context), watch)
    assert report.ok
    assert (report.rows, report.written, report.embedded, report.stale) == (250, 250, 250, 0)
    assert (report.fragments_done, report.fragments_skipped) == (3, 0)
    assert [work.name for work in watch.works] == sorted(watch.over_)
    assert watch.states[-1].counts.finished == 250
    assert watch.states[-1].num_embedders == 1
    points = stored(context)
    assert {point.payload["_key"] for point in points} == {f"s:T-{n}" for n in range(250)}
    assert all(point.vector is not None and np.isfinite(point.vector).all() for point in points)
    again = backfill(context, request, LocalExecutor(context), watch)
    assert (again.fragments_done, again.fragments_skipped, again.rows) == (0, 3, 0)
    assert watch.notes[-1].startswith("0 of 3 fragments to do")
    (status,) = backfill_status(context, BackfillRequest([])).tasks
    assert (status.task, status.fragments_done, status.rows) == ("one", 3, 250)


def test_a_run_that_ends_amid_a_fragment_goes_on_at_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_module, "CHECKPOINT_S", 0.0)
    monkeypatch.setattr(local_module, "TURN_S", 0.01)
    context = context_of(tmp_path)
    request = BackfillRequest([write(tmp_path / "a.parquet", GROUP_ROWS)])
    embed = LocalEmbedder.embed
    seen: list[int] = []

    def breaks(self: LocalEmbedder, model: str, batch: TokenBatch, priority: Priority) -> Embeddings:
        time.sleep(0.05)  # so that a checkpoint falls between two batches
        seen.append(batch.num_texts)
        if sum(seen) > GROUP_ROWS / 2:
            raise EnvironmentFault("the model is gone")
        return embed(self, model, batch, priority)

    monkeypatch.setattr(LocalEmbedder, "embed", breaks)
    with pytest.raises(EnvironmentFault, match="the model is gone"):
        backfill(context, request, LocalExecutor(context))
    (status,) = backfill_status(context, request).tasks
    assert (status.fragments_done, status.fragments_begun) == (0, 1)
    assert 0 < status.rows < GROUP_ROWS
    monkeypatch.setattr(LocalEmbedder, "embed", embed)
    watch = Watch()
    report = backfill(context, request, LocalExecutor(context), watch)
    assert [work.start for work in watch.works] == [status.rows]
    assert report.rows == GROUP_ROWS - status.rows
    assert len(stored(context)) == GROUP_ROWS


def test_one_batch_at_a_time_is_embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, inside, most = context_of(tmp_path), threading.Semaphore(1), []
    embed = LocalEmbedder.embed

    def alone(self: LocalEmbedder, model: str, batch: TokenBatch, priority: Priority) -> Embeddings:
        most.append(inside.acquire(blocking=False))
        time.sleep(0.005)
        try:
            return embed(self, model, batch, priority)
        finally:
            inside.release()

    monkeypatch.setattr(LocalEmbedder, "embed", alone)
    backfill(context, BackfillRequest([write(tmp_path / "a.parquet", 300)]), LocalExecutor(context))
    assert len(most) > 5
    assert all(most)


def test_a_fragment_that_cannot_be_read_is_reported_and_the_others_are_done(tmp_path: Path) -> None:
    context, watch = context_of(tmp_path), Watch()
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    inputs = [write(tmp_path / "a.parquet", 10), str(tmp_path / "broken.parquet")]
    report = backfill(context, BackfillRequest(inputs), LocalExecutor(context), watch)
    assert not report.ok
    assert list(report.failed) == [f"{inputs[1]}#0"]
    assert any("cannot be read" in note for note in watch.notes)
    assert (report.fragments_done, report.fragments_failed, len(stored(context))) == (1, 1, 10)


def test_a_changed_file_is_read_again_and_that_is_said(tmp_path: Path) -> None:
    context, watch = context_of(tmp_path), Watch()
    for count in (10, 20):
        request = BackfillRequest([write(tmp_path / "a.parquet", count)])
        report = backfill(context, request, LocalExecutor(context), watch)
    assert (report.rows, report.written) == (20, 20)
    assert "1 fragments changed since they were read; they are read again." in watch.notes


def test_rows_that_lose_are_stale_in_the_store_and_within_a_batch(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    rows = [{"id": f"T-{n % 5}", "title": f"ticket {n}", "v": n} for n in range(10)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    report = backfill(context, BackfillRequest([str(tmp_path / "a.parquet")]), LocalExecutor(context))
    assert (report.rows, report.written, report.stale) == (10, 5, 5)
    old = [{"id": f"T-{n}", "title": "older", "v": 0} for n in range(1, 4)]
    pq.write_table(pa.Table.from_pylist(old), tmp_path / "b.parquet")
    report = backfill(context, BackfillRequest([str(tmp_path / "b.parquet")]), LocalExecutor(context))
    assert (report.rows, report.written, report.stale) == (3, 0, 3)


def test_vectors_go_to_files_and_no_store_is_created(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    request = BackfillRequest([write(tmp_path / "a.parquet", 150)], output=tmp_path / "out")
    report = backfill(context, request, LocalExecutor(context))
    assert (report.ok, report.written) == (True, 150)
    assert ds.dataset(tmp_path / "out").count_rows() == 150
    assert not (tmp_path / "store").exists()
    assert backfill(context, request, LocalExecutor(context)).fragments_skipped == 2


def test_there_is_no_app_to_share_with(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    request = BackfillRequest([write(tmp_path / "a.parquet", 10)], share=True)
    with pytest.raises(ConfigError, match="no running app"):
        backfill(context, request, LocalExecutor(context))
    assert list(tmp_path.glob("store*")) == []


def test_a_store_that_is_away_at_a_checkpoint_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_module, "CHECKPOINT_S", 0.0)
    context = context_of(tmp_path)
    asked: list[object] = []

    def away(self: object) -> dict[str, Any]:
        asked.append(self)
        raise TransientError("no server there")

    monkeypatch.setattr("pipeline.backfill.carrier.Carrier.checkpoints", away)
    report = backfill(context, BackfillRequest([write(tmp_path / "a.parquet", 250)]), LocalExecutor(context))
    assert asked
    assert (report.ok, report.written) == (True, 250)


def test_a_rehearsal_measures_the_path_and_leaves_nothing_behind(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    path = write(tmp_path / "a.parquet", 250)
    before = set(tmp_path.iterdir())
    report = estimate_backfill(context, EstimateRequest([path]), LocalExecutor(context), Watch())
    assert report.tree()["input"]["rows"] == 250
    assert report.pace.num_rows == 250
    assert report.costs.seconds > 0
    assert report.server_s is None
    assert set(tmp_path.iterdir()) == before


def test_a_rehearsal_without_a_row_tells_what_was_wrong(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    job = BackfillJob(context.source, "tickets", ["one"])
    with pytest.raises(EnvironmentFault, match=r"broken\.parquet.*cannot be read"):
        rehearse(
            LocalExecutor(context), job, list_inputs([str(tmp_path / "broken.parquet")]).fragments, 1, lambda *_: None
        )
