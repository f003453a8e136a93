"""The nearest neighbours of every row among the others, in bounded memory, and what they vote for."""

from dataclasses import dataclass

import numpy as np

from pipeline.records.batches import Float32, Int64

BLOCK_BYTES = 8 << 20
"""Similarities held at once: large enough for the matrix product, small enough for a processor's cache."""

_GROUP_ROWS = 64
"""Rows whose largest similarity is taken before the neighbours are picked; it leaves a few candidates for each row."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The k nearest other rows of each row, nearest first; of equally near ones the one that stands earlier."""

    rows: Int64
    """(n, k)"""
    similarities: Float32
    """(n, k), falling"""


def find_neighbours(vectors: Float32, k: int, *, block_bytes: int = BLOCK_BYTES) -> Neighbours:
    """Returns the nearest others of every row by dot product; a row is never its own neighbour.

    Args:
        vectors: Unit vectors, (n, d), at least two.
        k: Neighbours wanted; one less than there are rows at most, else as many as there are.
        block_bytes: Bound on the similarities held at once; a block has at least one row.
    """
    num_rows, k = len(vectors), min(k, len(vectors) - 1)
    # More groups than neighbours: k of them hold a row's neighbours, even when few rows fill them.
    groups = max(4 * k, -(-num_rows // _GROUP_ROWS))
    num_columns = groups * -(-num_rows // groups)
    per_block = min(num_rows, max(1, block_bytes // (num_columns * vectors.itemsize)))
    block = np.full((per_block, num_columns), -np.inf, np.float32)
    columns = np.ascontiguousarray(vectors.T)
    rows, similarities = np.empty((num_rows, k), np.int64), np.empty((num_rows, k), np.float32)
    for begin in range(0, num_rows, per_block):
        end = min(begin + per_block, num_rows)
        found = block[: end - begin]
        np.matmul(vectors[begin:end], columns, out=found[:, :num_rows])
        found[np.arange(end - begin), np.arange(begin, end)] = -np.inf
        rows[begin:end], similarities[begin:end] = _largest(found, k, groups)
    return Neighbours(rows, similarities)


def _largest(block: Float32, k: int, groups: int) -> tuple[Int64, Float32]:
    """Returns the columns and the values of the k largest entries of each row, by falling value, then by column.

    The k-th largest of the groups' maxima bounds the k-th largest entry from below: k entries at least reach it.
    """
    num_rows, num_columns = block.shape
    maxima = block.reshape(num_rows, -1, groups).max(axis=1)
    bound = np.partition(maxima, -k, axis=1)[:, -k]
    candidates = np.flatnonzero(block >= bound[:, None])
    values = block.ravel()[candidates]
    row, column = np.divmod(candidates, num_columns)
    order = np.lexsort((column, -values, row))
    begins = np.searchsorted(row, np.arange(num_rows))
    chosen = order[begins[:, None] + np.arange(k)]
    return column[chosen], values[chosen]


def majority(votes: Int64) -> Int64:
    """Returns the most frequent code of each row; of equally frequent ones the one that stands first.

    Args:
        votes: Codes of a row's neighbours, nearest first, (n, k).

    Returns:
        (n,)
    """
    agreeing = (votes[:, :, None] == votes[:, None, :]).sum(axis=2)
    first = agreeing.argmax(axis=1)  # argmax takes the first of equals, which is the nearest neighbour
    return np.take_along_axis(votes, first[:, None], axis=1)[:, 0]
