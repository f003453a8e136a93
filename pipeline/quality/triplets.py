"""Crossed triplets: does the nearer one of two texts change when the instruction does?"""

from dataclasses import dataclass

import numpy as np

from pipeline.quality.crossing import Crossing
from pipeline.quality.estimates import Float64, Resampler
from pipeline.records.batches import Bool, Float32, Int64

PER_ANCHOR = 16
"""Triplets drawn for each text."""

_BLOCK_ROWS = 4_096
"""Triplets whose vectors are gathered at once."""


@dataclass(frozen=True, slots=True)
class Triplets:
    """Triplets (anchor, p, n) of texts, PER_ANCHOR of each anchor.

    p has the anchor's value of the first label and another of the second; n has the anchor's value of the
    second label and another of the first.
    """

    anchors: Int64
    """Rows, (n,), each once."""
    same_first: Int64
    """p, (n, PER_ANCHOR)."""
    same_second: Int64
    """n, (n, PER_ANCHOR)."""


@dataclass(frozen=True, slots=True)
class Flips:
    """What two instructions make of crossed triplets, by replicate, (num_replicates,)."""

    rate: Float64
    """Share of triplets with p nearer under the first instruction and n nearer under the second."""
    first: Float64
    """Share with p nearer under the first instruction."""
    second: Float64
    """Share with n nearer under the second instruction."""


def draw_triplets(crossing: Crossing, *, seed: int) -> Triplets:
    """Returns triplets of a crossing's sample, with replacement; an anchor without a p or an n is left out."""
    random = np.random.default_rng(seed)
    rows = crossing.rows
    first, second = crossing.first.codes[rows], crossing.second.codes[rows]
    drawn: list[tuple[Int64, Int64, Int64]] = []
    for own_first, own_second in np.unique(np.stack([first, second], axis=1), axis=0).tolist():
        anchors = rows[(first == own_first) & (second == own_second)]
        like_first = rows[(first == own_first) & (second != own_second)]
        like_second = rows[(first != own_first) & (second == own_second)]
        if len(like_first) and len(like_second):
            shape = (len(anchors), PER_ANCHOR)
            drawn.append((anchors, random.choice(like_first, shape), random.choice(like_second, shape)))
    if not drawn:
        none = np.empty((0, PER_ANCHOR), np.int64)
        return Triplets(none[:, 0], none, none)
    return Triplets(*(np.concatenate(part) for part in zip(*drawn, strict=True)))


def find_flips(triplets: Triplets, first: Float32, second: Float32, resampler: Resampler) -> Flips:
    """Returns the shares of triplets that two instructions order as their labels ask.

    The nearer text must be strictly nearer. So vectors that do not depend on the instruction never flip (the
    same text is nearer under both), and random ones flip a quarter of the triplets.

    Args:
        triplets: At least one; rates are means over anchors of the share among an anchor's triplets.
        first: Vectors of all rows under the first label's instruction, (num_rows, d).
        second: Vectors under the second label's instruction, (num_rows, any d).
        resampler: Draws of all rows.
    """
    under_first = _nearer(triplets.anchors, triplets.same_first, triplets.same_second, first)
    under_second = _nearer(triplets.anchors, triplets.same_second, triplets.same_first, second)
    sizes = resampler.totals(triplets.anchors, np.ones(len(triplets.anchors), np.float32))
    sizes = np.where(sizes > 0, sizes, np.nan)
    rate, of_first, of_second = (
        resampler.totals(triplets.anchors, right.mean(axis=1, dtype=np.float32)) / sizes
        for right in (under_first & under_second, under_first, under_second)
    )
    return Flips(rate, of_first, of_second)


def _nearer(anchors: Int64, wanted: Int64, others: Int64, vectors: Float32) -> Bool:
    """Whether an anchor is nearer to the wanted text than to the other one, (n, PER_ANCHOR)."""
    anchor = np.repeat(anchors, PER_ANCHOR)
    difference = np.empty(len(anchor), np.float32)
    for begin in range(0, len(anchor), _BLOCK_ROWS):
        part = slice(begin, begin + _BLOCK_ROWS)
        towards = vectors[wanted.ravel()[part]] - vectors[others.ravel()[part]]
        difference[part] = np.einsum("ij,ij->i", vectors[anchor[part]], towards)
    return (difference > 0).reshape(wanted.shape)
