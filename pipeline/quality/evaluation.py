"""What an evaluation found: figures, counts and names. Holds no text of a record."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from pipeline.quality.estimates import Estimate
from pipeline.quality.retrieval import RankChange, Retrieval
from pipeline.quality.scores import Score


class PromptKind(StrEnum):
    """What stood in front of the texts."""

    TASK = "task"
    """A task's own instruction."""
    NO_INSTRUCTION = "no_instruction"
    """The model's plain form."""
    NONSENSE = "nonsense"
    """An instruction that means nothing: what any prefix does to the vectors."""
    GENERIC = "generic"
    """An instruction that names no aspect."""
    ANOTHER_TASK = "another_task"
    """Another task's instruction."""


@dataclass(frozen=True, slots=True)
class EvaluatedRows:
    """What became of the rows."""

    num_read: int
    num_texts: int
    """Distinct texts that were judged."""
    is_whole: bool
    """Whether these are all distinct texts; else they are a sample."""
    seed: int
    num_refused: int = 0
    """Rows that make no record: no key, no text, and the like; blank texts are among them."""
    num_absent: int = 0
    """Points that are not in the collection of every task."""
    num_empty: int = 0
    """Rows with a blank text."""
    num_equal: int = 0
    """Rows left out because another row has the same text."""


@dataclass(frozen=True, slots=True)
class LabelReport:
    """What a label is like."""

    name: str
    num_texts: int
    """Texts that have a value."""
    num_unlabelled: int
    num_contradicted: int
    """Texts that other rows give another value."""
    classes: tuple[tuple[str, int], ...]
    """Values and their texts, most frequent first."""
    thin: tuple[tuple[str, int], ...]
    """Values of so few texts that their figures mean little."""


@dataclass(frozen=True, slots=True)
class MatrixRow:
    """One set of vectors, held against every label."""

    name: str
    """The task's, or a name of the control."""
    kind: PromptKind
    own_label: str | None
    """Of a task: the label it is meant for."""
    scores: tuple[Score, ...]
    """By label, in the order of `Evaluation.labels`."""


@dataclass(frozen=True, slots=True)
class ControlScores:
    """A task's own label under something other than its instruction."""

    name: str
    kind: PromptKind
    accuracy: Estimate
    gain: Estimate
    """Accuracy under the task's own instruction, less this one, on the same texts."""


@dataclass(frozen=True, slots=True)
class Wording:
    """One way to put a task's instruction."""

    text: str
    accuracy: Estimate


@dataclass(frozen=True, slots=True)
class Paraphrases:
    """What the choice of words does to a task's accuracy; the configured instruction is the first wording."""

    wordings: tuple[Wording, ...]
    least: float
    mean: float
    most: float

    @property
    def spread(self) -> float:
        """Accuracy of the best wording, less that of the worst."""
        return self.most - self.least


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often each class was taken for each."""

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    """[true][predicted]"""


@dataclass(frozen=True, slots=True)
class TaskEvaluation:
    """One task and the label it is meant for."""

    name: str
    own: Score
    confusion: Confusion
    controls: tuple[ControlScores, ...]
    words: Score | None
    """TF-IDF and logistic regression, cross-validated; None where that was not asked or no word occurs twice."""
    paraphrases: Paraphrases | None


@dataclass(frozen=True, slots=True)
class Separation:
    """One instruction between its own label and another's, on texts where neither label tells the other."""

    own: str
    """The task whose instruction it is."""
    other: str
    own_kappa: Estimate
    other_kappa: Estimate
    difference: Estimate


@dataclass(frozen=True, slots=True)
class Flip:
    """Crossed triplets of two tasks."""

    num_anchors: int
    num_triplets: int
    rate: Estimate
    """Share of triplets that both instructions order as their labels ask. 0: ignores instructions. 0.25: random."""
    first: Estimate
    """Share that the first task's instruction orders so."""
    second: Estimate


@dataclass(frozen=True, slots=True)
class PairReport:
    """Two tasks held against each other."""

    first: str
    second: str
    num_texts: int
    """Texts of the balanced sample."""
    per_cell: int
    """Of each combination of values in it."""
    cramers_v: float
    """Of the labels over all texts: 0 for independent ones, 1 where one tells the other."""
    sample_cramers_v: float
    thin: tuple[tuple[str, str, int], ...]
    """Combinations of values left out, and their texts."""
    num_absent: int
    """Combinations that no text has."""
    reason: str | None
    """Why nothing could be measured."""
    separations: tuple[Separation, ...]
    """Of the first task and of the second; none where there is a reason."""
    flip: Flip | None


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A text near another one."""

    row: int
    """Place of the text among those judged."""
    key: str
    label: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Misjudged:
    """What a task makes of a text that neighbours misjudge."""

    label: str
    """Its class."""
    predicted: str
    neighbours: tuple[Neighbour, ...]
    """Nearest first."""


@dataclass(frozen=True, slots=True)
class WorstText:
    """A text whose neighbours say something else than its labels do."""

    row: int
    key: str
    tasks: Mapping[str, Misjudged]
    """Every task for whose label it has a value, those that get it right too."""


@dataclass(frozen=True, slots=True)
class RetrievalReport:
    """One retrieval task."""

    task: str
    found: Retrieval
    change: RankChange | None
    """Where two instructions share queries."""
    num_unknown: int
    """Keys named as relevant that no record has."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Whether instructions do their job."""

    rows: EvaluatedRows
    k: int
    """Neighbours that vote."""
    replicates: int
    """Resamples behind every interval."""
    labels: tuple[LabelReport, ...]
    matrix: tuple[MatrixRow, ...]
    """Tasks first, then controls."""
    tasks: tuple[TaskEvaluation, ...]
    pairs: tuple[PairReport, ...]
    separation: Estimate | None
    """Mean over all ordered pairs of tasks; None where no pair could be measured."""
    flip_rate: Estimate | None
    """Mean over all pairs of tasks."""
    gain: Estimate | None
    """Mean over tasks of own accuracy less that without an instruction; None without that control."""
    worst: tuple[WorstText, ...]
    retrieval: tuple[RetrievalReport, ...] = ()

    def tree(self) -> dict[str, Any]:
        """Returns the report as plain mappings, lists and numbers, for JSON; undefined figures are None."""
        plain: dict[str, Any] = _plain(asdict(self))
        for task, found in zip(self.tasks, plain["tasks"], strict=True):
            if task.paraphrases is not None:
                found["paraphrases"]["spread"] = task.paraphrases.spread
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, StrEnum) else value
