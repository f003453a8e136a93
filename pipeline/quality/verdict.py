"""An evaluation in plain words: what it says of the instructions, and what to know of its figures."""

from dataclasses import dataclass
from enum import StrEnum

from pipeline.quality.estimates import Estimate
from pipeline.quality.evaluation import Evaluation, LabelReport, PairReport, PromptKind, TaskEvaluation
from pipeline.quality.labels import THIN_ROWS

RANDOM_FLIPS = 0.25
"""Flip rate of vectors that have nothing to do with the labels."""

CORRELATED = 0.3
"""Cramér's V from which two labels are said to go together."""

_NAMED = 6
"""Values of a list that are named before the rest is counted."""


class Answer(StrEnum):
    """Whether the instructions do their job."""

    YES = "yes"
    PARTLY = "partly"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer, a headline and its reason."""

    answer: Answer
    headline: str
    reason: str


def judge(evaluation: Evaluation) -> Verdict:
    """Returns what the figures say.

    Yes takes a separation that is surely above 0, a flip rate surely above that of random vectors, and no label
    that is surely told worse than without an instruction. No is a separation that may be 0, or a flip rate surely
    below that of random vectors: the instructions leave most neighbours as they are. With a single label, it is the
    gain over no instruction.
    """
    if evaluation.separation is not None:
        return _judge_tasks(evaluation, evaluation.separation)
    if evaluation.gain is not None:
        return _judge_gain(evaluation.gain)
    return Verdict(Answer.UNKNOWN, "There is nothing to compare the instructions with.", _why_no_pair(evaluation))


def notes(evaluation: Evaluation) -> list[str]:
    """Returns a line for everything that limits what the figures mean."""
    return [
        *_row_notes(evaluation),
        *(line for label in evaluation.labels for line in _label_notes(label)),
        *(line for pair in evaluation.pairs for line in _pair_notes(pair)),
        *(line for task in evaluation.tasks for line in _task_notes(task)),
        *(
            f"task {found.task!r}: {found.num_unknown:,} keys named as relevant belong to no record"
            for found in evaluation.retrieval
            if found.num_unknown
        ),
    ]


def interval(estimate: Estimate) -> str:
    """Returns a figure and its interval, such as "0.41 (0.36 to 0.46)"."""
    return f"{two_places(estimate.value)} ({two_places(estimate.low)} to {two_places(estimate.high)})"


def two_places(value: float) -> str:
    """Returns a figure with two decimal places, and never a zero with a sign."""
    return f"{round(value, 2) + 0:.2f}"


def _judge_tasks(evaluation: Evaluation, separation: Estimate) -> Verdict:
    flips = evaluation.flip_rate
    worse = [task.name for task in evaluation.tasks if (gain := _plain_gain(task)) is not None and gain.high < 0]
    figures = f"separation {interval(separation)}" + (f", flip rate {interval(flips)}" if flips else "")
    if not separation.low > 0 or (flips is not None and flips.high < RANDOM_FLIPS):
        return Verdict(
            Answer.NO,
            "The instructions do not do their job.",
            f"Mostly the same texts lie close together, whichever instruction is given: {figures}.",
        )
    if worse:
        return Verdict(
            Answer.PARTLY,
            "The instructions do only part of their job.",
            f"They tell the labels apart ({figures}), but the model does better without an instruction for "
            f"{', '.join(worse)}.",
        )
    if flips is not None and not flips.low > RANDOM_FLIPS:
        return Verdict(
            Answer.PARTLY,
            "The instructions do only part of their job.",
            f"Each favours its own label a little, but the same texts mostly stay close together: {figures}.",
        )
    return Verdict(
        Answer.YES, "The instructions do their job.", f"Each one brings texts with its own label together: {figures}."
    )


def _judge_gain(gain: Estimate) -> Verdict:
    figures = f"accuracy changes by {gain.value:+.2f} ({gain.low:+.2f} to {gain.high:+.2f})"
    if gain.low > 0:
        return Verdict(Answer.YES, "The instruction helps.", f"Compared with no instruction, {figures}.")
    return Verdict(Answer.NO, "The instruction does not help.", f"Compared with no instruction, {figures}.")


def _why_no_pair(evaluation: Evaluation) -> str:
    reasons = [pair.reason for pair in evaluation.pairs if pair.reason]
    if reasons:
        return f"No two labels could be held against each other: {reasons[0]}."
    return "There is one label only." if evaluation.labels else "There is no label."


def _plain_gain(task: TaskEvaluation) -> Estimate | None:
    return next((control.gain for control in task.controls if control.kind is PromptKind.NO_INSTRUCTION), None)


def _row_notes(evaluation: Evaluation) -> list[str]:
    rows = evaluation.rows
    lines = []
    if not rows.is_whole:
        lines.append(
            f"a sample of {rows.num_texts:,} distinct texts out of {rows.num_read:,} rows (seed {rows.seed}); every "
            "figure is of this sample"
        )
    if rows.num_equal:
        lines.append(f"{rows.num_equal:,} rows have the text of another row and were left out")
    if rows.num_absent:
        lines.append(f"{rows.num_absent:,} points are not in the collection of every task and were left out")
    if rows.num_refused:
        blank = f", {rows.num_empty:,} for a blank text" if rows.num_empty else ""
        lines.append(f"{rows.num_refused:,} rows make no record and were left out{blank}")
    return lines


def _label_notes(label: LabelReport) -> list[str]:
    lines = []
    if label.num_unlabelled:
        lines.append(f"label {label.name!r}: {label.num_unlabelled:,} texts have no value and were left out of it")
    if label.num_contradicted:
        lines.append(
            f"label {label.name!r}: {label.num_contradicted:,} texts occur again with another value; the first counts"
        )
    if label.thin:
        named = _named([f"{value} ({count})" for value, count in label.thin])
        lines.append(
            f"label {label.name!r}: {len(label.thin):,} of {len(label.classes):,} values have fewer than {THIN_ROWS} "
            f"texts, so their figures mean little: {named}"
        )
    return lines


def _pair_notes(pair: PairReport) -> list[str]:
    place = f"{pair.first} and {pair.second}"
    if pair.reason is not None:
        return [f"{place}: not compared; {pair.reason}"]
    lines = []
    if pair.cramers_v >= CORRELATED:
        lines.append(
            f"{place}: the labels go together (Cramér's V {pair.cramers_v:.2f}), so the raw matrix flatters each "
            "under the other's instruction; separation does not"
        )
    if pair.thin:
        named = _named([f"{first} with {second} ({count})" for first, second, count in pair.thin])
        lines.append(f"{place}: {len(pair.thin):,} rare combinations of values were left out: {named}")
    return lines


def _task_notes(task: TaskEvaluation) -> list[str]:
    words = task.words
    if words is None or words.accuracy.value <= task.own.accuracy.value:
        return []
    own = task.own.accuracy.value
    line = f"{task.name}: words alone tell {task.own.label!r} better ({words.accuracy.value:.2f}) than "
    return [f"{line}neighbours under its instruction ({own:.2f})"]


def _named(values: list[str]) -> str:
    rest = len(values) - _NAMED
    return ", ".join(values[:_NAMED]) + (f" and {rest:,} more" if rest > 0 else "")
