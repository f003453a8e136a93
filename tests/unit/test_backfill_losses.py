"""A backfill that ran before is done only while the store holds its points."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.backfill.counts import BackfillReport
from pipeline.backfill.ledger import FILE
from pipeline.binding import Task
from pipeline.interfaces import StoredPoint
from pipeline.records.batches import PointBatch
from pipeline.records.record import point_id
from pipeline.session import Session
from pipeline.usecases.compared_sources import CompareRequest
from tests.broker import free_port
from tests.config_trees import tree

NUM_ROWS = 30


class History:
    """A file of rows, a pipeline of two tasks, and its embedded store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes: list[str] = []
        config = tree(store__path=str(folder / "store"), api__port=free_port())
        topic = {"key": "id", "text": "{body}", "version": "at", "tasks": ["urgency", "technical_issue"]}
        config["source"] |= {"bootstrap_servers": ["127.0.0.1:1"], "topics": {"tickets": topic}}
        self.refract = Session.of(config)
        self.file = folder / "rows.jsonl"
        self.write([{"id": f"k{number}", "at": 5, "body": f"text {number}"} for number in range(NUM_ROWS)])

    def write(self, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> None:
        (self.folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    def backfill(self) -> BackfillReport:
        return self.refract.backfill(str(self.file), executor="local", watch=self)

    @property
    def tasks(self) -> dict[str, Task]:
        return self.refract.tasks

    def edit(self, task: str, *, deleted: bool, version: int = 5, payload: dict[str, str] | None = None) -> None:
        """Writes every key over what is stored at its version."""
        ids = b"".join(self.ids())
        own = self.tasks[task]
        batch = PointBatch(
            np.frombuffer(ids, np.uint8).reshape(-1, 16),
            np.full(NUM_ROWS, version),
            np.full(NUM_ROWS, deleted),
            [payload or {} for _ in range(NUM_ROWS)],
            {own.collection: np.ones((NUM_ROWS, own.dimension), np.float32)},
        )
        with closing(self.refract.context.open_store()) as store:
            store.open([own])
            store.repair(batch)

    def ids(self) -> list[bytes]:
        return [point_id(self.refract.config.pipeline, "tickets", f"s:k{number}") for number in range(NUM_ROWS)]

    def points(self, task: str) -> list[StoredPoint]:
        with closing(self.refract.context.open_store()) as store:
            return [point for point in store.retrieve(self.tasks[task].collection, self.ids()) if not point.deleted]

    # -- BackfillWatch: the notes are kept

    def note(self, text: str) -> None:
        self.notes.append(text)

    def _nothing(self, *_: object) -> None:
        pass

    step = doing = begin = over = show = _nothing


@pytest.fixture
def history(tmp_path: Path) -> History:
    made = History(tmp_path)
    assert made.backfill().written == 2 * NUM_ROWS
    again = made.backfill()
    assert (again.fragments_done, again.fragments_skipped, again.ok) == (0, 1, True)
    return made


def test_a_collection_that_was_dropped_is_filled_again(history: History) -> None:
    shutil.rmtree(history.folder / "store")
    report = history.backfill()
    assert (report.fragments_done, report.fragments_skipped, report.written) == (1, 0, 2 * NUM_ROWS)
    assert len(history.points("urgency")) == NUM_ROWS
    assert any("1 fragments that were read have lost their points" in note for note in history.notes)
    assert history.backfill().fragments_skipped == 1


def test_only_the_task_that_lost_its_points_is_done_again(history: History) -> None:
    lost = history.tasks["urgency"]
    shutil.rmtree(history.folder / "store" / "shards" / lost.collection)
    register = history.folder / "store" / "collections.json"
    known = json.loads(register.read_text())
    del known["collections"][lost.collection]
    register.write_text(json.dumps(known))
    assert history.backfill().written == NUM_ROWS
    assert len(history.points("urgency")) == NUM_ROWS


def test_what_an_older_state_of_the_store_lacks_is_read_again(history: History) -> None:
    shutil.copytree(history.folder / "store", history.folder / "older")
    history.write([{"id": f"later {number}", "at": 5, "body": "later"} for number in range(NUM_ROWS)], "later.jsonl")
    both = [str(history.file), str(history.folder / "later.jsonl")]
    assert history.refract.backfill(both, executor="local").fragments_done == 1
    shutil.rmtree(history.folder / "store")
    (history.folder / "older").rename(history.folder / "store")
    report = history.refract.backfill(both, executor="local")
    assert (report.fragments_done, report.fragments_skipped, report.written) == (1, 1, 2 * NUM_ROWS)


def test_points_that_were_deleted_as_extras_are_not_called_done_and_a_repair_brings_them_back(
    history: History,
) -> None:
    history.edit("urgency", deleted=True)
    report = history.backfill()
    assert (report.ok, report.fragments_done, report.fragments_skipped) == (False, 0, 0)
    [(name, why)] = report.failed.items()
    assert name == f"{history.file}#0"
    assert f"refract repair CONFIG --input {history.file}" in why
    assert history.points("urgency") == []
    assert history.refract.repair(CompareRequest(inputs=str(history.file))).complete
    assert len(history.points("urgency")) == NUM_ROWS
    assert history.backfill().fragments_skipped == 1


@pytest.mark.parametrize("change", [{"version": 6}, {"payload": {"_source": "tickets:0:17"}}])
def test_what_a_record_deleted_is_no_loss(history: History, change: dict[str, Any]) -> None:
    history.edit("urgency", deleted=True, **change)
    report = history.backfill()
    assert (report.ok, report.fragments_skipped) == (True, 1)


def test_a_file_without_a_good_row_has_lost_nothing(history: History) -> None:
    history.write([{"id": "k1", "at": 5}])
    assert history.backfill().rejected == 1
    assert history.backfill().fragments_skipped == 1


def _earlier_ledger(history: History) -> None:
    """Takes the columns away that earlier versions did not have."""
    with closing(sqlite3.connect(history.folder / "store.backfill" / FILE)) as db:
        for name in ("topic", "witness", "witness_version"):
            db.execute(f"ALTER TABLE progress DROP COLUMN {name}")
        db.commit()


@pytest.mark.parametrize(
    ("lose", "done"), [(lambda _: None, 0), (lambda folder: shutil.rmtree(folder / "store"), 1)], ids=["held", "lost"]
)
def test_a_ledger_of_an_earlier_version_is_read_on(history: History, lose: Callable[[Path], object], done: int) -> None:
    """It names no point; what shows is an empty collection."""
    _earlier_ledger(history)
    assert [task.fragments_done for task in _status(history)] == [1, 1]
    lose(history.folder)
    assert history.backfill().fragments_done == done


def _status(history: History) -> Any:
    from pipeline.usecases.backfill import BackfillRequest, backfill_status  # noqa: PLC0415 - one helper needs it

    return backfill_status(history.refract.context, BackfillRequest([])).tasks
