"""Items of mixed lengths laid end to end: what one forward batch computes, and nothing beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from pipeline.records.batches import Int32, Int64


class Run(NamedTuple):
    """Neighbours of one shape, which attention takes as one batch without a mask."""

    num_items: int
    length: int
    """Tokens of each that are computed."""
    reused: int
    """Tokens in front of them whose keys and values are there already."""


@dataclass(frozen=True, slots=True)
class Pack:
    """One forward batch, on the host. Items of equal `lengths` and equal prefix length stand together."""

    ids: Int32
    """(num_tokens,) ids to compute, item after item."""
    lengths: Int32
    """(num_items,) how many of them each item has."""
    excluded: Int32
    """(num_items,) leading ids of the whole prompt that stay out of the pooling."""
    prefixes: tuple[Int32, ...] = ()
    """Distinct leading ids whose keys and values are reused."""
    prefix: Int32 | None = None
    """(num_items,) which of `prefixes` stands in front of each item; None: nothing is reused."""

    @property
    def num_tokens(self) -> int:
        """Tokens to compute."""
        return len(self.ids)

    @property
    def reused(self) -> Int32:
        """(num_items,) tokens in front of each item that are not computed."""
        if self.prefix is None:
            return np.zeros_like(self.lengths)
        return np.array([len(prefix) for prefix in self.prefixes], np.int32)[self.prefix]

    @property
    def runs(self) -> list[Run]:
        """The items in order, neighbours of one shape counted together."""
        shapes = np.stack([self.lengths, self.reused], axis=1)
        edges = np.flatnonzero((np.diff(shapes, axis=0) != 0).any(axis=1)) + 1
        bounds = [0, *edges.tolist(), len(shapes)]
        return [Run(end - start, int(shapes[start, 0]), int(shapes[start, 1])) for start, end in pairwise(bounds)]

    def positions(self, padding_id: int | None) -> Int64:
        """Returns the position of every token in its prompt.

        Args:
            padding_id: For models that count from padding_id + 1 and leave padding tokens out (RoBERTa); None: from 0.
        """
        if padding_id is None:
            starts = np.cumsum(self.lengths) - self.lengths - self.reused
            return np.arange(len(self.ids)) - np.repeat(starts, self.lengths)
        real = self.ids != padding_id
        counted = np.cumsum(real)
        before = np.concatenate([[0], counted])[np.cumsum(self.lengths) - self.lengths]
        return np.where(real, counted - np.repeat(before, self.lengths), 0) + padding_id

    def keys(self) -> Int64:
        """Returns, for every item's prefix and own tokens in turn, where its key stands.

        Index into the tokens of all `prefixes` end to end, followed by the computed tokens.
        """
        sizes = [len(prefix) for prefix in self.prefixes]
        first_of_prefix = np.concatenate([[0], np.cumsum(sizes)])
        own = int(first_of_prefix[-1]) + np.concatenate([[0], np.cumsum(self.lengths)])
        parts: list[Int64] = []
        for item, number in enumerate(self._prefix_numbers()):
            if sizes:
                parts.append(np.arange(first_of_prefix[number], first_of_prefix[number + 1]))
            parts.append(np.arange(own[item], own[item + 1]))
        return np.concatenate(parts)

    def _prefix_numbers(self) -> Sequence[int]:
        return [0] * len(self.lengths) if self.prefix is None else self.prefix.tolist()


def pack_of(rows: Sequence[Int32], excluded: Sequence[int] | None = None) -> Pack:
    """Returns a pack of whole prompts."""
    lengths = np.array([len(row) for row in rows], np.int32)
    zeros = np.zeros(len(rows), np.int32)
    return Pack(np.concatenate(rows), lengths, zeros if excluded is None else np.array(excluded, np.int32))
