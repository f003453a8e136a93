"""What a fold says before and after training, by the measures of `refract evaluate`."""

from collections.abc import Mapping
from typing import Any

from pipeline.quality.evaluation import EvaluatedRows, Evaluation, PromptKind
from pipeline.quality.evaluator import Evaluator, Settings
from pipeline.quality.labels import Label
from pipeline.records.batches import Float32, Int64


def measure(
    labels: Mapping[str, Label], rows: Int64, vectors: Mapping[str, Float32], plain: Float32 | None, *, seed: int
) -> Evaluation:
    """Returns the evaluation of some texts.

    Args:
        labels: Of each task, over all texts.
        rows: The texts measured, (n,).
        vectors: Of each task, of these texts, (n, d).
        plain: Without an instruction, (n, d); None where the model has no such form.
        seed: Of samples and intervals.
    """
    of_fold = {task: Label(label.name, label.classes, label.codes[rows]) for task, label in labels.items()}
    evaluator = Evaluator(list(of_fold.values()), len(rows), Settings(seed=seed, num_worst=0))
    for task, label in of_fold.items():
        evaluator.add_task(task, label.name, vectors[task])
    if plain is not None:
        evaluator.add_control("no instruction", PromptKind.NO_INSTRUCTION, plain, list(of_fold))
    return evaluator.finish(EvaluatedRows(len(rows), len(rows), is_whole=True, seed=seed), [""] * len(rows))


def figures(evaluation: Evaluation) -> dict[str, Any]:
    """Returns the parts of an evaluation that a card shows, as plain numbers."""
    found: dict[str, Any] = {
        "accuracy": {
            row.name: {score.label: round(score.accuracy.value, 4) for score in row.scores} for row in evaluation.matrix
        },
        "kappa": {
            row.name: {score.label: round(score.kappa.value, 4) for score in row.scores} for row in evaluation.matrix
        },
    }
    for name in ("separation", "flip_rate"):
        estimate = getattr(evaluation, name)
        found[name] = None if estimate is None else estimate.rounded()
    return found
