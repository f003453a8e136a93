"""Two labels held against each other fairly: a sample in which neither tells anything of the other."""

from dataclasses import dataclass

import numpy as np

from pipeline.quality.estimates import Float64, Resampler
from pipeline.quality.labels import Label
from pipeline.quality.neighbours import find_neighbours, majority
from pipeline.quality.scores import Outcomes, VoteTally
from pipeline.records.batches import Bool, Float32, Int64

MIN_CELL = 5
"""Texts with one value of each label below which this combination is left out."""

MAX_TEXTS = 4_000
"""Texts of a balanced sample: intervals are narrow by then, and every pair of tasks needs neighbours of its own."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """A sample with equally many texts of every combination of two labels' values that is frequent enough."""

    first: Label
    second: Label
    rows: Int64
    """Texts, rising; empty where the two labels cannot be held against each other."""
    per_cell: int
    """Texts of each combination."""
    thin: tuple[tuple[str, str, int], ...]
    """Combinations left out for being too rare: the two values, and how many texts have them."""
    num_absent: int
    """Combinations that no text has."""
    cramers_v: float
    """Over all texts that have both labels: 0 for independent labels, 1 where one tells the other."""
    sample_cramers_v: float
    """Over the sample; above 0 only where combinations are left out."""
    reason: str | None
    """Why nothing can be measured; None if something can."""


def cross(first: Label, second: Label, *, seed: int, max_texts: int = MAX_TEXTS) -> Crossing:
    """Returns the balanced sample of two labels; which texts it holds does not depend on which label is the first."""
    both = np.flatnonzero((first.codes >= 0) & (second.codes >= 0))
    shape = (len(first.classes), len(second.classes))
    cells = first.codes[both] * shape[1] + second.codes[both]
    table = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)
    kept = table >= MIN_CELL
    reason = _reason(first.name, second.name, kept)
    per_cell, rows = 0, np.empty(0, np.int64)
    if reason is None:
        per_cell = min(int(table[kept].min()), max(MIN_CELL, max_texts // int(kept.sum())))
        rows = both[_draw(cells, kept.ravel(), per_cell, seed)]
    return Crossing(
        first,
        second,
        rows=rows,
        per_cell=per_cell,
        thin=tuple(
            (first.classes[row], second.classes[column], int(table[row, column]))
            for row, column in np.argwhere((table > 0) & ~kept).tolist()
        ),
        num_absent=int(np.count_nonzero(table == 0)),
        cramers_v=cramers_v(table),
        sample_cramers_v=cramers_v(kept.astype(np.int64)),
        reason=reason,
    )


def cramers_v(table: Int64) -> float:
    """Returns Cramér's V of a contingency table, uncorrected: 0 for independence, 1 where one side tells the other."""
    table = table[table.any(axis=1)][:, table.any(axis=0)]
    size = min(table.shape) - 1
    if size < 1:
        return 0.0
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    chi_squared = ((table - expected) ** 2 / expected).sum()
    return float(np.sqrt(chi_squared / (table.sum() * size)))


def kappas(crossing: Crossing, vectors: Float32, resampler: Resampler, k: int) -> tuple[Float64, Float64]:
    """Returns κ of the crossing's first label and of its second, by replicate; neighbours are of its sample.

    Args:
        crossing: One that can be measured.
        vectors: Of all rows, (num_rows, d).
        resampler: Draws of all rows.
        k: Neighbours that vote.
    """
    rows = crossing.rows
    neighbours = find_neighbours(vectors[rows], k).rows
    first, second = (_kappa(label, rows, neighbours, resampler) for label in (crossing.first, crossing.second))
    return first, second


def _kappa(label: Label, rows: Int64, neighbours: Int64, resampler: Resampler) -> Float64:
    codes = label.codes[rows]
    return VoteTally.of(Outcomes(rows, codes, majority(codes[neighbours]), len(label.classes)), resampler).kappa


def _reason(first: str, second: str, kept: Bool) -> str | None:
    """Returns why labels with these frequent combinations cannot be held against each other."""
    for name, values in ((first, kept.any(axis=1)), (second, kept.any(axis=0))):
        if values.sum() < 2:  # noqa: PLR2004 - one value has nothing to be told from
            return f"fewer than two values of {name!r} occur in {MIN_CELL} texts with one value of the other label"
    if cramers_v(kept.astype(np.int64)) > 1 - 1e-9:
        return f"{first!r} and {second!r} cannot be told apart: each value of one goes with one value of the other"
    return None


def _draw(cells: Int64, is_kept: Bool, per_cell: int, seed: int) -> Int64:
    """Returns places of `cells`, as many of each kept cell, rising.

    Args:
        cells: The cell of each text, (n,).
        is_kept: By cell.
        per_cell: Texts wanted of each.
        seed: Equal seeds draw equal texts.
    """
    order = np.lexsort((np.random.default_rng(seed).random(len(cells)), cells))
    ordered = cells[order]
    place_in_cell = np.arange(len(cells)) - np.searchsorted(ordered, ordered)
    return np.sort(order[is_kept[ordered] & (place_in_cell < per_cell)])
