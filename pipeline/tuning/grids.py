"""Which texts meet in a batch: a grid over the classes of two labels, so that crossed negatives are in it."""

from collections.abc import Sequence
from math import isqrt

import numpy as np

from pipeline.quality.labels import Label
from pipeline.records.batches import Int64


class GridSampler:
    """Draws batches of training texts. What a step gets depends on the seed and the step alone."""

    def __init__(self, labels: Sequence[Label], rows: Int64, size: int, *, seed: int) -> None:
        """Takes every task's label, and the texts that may be drawn; `size` texts make a batch."""
        self._labels = list(labels)
        self._rows = rows
        self._size = min(size, len(rows))
        self._seed = seed

    def draw(self, step: int) -> Int64:
        """Returns the texts of a step, each once: about equally many of each cell of two labels, drawn anew.

        A drawn class has two texts wherever there are two.
        """
        random = np.random.default_rng([self._seed, step])
        pair = random.permutation(len(self._labels))[:2]
        codes = np.stack([self._labels[index].codes[self._rows] for index in pair])
        known = (codes >= 0).all(axis=0)
        if not known.any():
            known = (codes >= 0).any(axis=0)
        for values in codes:
            known &= np.isin(values, _some_classes(values[known], self._size, random))
        candidates = np.flatnonzero(known)
        chosen = _deal(candidates, codes[:, candidates], self._size, random)
        return self._rows[_without_singles(chosen, candidates, codes, random)]


def _some_classes(values: Int64, size: int, random: np.random.Generator) -> Int64:
    """Returns the classes that take part: as many as leave several texts to each cell."""
    present = np.unique(values)
    return random.permutation(present)[: max(2, isqrt(size))]


def _deal(candidates: Int64, codes: Int64, size: int, random: np.random.Generator) -> Int64:
    """Returns at most `size` of the candidates, a text of each cell in turn."""
    order = random.permutation(len(candidates))
    _, cells = np.unique(codes[:, order], axis=1, return_inverse=True)
    cells = cells.ravel()
    by_cell = np.argsort(cells, kind="stable")
    ordered = cells[by_cell]
    turn = np.empty(len(cells), np.int64)
    turn[by_cell] = np.arange(len(cells)) - np.searchsorted(ordered, ordered)
    mixed = np.lexsort((random.random(len(cells)), turn))
    return candidates[order[mixed[:size]]]


def _without_singles(chosen: Int64, candidates: Int64, codes: Int64, random: np.random.Generator) -> Int64:
    """Returns the chosen and a second text of every class that has one of them only."""
    for values in codes:
        classes, counts = np.unique(values[chosen], return_counts=True)
        for lonely in classes[(counts == 1) & (classes >= 0)]:
            others = np.setdiff1d(candidates[values[candidates] == lonely], chosen)
            if len(others):
                chosen = np.append(chosen, random.choice(others))
    return chosen
