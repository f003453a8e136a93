"""Whether a tuned model is still a general one: questions and answers that have nothing to do with the training."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from pipeline.records.batches import Float32
from pipeline.tuning.encoder import LoraEncoder
from pipeline.tuning.folder import half_precision
from pipeline.tuning.wordings import PLAIN

MAX_DROP = 0.05
"""Recall that a run may cost."""

_SCALES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
"""Of an adapter's updates; the first that keeps general ability is taken."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Short descriptions, and the passage that each of them describes."""

    queries: Sequence[str]
    passages: Sequence[str]


@dataclass(frozen=True, slots=True)
class General:
    """Recall at 1 of the plain pairs."""

    before: float
    after: float
    scale: float = 1.0
    """By how much the updates were multiplied, to keep it."""

    @property
    def drop(self) -> float:
        """What the run cost; below 0 where it gained."""
        return self.before - self.after

    @property
    def is_kept(self) -> bool:
        """Whether the drop is within bounds."""
        return self.drop <= MAX_DROP


def plain_pairs() -> Pairs:
    """Returns the packaged pairs."""
    rows = _packaged("plain_pairs.jsonl")
    return Pairs([row["query"] for row in rows], [row["passage"] for row in rows])


def general_texts() -> list[str]:
    """Returns the packaged texts that training rehearses: others than those of the pairs."""
    return _packaged("plain_texts.jsonl")


def general_recall(encoder: LoraEncoder) -> float:
    """Returns the recall of the packaged pairs, embedded without an instruction."""
    pairs = plain_pairs()
    queries, passages = (encoder.embed(list(t), [PLAIN])[PLAIN] for t in (pairs.queries, pairs.passages))
    return recall_at_1(queries, passages)


def settle(encoder: LoraEncoder, before: float | None, *, keep: bool) -> General | None:
    """Leaves what will be stored in a trained encoder: scaled down where that is asked for and needed, and rounded.

    Args:
        encoder: Trained.
        before: Recall of the untrained model; None where it has no form without an instruction.
        keep: Whether the updates are scaled down where general ability would be lost else.

    Returns:
        General ability before and of what is stored.
    """
    scale = _scale_to_keep(encoder, before) if before is not None and keep else 1.0
    half_precision(encoder)  # what is measured is what is stored
    return None if before is None else General(before, general_recall(encoder), scale)


def _scale_to_keep(encoder: LoraEncoder, before: float) -> float:
    """Shrinks the updates as far as general ability asks for; not at all where that does not help.

    Between a model and what was trained of it lie models that keep most of both: Wortsman et al., "Robust fine-tuning
    of zero-shot models", CVPR 2022.

    Args:
        encoder: Trained.
        before: Recall of the untrained model.

    Returns:
        By how much the updates were multiplied.
    """
    weights = {name: value.detach().clone() for name, value in encoder.weights.items()}
    for scale in _SCALES:
        encoder.load(weights)
        encoder.scale(scale)
        if General(before, general_recall(encoder)).is_kept:
            return scale
    encoder.load(weights)
    return 1.0


def recall_at_1(queries: Float32, passages: Float32) -> float:
    """Returns the share of queries whose own passage is the most similar of all.

    Args:
        queries: Unit vectors, (n, d).
        passages: Unit vectors, (n, d), in the order of the queries.
    """
    return float(np.mean((queries @ passages.T).argmax(axis=1) == np.arange(len(queries))))


def _packaged(name: str) -> list[Any]:
    lines = files("pipeline.tuning").joinpath(name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
