"""The texts whose neighbours disagree most with their labels: mislabelled, ambiguous, or beyond the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.quality.evaluation import Misjudged, Neighbour, WorstText
from pipeline.quality.labels import Label
from pipeline.quality.neighbours import Neighbours, majority
from pipeline.records.batches import Int64


@dataclass(frozen=True, slots=True)
class Judged:
    """The neighbours by which one task's own label was told."""

    label: Label
    rows: Int64
    """Texts that have a value, (n,), rising."""
    neighbours: Neighbours
    """Of each, as places in `rows`."""


def find_worst(tasks: Mapping[str, Judged], keys: Sequence[str], limit: int) -> tuple[WorstText, ...]:
    """Returns the worst texts, the worst first: misjudged by most tasks, then by most and by nearest neighbours.

    Args:
        tasks: By name.
        keys: Of each text.
        limit: Texts at most. Texts that every task judges rightly are never among them.
    """
    num_texts = len(keys)
    num_misjudged, num_wrong, nearness = np.zeros(num_texts), np.zeros(num_texts), np.zeros(num_texts)
    for judged in tasks.values():
        codes = judged.label.codes[judged.rows]
        votes = codes[judged.neighbours.rows]
        wrong = votes != codes[:, None]
        misjudged = majority(votes) != codes
        num_misjudged[judged.rows] += misjudged
        num_wrong[judged.rows] += np.where(misjudged, wrong.sum(axis=1), 0)
        nearness[judged.rows] += np.where(misjudged, (judged.neighbours.similarities * wrong).sum(axis=1), 0)
    order = np.lexsort((-nearness, -num_wrong, -num_misjudged))[:limit]
    return tuple(_worst_text(row, tasks, keys) for row in order.tolist() if num_misjudged[row])


def _worst_text(row: int, tasks: Mapping[str, Judged], keys: Sequence[str]) -> WorstText:
    found = {name: _misjudged(row, judged, keys) for name, judged in tasks.items() if judged.label.codes[row] >= 0}
    return WorstText(row, keys[row], found)


def _misjudged(row: int, judged: Judged, keys: Sequence[str]) -> Misjudged:
    place = int(np.searchsorted(judged.rows, row))
    near = judged.rows[judged.neighbours.rows[place]]
    codes, classes = judged.label.codes, judged.label.classes
    return Misjudged(
        label=classes[codes[row]],
        predicted=classes[int(majority(codes[near][None])[0])],
        neighbours=tuple(
            Neighbour(other, keys[other], classes[codes[other]], similarity)
            for other, similarity in zip(near.tolist(), judged.neighbours.similarities[place].tolist(), strict=True)
        ),
    )
