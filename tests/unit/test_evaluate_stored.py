"""An evaluation of points that are stored already: nothing is embedded."""

from pathlib import Path
from typing import Any

import pytest

from pipeline import Session
from pipeline.errors import ConfigError
from pipeline.usecases import evaluate as module
from pipeline.usecases.backfill import BackfillRequest
from pipeline.usecases.evaluate import EvaluateRequest
from tests.unit.labelled_rows import config, rows, write

LABELS = {"technical_issue": "issue"}


@pytest.fixture
def tickets(tmp_path: Path) -> str:
    return write(tmp_path / "tickets.jsonl", rows())


@pytest.fixture
def filled(tmp_path: Path, tickets: str) -> dict[str, Any]:
    found = config(tmp_path)
    with Session.of(found) as refract:
        assert refract.backfill(tickets, executor="local").ok
    return found


def test_stored_points_give_the_figures_of_their_records_and_nothing_is_embedded(
    tickets: str, filled: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Session.of(filled) as refract:
        fresh = refract.evaluate(EvaluateRequest([tickets], labels=LABELS, controls=False)).evaluation
    monkeypatch.setattr(module, "embed", None)
    with Session.of(filled) as refract:
        found = refract.evaluate(EvaluateRequest(stored=True, labels=LABELS)).evaluation
    assert (found.rows.num_read, found.rows.num_texts) == (60, 60)
    # The sample is drawn by another key, so ties are broken otherwise; both are at chance.
    for task, other in zip(found.tasks, fresh.tasks, strict=True):
        assert task.own.num_texts == other.own.num_texts
        assert task.own.accuracy.value == pytest.approx(other.own.accuracy.value, abs=0.1)
        assert task.words is None


def test_a_label_that_is_not_stored_is_told_with_the_nearest(filled: dict[str, Any]) -> None:
    request = EvaluateRequest(stored=True, labels={"technical_issue": "isue"})
    with Session.of(filled) as refract, pytest.raises(ConfigError, match=r"no stored point has it.*'issue'"):
        refract.evaluate(request)


def test_a_collection_that_does_not_exist_is_told(tmp_path: Path) -> None:
    with Session.of(config(tmp_path)) as refract, pytest.raises(ConfigError, match="has no collection yet"):
        refract.evaluate(EvaluateRequest(stored=True, labels=LABELS))


def test_equal_texts_and_deleted_points_do_not_count(tmp_path: Path, filled: dict[str, Any]) -> None:
    content = rows()
    newer = {"updated_at": 1_750_000_000_000}
    changed = [
        content[1] | {"id": "copy"},
        content[1] | {"id": "copy too"},
        content[2] | {"status": "deleted"} | newer,
    ]
    with Session.of(filled) as refract:
        assert refract.backfill(write(tmp_path / "more.jsonl", changed), executor="local").ok
        found = refract.evaluate(EvaluateRequest(stored=True, labels=LABELS)).evaluation
    assert (found.rows.num_texts, found.rows.num_equal) == (59, 2)


def test_points_that_one_collection_lacks_are_counted(tmp_path: Path, filled: dict[str, Any]) -> None:
    extra = write(
        tmp_path / "more.jsonl", [row | {"id": f"U-{row['id']}", "title": f"more {row['id']}"} for row in rows(6)]
    )
    with Session.of(filled) as refract:
        assert refract.backfill(BackfillRequest([extra], tasks=["urgency"]), executor="local").ok
        found = refract.evaluate(EvaluateRequest(stored=True, labels=LABELS)).evaluation
    assert (found.rows.num_texts, found.rows.num_absent) == (60, 6)
