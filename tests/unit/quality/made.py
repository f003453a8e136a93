"""Vectors and labels whose figures are known beforehand."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.quality.labels import Label, make_label
from pipeline.records.batches import Float32, Int64


def unit(rows: npt.ArrayLike) -> Float32:
    """The rows, scaled to length one."""
    found = np.asarray(rows, np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def noise(num_rows: int, dimension: int = 64, seed: int = 0) -> Float32:
    """Random directions: vectors that know nothing."""
    return unit(np.random.default_rng(seed).standard_normal((num_rows, dimension)))


def around(codes: Int64, *, spread: float = 0.2, dimension: int = 64, seed: int = 0) -> Float32:
    """Vectors that stand around one centre of each code."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((int(codes.max()) + 1, dimension))
    return unit(centres[codes] + spread * np.linalg.norm(centres[0]) * noise(len(codes), dimension, seed + 1))


def crossed(num_first: int, num_second: int, per_cell: int, *, seed: int = 0) -> tuple[Int64, Int64]:
    """Codes of two labels, every combination equally often, in random order."""
    first, second = np.meshgrid(np.arange(num_first), np.arange(num_second), indexing="ij")
    order = np.random.default_rng(seed).permutation(num_first * num_second * per_cell)
    return np.repeat(first.ravel(), per_cell)[order], np.repeat(second.ravel(), per_cell)[order]


def label(name: str, codes: Int64 | Sequence[int]) -> Label:
    """A label with a value such as name-3 for each code, none below zero."""
    return make_label(name, [None if code < 0 else f"{name}-{code:02}" for code in np.asarray(codes).tolist()])
