"""A linear map per task, fitted on embeddings that are computed once: several ways, and the best is kept."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from pipeline.quality.estimates import Resampler
from pipeline.quality.labels import Label
from pipeline.quality.neighbours import find_neighbours
from pipeline.quality.scores import VoteTally, predict
from pipeline.records.batches import Float32, Int64
from pipeline.tuning.fold import K
from pipeline.tuning.loss import contrastive_loss

_SHRINKAGES = (0.1, 0.5)
"""How much of the classes' common covariance is replaced by its mean: few texts say little of it."""

_RESTS = (0.0, 0.3)
"""Weight of the directions that tell no class apart."""

_STEPS = 300
_BATCH = 256
_RATE = 2e-3
_TEMPERATURE = 0.1


@dataclass(frozen=True, slots=True)
class Head:
    """One task's map."""

    weight: Float32
    """(out_features, in_features), applied to unit vectors; no bias."""
    method: str
    """How it was fitted: "discriminant" or "contrastive", with its settings."""
    score: float
    """On the selection fold: κ of the own label, less the mean κ of the others."""

    def apply(self, vectors: Float32, dimension: int | None = None) -> Float32:
        """Returns unit vectors behind the map, (n, dimension): its leading values, all without a dimension."""
        rows = vectors @ self.weight[:dimension].T
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.asarray(rows / np.maximum(norms, 1e-12), np.float32)


@dataclass(frozen=True, slots=True)
class HeadLesson:
    """What a head is to learn."""

    vectors: Float32
    """Unit vectors of all texts under the task's prompt, (n, d)."""
    label: Label
    others: Sequence[Label]
    """Labels that it should not tell."""
    train: Int64
    select: Int64
    dimension: int
    """Leading values that are served."""


def fit_head(lesson: HeadLesson, *, seed: int) -> Head:
    """Returns the map with the best score on the selection fold; equal input and seed give an equal map."""
    rows = lesson.train[lesson.label.codes[lesson.train] >= 0]
    vectors, codes = lesson.vectors[rows], lesson.label.codes[rows]
    found = [
        Head(weight, method, _score(lesson, weight)) for method, weight in _candidates(vectors, codes, lesson, seed)
    ]
    return max(found, key=lambda head: head.score)


def _candidates(vectors: Float32, codes: Int64, lesson: HeadLesson, seed: int) -> Iterator[tuple[str, Float32]]:
    start: Float32 | None = None
    for shrinkage in _SHRINKAGES:
        for rest in _RESTS:
            weight = discriminant(vectors, codes, shrinkage=shrinkage, rest=rest)
            start = weight if rest else start
            yield f"discriminant, shrinkage {shrinkage}, rest {rest}", weight
    assert start is not None  # noqa: S101 - one of the rests is above 0
    yield "contrastive, 300 steps", contrastive(vectors, codes, start, dimension=lesson.dimension, seed=seed)


def discriminant(vectors: Float32, codes: Int64, *, shrinkage: float, rest: float) -> Float32:
    """Returns Fisher's linear discriminants as a square map, the most telling direction first.

    The vectors' common part is projected out instead of subtracted, because a head has no bias.

    Args:
        vectors: Unit vectors, (n, d).
        codes: Class of each, (n,).
        shrinkage: From 0 to 1.
        rest: Weight of the directions after the discriminants.
    """
    mean = vectors.mean(axis=0, dtype=np.float64)
    centring = np.eye(len(mean)) - np.outer(mean, mean) / max(float(mean @ mean), 1e-12)
    rows = vectors @ centring.T
    classes = np.unique(codes)
    means = np.stack([rows[codes == code].mean(axis=0) for code in classes])
    within = rows - means[np.searchsorted(classes, codes)]
    covariance = within.T @ within / len(rows)
    size = float(np.trace(covariance)) / len(mean)
    values, directions = np.linalg.eigh((1 - shrinkage) * covariance + shrinkage * size * np.eye(len(mean)))
    whitening = directions / np.sqrt(np.maximum(values, 1e-9 * max(size, 1e-12))) @ directions.T
    weights = np.sqrt(np.array([(codes == code).sum() for code in classes]) / len(codes))
    between = (means - means.mean(axis=0)) @ whitening * weights[:, None]
    _, _, turn = np.linalg.svd(between, full_matrices=True)
    scales = np.where(np.arange(len(mean)) < len(classes) - 1, 1.0, rest)
    weight = scales[:, None] * turn @ whitening @ centring
    return np.asarray(weight / np.abs(weight).max(), np.float32)


def contrastive(vectors: Float32, codes: Int64, start: Float32, *, dimension: int, seed: int) -> Float32:
    """Returns a map trained by the supervised contrastive loss from another one on; (d, d).

    Args:
        vectors: Unit vectors, (n, d).
        codes: Class of each, (n,).
        start: (d, d)
        dimension: Leading values that the loss sees.
        seed: Of the batches.
    """
    random = np.random.default_rng([seed, 3])
    inputs, classes = torch.from_numpy(vectors), torch.from_numpy(codes)
    weight = nn.Parameter(torch.from_numpy(start / np.linalg.norm(vectors @ start.T, axis=1).mean()).float())
    optimizer = torch.optim.AdamW([weight], lr=_RATE, weight_decay=0.05)
    for step in range(_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = _RATE * (1 - step / _STEPS)
        batch = torch.from_numpy(random.choice(len(codes), min(_BATCH, len(codes)), replace=False))
        rows = nn.functional.normalize(inputs[batch] @ weight[:dimension].T, dim=-1)
        optimizer.zero_grad()
        contrastive_loss(rows, classes[batch], _TEMPERATURE).backward()  # type: ignore[no-untyped-call] # torch
        optimizer.step()
    return np.asarray(weight.detach().numpy(), np.float32)


def _score(lesson: HeadLesson, weight: Float32) -> float:
    vectors = Head(weight, "", 0.0).apply(lesson.vectors[lesson.select], lesson.dimension)
    own = fold_kappa(vectors, lesson.label, lesson.select)
    others = [fold_kappa(vectors, other, lesson.select) for other in lesson.others]
    return own - float(np.mean(others)) if others else own


def fold_kappa(vectors: Float32, label: Label, rows: Int64) -> float:
    """Returns κ of a label told by nearest neighbours among some texts.

    Args:
        vectors: Of the texts `rows`, (n, d).
        label: Over all texts.
        rows: (n,)
    """
    part = Label(label.name, label.classes, label.codes[rows])
    known = part.rows
    outcomes = predict(find_neighbours(vectors[known], K).rows, known, part)
    return float(VoteTally.of(outcomes, Resampler(len(rows), replicates=0, seed=0)).kappa[0])


def shuffled(labels: Mapping[str, Label], *, seed: int) -> dict[str, Label]:
    """Returns the labels dealt out to the texts at random: what learns from them must land at chance."""
    random = np.random.default_rng([seed, 4])
    return {task: Label(label.name, label.classes, random.permutation(label.codes)) for task, label in labels.items()}
