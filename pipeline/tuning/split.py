"""Which texts are trained on, which decide what is kept, and which are touched once, for the report."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.quality.labels import Label
from pipeline.quality.neighbours import find_neighbours
from pipeline.records.batches import Float32, Int64

NEAR = 0.95
"""Cosine from which two texts count as copies of each other: of the untrained model's vectors, less their mean.

Without their common part, which makes all texts alike in some models.
"""

_COPIES = 8
"""Neighbours of a text that are looked at."""

_BLOCK = 20
"""Texts that are dealt out together: 14 to train on, 3 to select by, 3 to report on."""

_TRAIN, _SELECT, _REPORT = 0, 1, 2
_DEAL = np.array([_TRAIN] * 14 + [_SELECT] * 3 + [_REPORT] * 3)


@dataclass(frozen=True, slots=True)
class Split:
    """Rows of each fold, rising. No text has a near copy in another fold."""

    train: Int64
    select: Int64
    report: Int64
    num_copies: int
    """Texts that have a near copy."""
    num_moved: int
    """Texts that changed their fold so as to stay with their copies."""


def split_texts(labels: Sequence[Label], groups: Int64, *, seed: int) -> Split:
    """Returns 70, 15 and 15 % of the texts, each with its share of every combination of labels.

    Args:
        labels: Of all tasks, over all texts. Texts without any label are left out.
        groups: A number per text; texts of one number stay in one fold. (n,)
        seed: Equal seeds split equal data alike.
    """
    random = np.random.default_rng([seed, 2])
    codes = np.stack([label.codes for label in labels])
    rows = np.flatnonzero((codes >= 0).any(axis=0))
    rows = rows[np.lexsort((random.random(len(rows)), *codes[:, rows]))]
    dealt = np.concatenate([random.permutation(_DEAL) for _ in range(-(-len(rows) // _BLOCK))])[: len(rows)]
    folds = np.full(codes.shape[1], -1)
    folds[rows] = dealt
    kept = _keep_together(folds, groups, rows)
    sizes = np.bincount(groups[rows], minlength=int(groups.max()) + 1)
    return Split(
        train=np.flatnonzero(kept == _TRAIN),
        select=np.flatnonzero(kept == _SELECT),
        report=np.flatnonzero(kept == _REPORT),
        num_copies=int((sizes[groups[rows]] > 1).sum()),
        num_moved=int((kept != folds).sum()),
    )


def copy_groups(vectors: Float32, threshold: float = NEAR) -> Int64:
    """Returns a number per text, (n,); near copies, and copies of copies, share one.

    Args:
        vectors: Unit vectors of the untrained model, (n, d), at least two.
        threshold: Cosine from which two texts are copies.
    """
    centred = vectors - vectors.mean(axis=0)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), np.float32(1e-9))
    found = find_neighbours(centred, _COPIES)
    parents = list(range(len(vectors)))
    for row, place in np.argwhere(found.similarities >= threshold).tolist():
        first, second = _root(parents, row), _root(parents, int(found.rows[row, place]))
        parents[max(first, second)] = min(first, second)
    return np.array([_root(parents, row) for row in range(len(vectors))], np.int64)


def _root(parents: list[int], row: int) -> int:
    while parents[row] != row:
        parents[row] = parents[parents[row]]
        row = parents[row]
    return row


def _keep_together(folds: Int64, groups: Int64, rows: Int64) -> Int64:
    """Returns the folds with every group in the one that most needs it: training where any of it is there."""
    kept = folds.copy()
    first_fold = np.full(int(groups.max()) + 1, _REPORT)
    np.minimum.at(first_fold, groups[rows], folds[rows])
    kept[rows] = first_fold[groups[rows]]
    return kept
