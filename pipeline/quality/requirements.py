"""What a script demands of an evaluation: `separation>0`, `accuracy.urgency>=0.6`, `paraphrase_spread<0.05`."""

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import ConfigError, nearest
from pipeline.quality.estimates import Estimate
from pipeline.quality.evaluation import Evaluation, PromptKind

OVERALL = ("separation", "flip_rate", "gain")
"""Figures there is one of."""
OF_TASKS = ("accuracy", "kappa", "macro_f1", "v_measure", "gain", "paraphrase_spread", "recall", "ndcg", "p_mrr")
"""Figures of a task, `NAME.TASK`; without a task the demand is on every task that has the figure."""

_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_FORM = re.compile(r"\s*([a-z0-9_]+)(?:\.(\S+?))?\s*(>=|<=|>|<)\s*(\S+)\s*")


@dataclass(frozen=True, slots=True)
class Requirement:
    """A bound that a figure's whole interval must keep."""

    name: str
    task: str | None
    comparison: str
    bound: float

    def __str__(self) -> str:
        return f"{self.name}{f'.{self.task}' if self.task else ''}{self.comparison}{self.bound:g}"


def parse_requirement(text: str) -> Requirement:
    """Returns a requirement.

    Raises:
        ConfigError: The text is not FIGURE, a comparison and a number, or names an unknown figure.
    """
    form = _FORM.fullmatch(text)
    if form is None:
        raise ConfigError(f"--require {text!r}: expected a figure, one of > >= < <=, and a number, as in separation>0")
    name, task, comparison, number = form.groups()
    valid = OF_TASKS if task else tuple(dict.fromkeys((*OVERALL, *OF_TASKS)))
    if name not in valid:
        raise ConfigError(f"--require {text!r}: unknown figure.{nearest(name, valid)} Valid here: {', '.join(valid)}")
    try:
        bound = float(number)
    except ValueError:
        bound = math.nan
    if not math.isfinite(bound):
        raise ConfigError(f"--require {text!r}: expected a number after {comparison}")
    return Requirement(name, task, comparison, bound)


def find_misses(evaluation: Evaluation, requirements: Sequence[Requirement]) -> list[str]:
    """Returns a line for every requirement that is missed; a figure that could not be measured is missed too.

    `>` holds the lower end of the interval against the bound, `<` the upper end.
    """
    return [line for wanted in requirements for line in _misses(evaluation, wanted)]


def _misses(evaluation: Evaluation, wanted: Requirement) -> list[str]:
    found = _figures(evaluation, wanted)
    if not found:
        return [f"{wanted}: was not measured"]
    end = "low" if wanted.comparison.startswith(">") else "high"
    return [
        f"{wanted}: {place} is {estimate.value:.3f}, from {estimate.low:.3f} to {estimate.high:.3f}"
        for place, estimate in found.items()
        if not _COMPARISONS[wanted.comparison](getattr(estimate, end), wanted.bound)
    ]


def _figures(evaluation: Evaluation, wanted: Requirement) -> dict[str, Estimate]:
    if wanted.task is None and wanted.name in OVERALL:
        overall: Estimate | None = getattr(evaluation, wanted.name)
        return {} if overall is None else {wanted.name: overall}
    figures = _task_figures(evaluation, wanted.name)
    if wanted.task is not None:
        if wanted.task not in figures:
            return {}
        figures = {wanted.task: figures[wanted.task]}
    return {f"{wanted.name}.{task}": estimate for task, estimate in figures.items()}


def _task_figures(evaluation: Evaluation, name: str) -> dict[str, Estimate]:
    found: dict[str, Estimate | None] = {}
    for task in evaluation.tasks:
        if name == "gain":
            plain = [control.gain for control in task.controls if control.kind is PromptKind.NO_INSTRUCTION]
            found[task.name] = plain[0] if plain else None
        elif name == "paraphrase_spread":
            spread = None if task.paraphrases is None else task.paraphrases.spread
            found[task.name] = None if spread is None else Estimate(spread, spread, spread)
        else:
            found[task.name] = getattr(task.own, name, None)
    for report in evaluation.retrieval:
        of_retrieval = {"recall": report.found.recall, "ndcg": report.found.ndcg}
        if report.change is not None:
            of_retrieval["p_mrr"] = report.change.p_mrr
        found[report.task] = of_retrieval.get(name) or found.get(report.task)
    return {task: estimate for task, estimate in found.items() if estimate is not None}
