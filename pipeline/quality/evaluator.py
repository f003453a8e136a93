"""Builds an evaluation from vectors, one set at a time, so that only the tasks' own are held together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from pipeline.quality.clustering import find_clusters
from pipeline.quality.estimates import Estimate, Float64, Resampler
from pipeline.quality.evaluation import (
    Confusion,
    ControlScores,
    EvaluatedRows,
    Evaluation,
    LabelReport,
    MatrixRow,
    Paraphrases,
    PromptKind,
    RetrievalReport,
    TaskEvaluation,
    Wording,
)
from pipeline.quality.keywords import Words
from pipeline.quality.labels import Label
from pipeline.quality.neighbours import Neighbours, find_neighbours
from pipeline.quality.pairs import Side, measure_pair
from pipeline.quality.scores import Outcomes, VoteTally, confusion, predict, score, v_measure_replicates
from pipeline.quality.worst import Judged, find_worst
from pipeline.records.batches import Float32, Int64


@dataclass(frozen=True, slots=True)
class Settings:
    """What an evaluation can be told."""

    k: int = 5
    """Neighbours that vote."""
    replicates: int = 1_000
    """Resamples behind an interval."""
    seed: int = 0
    """Equal seeds give equal reports on one machine."""
    num_worst: int = 20
    """Texts shown whose neighbours disagree most with their labels."""


@dataclass(slots=True)
class _Task:
    """A task's own vectors, and what was found with them."""

    name: str
    label: Label
    vectors: Float32
    row: MatrixRow
    judged: Judged
    accuracy: dict[str, Float64]
    """Of each label, by replicate."""
    controls: list[ControlScores] = field(default_factory=list)
    plain: Float64 | None = None
    """Own accuracy without an instruction, by replicate."""
    wordings: list[Wording] = field(default_factory=list)

    @property
    def own(self) -> Float64:
        """Accuracy of its own label, by replicate."""
        return self.accuracy[self.label.name]


