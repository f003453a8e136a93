"""Figures with the interval a bootstrap over texts gives them."""

import math
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from pipeline.records.batches import Float32, Int64

Float64 = npt.NDArray[np.float64]

CONFIDENCE = 0.95
"""Share of the replicates that an interval covers."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure of the texts at hand, and where it would lie for other texts of the same kind."""

    value: float
    low: float
    """Lower end of the 95 % interval."""
    high: float

    @classmethod
    def of(cls, replicates: Float64) -> "Estimate":
        """Returns the estimate of a statistic of `Resampler`: first the texts as they are, then every resample.

        Resamples on which the statistic is undefined (NaN) say nothing about the interval.
        """
        value, resampled = float(replicates[0]), replicates[1:]
        known = resampled[np.isfinite(resampled)]
        if not len(known):
            return cls(value, math.nan, math.nan)
        outside = (1 - CONFIDENCE) / 2
        low, high = np.quantile(known, [outside, 1 - outside])
        return cls(value, float(low), float(high))

    def rounded(self) -> dict[str, float]:
        """Returns the figure and its interval to four places, as cards have them."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


class Resampler:
    """Draws texts with replacement, and counts outcomes over each draw.

    A draw says how often a text counts, nothing more: outcomes (a prediction, a cluster) are found once,
    on the texts as they are. Finding neighbours again on a draw would let a text drawn twice meet itself.
    All statistics share the draws, so differences of two of them are differences on the same texts.

    Holds 4 bytes per text and draw. Thread-safe after construction.
    """

    def __init__(self, num_texts: int, *, replicates: int, seed: int) -> None:
        """Replicate 0 counts every text once: a statistic's first entry is its value on the texts as they are."""
        random = np.random.default_rng(seed)
        self._times = np.ones((num_texts, replicates + 1), np.float32)
        for column in range(1, replicates + 1):
            drawn = random.integers(0, num_texts, num_texts)
            self._times[:, column] = np.bincount(drawn, minlength=num_texts)

    @property
    def num_replicates(self) -> int:
        """Draws, with the texts as they are."""
        return self._times.shape[1]

    def totals(self, rows: Int64, values: Float32) -> Float64:
        """Returns the sum of a value per text over each replicate.

        Args:
            rows: Texts that have a value, (n,).
            values: Their values, (n,).

        Returns:
            (num_replicates,)
        """
        return self._sums(values, np.zeros(len(rows), np.int64), rows, 1).ravel()

    def counts(self, rows: Int64, codes: Int64, num_codes: int) -> Float64:
        """Returns how many texts of each replicate have each code.

        Args:
            rows: Texts, (n,).
            codes: A code of each, (n,), from 0 to num_codes - 1.
            num_codes: How many codes there are.

        Returns:
            (num_codes, num_replicates)
        """
        return self._sums(np.ones(len(rows), np.float32), codes, rows, num_codes)

    def _sums(self, values: Float32, codes: Int64, rows: Int64, num_codes: int) -> Float64:
        from scipy import sparse  # noqa: PLC0415 - an optional dependency; reports are read without it

        # Sparse, so that no draws are copied and the number of codes costs nothing.
        of_texts = sparse.csr_array((values, (codes, rows)), shape=(num_codes, len(self._times)))
        return np.asarray(of_texts @ self._times, np.float64)
