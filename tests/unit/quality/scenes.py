"""Whole evaluations of made-up tasks."""

from collections.abc import Mapping
from functools import cache

import numpy as np

from pipeline.quality.evaluation import EvaluatedRows, Evaluation, PromptKind
from pipeline.quality.evaluator import Evaluator, Settings
from pipeline.records.batches import Float32
from tests.unit.quality.made import around, crossed, label, noise, unit

URGENCY, ISSUE = crossed(3, 4, 12)
NUM_TEXTS = len(URGENCY)
LABELS = (label("urgency", URGENCY), label("issue", ISSUE))
KEYS = [f"T-{number}" for number in range(NUM_TEXTS)]
TEXTS = [f"urgency{a} issue{b} text{row}" for row, (a, b) in enumerate(zip(URGENCY, ISSUE, strict=True))]
ROWS = EvaluatedRows(NUM_TEXTS, NUM_TEXTS, is_whole=True, seed=0)
SETTINGS = Settings(replicates=100)
INSTRUCTIONS = {"how_urgent": "How urgent is this ticket", "which_issue": "What is this ticket about"}

BLIND = unit(np.hstack([around(URGENCY, spread=0.3), around(ISSUE, seed=5, spread=0.3)]))
"""Both labels, whatever is asked."""
FOLLOWING = {"how_urgent": around(URGENCY), "which_issue": around(ISSUE, seed=5)}


def evaluator(vectors: Mapping[str, Float32] = FOLLOWING) -> Evaluator:
    """With both tasks."""
    found = Evaluator(LABELS, NUM_TEXTS, SETTINGS)
    found.add_task("how_urgent", "urgency", vectors["how_urgent"])
    found.add_task("which_issue", "issue", vectors["which_issue"])
    return found


@cache
def following() -> Evaluation:
    """Instructions that do their job, with every control."""
    found = evaluator()
    found.add_control("no instruction", PromptKind.NO_INSTRUCTION, noise(NUM_TEXTS, seed=8), list(FOLLOWING))
    found.add_wording("how_urgent", "Say how urgent it is", around(URGENCY, spread=4))
    found.add_texts(TEXTS)
    return found.finish(ROWS, KEYS, instructions=INSTRUCTIONS)


@cache
def blind() -> Evaluation:
    """Instructions that change nothing."""
    return evaluator({"how_urgent": BLIND, "which_issue": BLIND}).finish(ROWS, KEYS)
