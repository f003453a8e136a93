"""The library as a user meets it: one object over a configuration, for real on an embedded store and the null model."""

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import Session
from pipeline.errors import ConfigError
from pipeline.searcher import QueryError
from tests.config_trees import ROOT, tree

TICKETS = [("T-1", "no heating", "2026-01-01T00:00:00Z"), ("T-2", "no light", "2026-01-02T00:00:00Z")]


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    text = {"text": "{body}", "payload": ["body"], "delete_when": None}
    found = tree(store__path=str(tmp_path / "store"))
    found["source"]["topics"]["tickets"] |= text
    return found


@pytest.fixture
def tickets(tmp_path: Path) -> Path:
    path = tmp_path / "tickets.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("id", "body", "updated_at"), *TICKETS])
    return path


def test_history_is_embedded_searched_and_verified_from_python(config: dict[str, Any], tickets: Path) -> None:
    with Session.of(config) as refract:
        report = refract.backfill(str(tickets), executor="local")
        assert (report.rows, report.written, report.ok) == (2, 4, True)
        assert refract.backfill([str(tickets)], executor="local").fragments_skipped == 1
        hits = refract.search("urgency", "no light", limit=2)
        assert [hit.key for hit in hits] == ["T-2", "T-1"]
        assert hits[0].payload == {"body": "no light"}
        assert hits[0].score == pytest.approx(1.0)
        assert [hit.key for hit in refract.search("urgency", key="T-2")] == ["T-1"]
        assert [hit.key for hit in refract.search("urgency", "no light", body="no heating")] == ["T-1"]


def test_rows_come_in_the_order_of_the_texts_and_are_those_of_the_task(config: dict[str, Any]) -> None:
    config["limits"] = {"max_batch_records": 2}
    texts = ["one", "two", "three"]
    with Session.of(config) as refract:
        rows = refract.embed("urgency", texts)
        assert rows.shape == (3, 384)
        assert rows.dtype == np.float32
        assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
        assert np.array_equal(refract.embed("urgency", texts[::-1]), rows[::-1])
        assert not np.allclose(refract.embed("technical_issue", texts), rows)
        assert refract.embed("urgency", []).shape == (0, 384)


def test_what_the_caller_got_wrong_is_told_with_the_nearest_valid_choice(config: dict[str, Any]) -> None:
    with Session.of(config) as refract:
        with pytest.raises(ConfigError, match=r"no task 'urgncy'.*Did you mean 'urgency'"):
            refract.embed("urgncy", ["x"])
        for texts, message in (
            ("one text", "expected a list of texts"),
            (["a", "\ud800"], "number 1 is not a text"),
            ([None], "number 0 is not a text"),
        ):
            with pytest.raises(ConfigError, match=message):
                refract.embed("urgency", texts)  # type: ignore[arg-type]  # what is refused
        for limit in (0, -1, 10**30):
            with pytest.raises(ConfigError, match="limit: expected a whole number from 1"):
                refract.search("urgency", "a", limit=limit)
        with pytest.raises(ConfigError, match="either a text or the key"):
            refract.search("urgency")
        with pytest.raises(ConfigError, match="either a text or the key"):
            refract.search("urgency", "x", key="T-1")
        with pytest.raises(QueryError, match="no payload field 'bdy'"):
            refract.search("urgency", "x", bdy="x")


def test_a_session_that_was_closed_opens_what_it_needs_again(config: dict[str, Any], tickets: Path) -> None:
    refract = Session.of(config)
    refract.backfill(str(tickets), executor="local")
    refract.search("urgency", "no light")
    refract.close()
    refract.close()
    assert len(refract.search("urgency", "no light")) == 2
    refract.close()


def test_check_tells_what_is_wrong_and_creates_nothing(config: dict[str, Any], tmp_path: Path) -> None:
    with Session.of(config) as refract:
        report = refract.check(offline=True)
    assert report.ok
    assert {task.task for task in report.tasks} == {"urgency", "technical_issue"}
    assert not (tmp_path / "store").exists()


def test_embedding_loads_neither_ray_nor_kafka_nor_a_store() -> None:
    code = (
        "import sys; from pipeline import Session\n"
        "Session.open('configs/null.yaml').embed('urgency', ['x'])\n"
        "print([name for name in ('ray', 'kafka', 'qdrant_client', 'qdrant_edge', 'grpc', 'torch', 'transformers',"
        " 'fastapi', 'pyarrow', 'typer') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)  # noqa: S603
    assert found.stdout == "[]\n"
