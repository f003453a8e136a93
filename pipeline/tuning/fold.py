"""How good the vectors of a fold are: the figure by which a run keeps its best state."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from pipeline.quality.estimates import Resampler
from pipeline.quality.labels import Label
from pipeline.quality.neighbours import find_neighbours
from pipeline.quality.pairs import Side, measure_pair
from pipeline.quality.scores import VoteTally, predict
from pipeline.records.batches import Float32, Int64

K = 5
"""Neighbours that vote."""


@dataclass(frozen=True, slots=True)
class FoldScore:
    """What one fold says of a set of vectors."""

    separation: float | None
    """None where no two labels can be held against each other."""
    flip_rate: float | None
    kappa: Mapping[str, float]
    """Of each task's own label under its own vectors."""

    @property
    def value(self) -> float:
        """What is compared: mean of separation and flip rate; of the own κ where there are no pairs of labels."""
        figures = [figure for figure in (self.separation, self.flip_rate) if figure is not None]
        return float(np.mean(figures or list(self.kappa.values())))


class Fold:
    """Some of the texts, and their labels."""

    def __init__(self, labels: Mapping[str, Label], rows: Int64, *, seed: int) -> None:
        """Takes each task's label over all texts, and the fold's texts, rising."""
        self.rows = rows
        self.labels = {task: Label(label.name, label.classes, label.codes[rows]) for task, label in labels.items()}
        self._seed = seed
        self._resampler = Resampler(len(rows), replicates=0, seed=seed)

    def score(self, vectors: Mapping[str, Float32]) -> FoldScore:
        """Returns the figures of each task's vectors of the fold's texts, (num_rows, d) unit vectors."""
        sides = [Side(task, label, vectors[task]) for task, label in self.labels.items()]
        pairs = [measure_pair(*two, self._resampler, k=K, seed=self._seed) for two in combinations(sides, 2)]
        differences = [float(part[0]) for pair in pairs for part in pair.differences]
        flips = [float(pair.flip_rate[0]) for pair in pairs if pair.flip_rate is not None]
        return FoldScore(
            separation=float(np.mean(differences)) if differences else None,
            flip_rate=float(np.mean(flips)) if flips else None,
            kappa={side.task: self._kappa(side) for side in sides},
        )

    def _kappa(self, side: Side) -> float:
        rows = side.label.rows
        neighbours = find_neighbours(side.vectors[rows], K).rows
        return float(VoteTally.of(predict(neighbours, rows, side.label), self._resampler).kappa[0])
