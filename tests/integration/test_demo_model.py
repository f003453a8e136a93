"""What the demo's trained model does on the demo's tickets, none of which it was trained on."""

import json
from itertools import combinations

import numpy as np
import pytest

from pipeline.session import Session
from pipeline.usecases.evaluate import EvaluateReport, EvaluateRequest
from tests.config_trees import ROOT
from tests.demo_tickets import DEMO, held_out_rows, text_of

ADAPTER = DEMO / "adapter"
HELD_OUT = json.loads((ADAPTER / "held_out.json").read_text(encoding="utf-8"))
"""What `python -m tests.benchmarks.quality` found."""

TASKS = ("urgency", "issue", "tone", "wish")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> EvaluateReport:
    file = tmp_path_factory.mktemp("held-out") / "tickets.jsonl"
    file.write_text("\n".join(map(json.dumps, held_out_rows())), encoding="utf-8")
    with Session.open(ROOT / "configs" / "demo.yaml") as refract:
        return refract.evaluate(EvaluateRequest([str(file)], controls=False))


def test_held_out_tickets_are_told_apart_as_the_folder_says(report: EvaluateReport) -> None:
    separation, flips = report.evaluation.separation, report.evaluation.flip_rate
    assert separation is not None
    assert flips is not None
    assert separation.value == pytest.approx(HELD_OUT["separation"], abs=0.03)
    assert flips.value == pytest.approx(HELD_OUT["flip_rate"], abs=0.03)
    for task in report.evaluation.tasks:
        assert task.own.accuracy.value == pytest.approx(HELD_OUT["tasks"][task.name]["own"], abs=0.03)
        assert task.own.accuracy.value >= HELD_OUT["tasks"][task.name]["plain"]


def test_two_tasks_show_other_neighbours() -> None:
    texts = [text_of(row) for row in held_out_rows()]
    with Session.open(ROOT / "configs" / "demo.yaml") as refract:
        vectors = {task: refract.embed(task, texts) for task in TASKS}
    nearest = {}
    for task, rows in vectors.items():
        similar = rows @ rows.T
        np.fill_diagonal(similar, -1)
        nearest[task] = np.argsort(-similar, axis=1)[:, :5]
    shared = [
        len(set(first) & set(second))
        for one, other in combinations(TASKS, 2)
        for first, second in zip(nearest[one].tolist(), nearest[other].tolist(), strict=True)
    ]
    assert np.mean(shared) <= 2.5
