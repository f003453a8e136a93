"""Packs items into forward batches by length, to a token budget. Pure numpy: knows neither records nor models.

Every function returns groups of item indices that together hold each index exactly once, longest
items first, so that a batch that does not fit in memory is met before the time is spent.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.intp]
Lengths = npt.NDArray[np.integer]


def exact_length_groups(lengths: Lengths, max_tokens: int) -> list[Indices]:
    """Returns groups of items of one length each: no padding and no mask.

    Args:
        lengths: (num_items,) tokens per item.
        max_tokens: Most tokens of one group. A longer item is a group of its own.
    """
    return band_groups(lengths, max_tokens, 0)


def band_groups(lengths: Lengths, max_tokens: int, max_spread: int) -> list[Indices]:
    """Returns groups whose lengths differ by at most `max_spread`, padded cost within the budget.

    The cost of a group is its longest length times its number of items: what a padded batch computes.
    """
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    ordered = lengths[order]
    groups, start = [], 0
    while start < len(order):
        longest = int(ordered[start])
        fitting = max(max_tokens // longest, 1) if longest > 0 else len(order)
        in_band = int(np.searchsorted(-ordered, -(longest - max_spread), side="right"))
        end = min(start + fitting, in_band)
        groups.append(order[start:end])
        start = end
    return groups


def flat_packs(lengths: Lengths, max_tokens: int) -> list[Indices]:
    """Returns groups for one flat batch each, without padding: the sum of their lengths is within the budget.

    Neighbours have like lengths, because attention costs by the longest of a pack.
    """
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    ends = np.cumsum(lengths[order], dtype=np.int64)
    groups, start, taken = [], 0, 0
    while start < len(order):
        end = max(int(np.searchsorted(ends, taken + max_tokens, side="right")), start + 1)
        groups.append(order[start:end])
        start, taken = end, int(ends[end - 1])
    return groups


def halves(group: Indices) -> Sequence[Indices]:
    """Returns a group in two parts, for one that did not fit."""
    middle = len(group) // 2
    return [group[:middle], group[middle:]]