class Evaluator:
    """Takes the vectors of the same texts under one instruction after another. Use from one thread.

    Tasks are added first, then their controls and wordings, each of which may be dropped by the caller at once.
    Every method that takes vectors wants (num_texts, d) finite unit vectors in float32, and raises ValueError
    for anything else.
    """

    def __init__(self, labels: Sequence[Label], num_texts: int, settings: Settings) -> None:
        """Takes labels of the same texts; without any, only retrieval can be reported."""
        self._labels = {label.name: label for label in labels}
        self._settings = settings
        self._num_texts = num_texts
        self._resampler = Resampler(self._num_texts, replicates=settings.replicates, seed=settings.seed)
        self._tasks: dict[str, _Task] = {}
        self._controls: list[MatrixRow] = []
        self._words: dict[str, VoteTally | None] = {}
        self._retrieval: list[RetrievalReport] = []

    def add_task(self, name: str, label: str, vectors: Float32) -> None:
        """Takes the texts' vectors under a task's instruction, and the label that the task is meant for."""
        space = _Space(self._checked(vectors), self._settings.k)
        own, scores, tallies = self._labels[label], [], {}
        for known in self._labels.values():
            outcomes = space.outcomes(known)
            tally = tallies[known.name] = VoteTally.of(outcomes, self._resampler)
            clusters = space.clusters(outcomes, self._settings.seed)
            scores.append(score(known.name, tally, v_measure_replicates(outcomes, clusters, self._resampler)))
        self._tasks[name] = _Task(
            name,
            own,
            vectors,
            row=MatrixRow(name, PromptKind.TASK, label, tuple(scores)),
            judged=Judged(own, own.rows, space.neighbours(own)),
            accuracy={known: tally.accuracy for known, tally in tallies.items()},
        )

    def add_control(self, name: str, kind: PromptKind, vectors: Float32, tasks: Sequence[str]) -> None:
        """Takes the texts' vectors under a control, and the tasks that it is one for."""
        space = _Space(self._checked(vectors), self._settings.k)
        tallies = {known: VoteTally.of(space.outcomes(label), self._resampler) for known, label in self._labels.items()}
        scores = tuple(score(known, tally, None) for known, tally in tallies.items())
        self._controls.append(MatrixRow(name, kind, None, scores))
        for task in (self._tasks[known] for known in tasks):
            accuracy = tallies[task.label.name].accuracy
            task.controls.append(_compare(name, kind, task.own, accuracy))
            if kind is PromptKind.NO_INSTRUCTION:
                task.plain = accuracy

    def add_wording(self, task: str, wording: str, vectors: Float32) -> None:
        """Takes the texts' vectors under another wording of a task's instruction."""
        known = self._tasks[task]
        outcomes = _Space(self._checked(vectors), self._settings.k).outcomes(known.label)
        known.wordings.append(Wording(wording, Estimate.of(VoteTally.of(outcomes, self._resampler).accuracy)))

    def add_texts(self, texts: Sequence[str]) -> None:
        """Takes the texts themselves, to see what words alone tell of each label."""
        words = Words(texts, seed=self._settings.seed)
        for name, label in self._labels.items():
            outcomes = words.predict(label)
            self._words[name] = None if outcomes is None else VoteTally.of(outcomes, self._resampler)

    def add_retrieval(self, report: RetrievalReport) -> None:
        """Takes what was measured of a retrieval task."""
        self._retrieval.append(report)

    def finish(
        self,
        rows: EvaluatedRows,
        keys: Sequence[str],
        *,
        instructions: Mapping[str, str] | None = None,
        contradicted: Mapping[str, int] | None = None,
    ) -> Evaluation:
        """Returns the report.

        Args:
            rows: Where the texts come from.
            keys: Of each text.
            instructions: Of each task, as the first of its wordings.
            contradicted: Texts of each label that other rows give another value.
        """
        sides = [Side(task.name, task.label, task.vectors) for task in self._tasks.values()]
        pairs = [
            measure_pair(first, second, self._resampler, k=self._settings.k, seed=self._settings.seed)
            for first, second in combinations(sides, 2)
        ]
        gains = [task.own - task.plain for task in self._tasks.values() if task.plain is not None]
        judged = {task.name: task.judged for task in self._tasks.values()}
        return Evaluation(
            rows=rows,
            k=self._settings.k,
            replicates=self._settings.replicates,
            labels=tuple(self._label_report(label, contradicted or {}) for label in self._labels.values()),
            matrix=(*(task.row for task in self._tasks.values()), *self._controls),
            tasks=tuple(self._task_report(task, instructions or {}) for task in self._tasks.values()),
            pairs=tuple(pair.report for pair in pairs),
            separation=_mean([difference for pair in pairs for difference in pair.differences]),
            flip_rate=_mean([pair.flip_rate for pair in pairs if pair.flip_rate is not None]),
            gain=_mean(gains),
            worst=find_worst(judged, keys, self._settings.num_worst),
            retrieval=tuple(self._retrieval),
        )

    def _checked(self, vectors: Float32) -> Float32:
        if vectors.ndim != 2 or len(vectors) != self._num_texts or vectors.dtype != np.float32:  # noqa: PLR2004 - rows and columns
            raise ValueError(f"vectors {vectors.dtype} {vectors.shape}, expected float32 ({self._num_texts}, d)")
        if not np.isfinite(vectors).all():
            raise ValueError("vectors are not finite")
        return vectors

    def _label_report(self, label: Label, contradicted: Mapping[str, int]) -> LabelReport:
        return LabelReport(
            label.name,
            num_texts=len(label.rows),
            num_unlabelled=self._num_texts - len(label.rows),
            num_contradicted=contradicted.get(label.name, 0),
            classes=tuple(zip(label.classes, label.counts.tolist(), strict=True)),
            thin=label.thin,
        )

    def _task_report(self, task: _Task, instructions: Mapping[str, str]) -> TaskEvaluation:
        others = [
            _compare(other.name, PromptKind.ANOTHER_TASK, task.own, other.accuracy[task.label.name])
            for other in self._tasks.values()
            if other is not task
        ]
        own = next(found for found in task.row.scores if found.label == task.label.name)
        outcomes = predict(task.judged.neighbours.rows, task.judged.rows, task.label)
        words = self._words.get(task.label.name)
        return TaskEvaluation(
            task.name,
            own=own,
            confusion=Confusion(task.label.classes, tuple(map(tuple, confusion(outcomes).tolist()))),
            controls=(*task.controls, *others),
            words=None if words is None else score(task.label.name, words, None),
            paraphrases=_paraphrases([Wording(instructions.get(task.name, ""), own.accuracy), *task.wordings]),
        )


class _Space:
    """One set of vectors; rows that several labels share are searched once."""

    def __init__(self, vectors: Float32, k: int) -> None:
        self._vectors = vectors
        self._k = k
        self._found: dict[bytes, Neighbours] = {}

    def neighbours(self, label: Label) -> Neighbours:
        """Returns the neighbours of every text that has a value, among these texts."""
        rows = label.rows
        known = self._found.get(rows.tobytes())
        if known is None:
            known = self._found[rows.tobytes()] = find_neighbours(self._vectors[rows], self._k)
        return known

    def outcomes(self, label: Label) -> Outcomes:
        return predict(self.neighbours(label).rows, label.rows, label)

    def clusters(self, outcomes: Outcomes, seed: int) -> Int64:
        return find_clusters(self._vectors[outcomes.rows], outcomes.num_classes, seed=seed)


def _compare(name: str, kind: PromptKind, own: Float64, other: Float64) -> ControlScores:
    return ControlScores(name, kind, accuracy=Estimate.of(other), gain=Estimate.of(own - other))


def _paraphrases(wordings: Sequence[Wording]) -> Paraphrases | None:
    values = [wording.accuracy.value for wording in wordings]
    if len(values) < 2:  # noqa: PLR2004 - the instruction alone
        return None
    return Paraphrases(tuple(wordings), min(values), sum(values) / len(values), max(values))


def _mean(replicates: Sequence[Float64]) -> Estimate | None:
    return Estimate.of(np.mean(replicates, axis=0)) if replicates else None
