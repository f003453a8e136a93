"""Intervals come from counting each text so often, never from measuring again."""

import math

import numpy as np
import pytest

from pipeline.quality.estimates import Estimate, Resampler

ROWS = np.arange(400)


def test_the_first_replicate_is_the_texts_as_they_are() -> None:
    resampler = Resampler(400, replicates=10, seed=0)
    values = np.random.default_rng(1).random(400).astype(np.float32)
    assert resampler.totals(ROWS, values)[0] == pytest.approx(values.sum())
    assert resampler.counts(ROWS, ROWS % 3, 4)[:, 0].tolist() == [134, 133, 133, 0]


def test_counts_and_totals_are_of_the_same_draws() -> None:
    resampler = Resampler(400, replicates=50, seed=0)
    codes = ROWS % 5
    assert np.allclose(resampler.counts(ROWS, codes, 5)[2], resampler.totals(ROWS, (codes == 2).astype(np.float32)))
    assert resampler.counts(ROWS, codes, 5).sum(axis=0).tolist() == [400] * 51


def test_rows_are_counted_by_their_own_draws() -> None:
    resampler = Resampler(400, replicates=50, seed=0)
    every = resampler.counts(ROWS, ROWS, 400)
    some = np.array([7, 300])
    assert np.array_equal(resampler.counts(some, np.array([1, 0]), 2), every[[300, 7]])


def test_the_interval_of_a_share_is_that_of_the_binomial_distribution() -> None:
    resampler = Resampler(400, replicates=2_000, seed=0)
    share = Estimate.of(resampler.totals(ROWS, (ROWS < 100).astype(np.float32)) / 400)
    error = math.sqrt(0.25 * 0.75 / 400)
    assert share.value == 0.25
    assert share.low == pytest.approx(0.25 - 1.96 * error, abs=0.006)
    assert share.high == pytest.approx(0.25 + 1.96 * error, abs=0.006)


def test_equal_seeds_draw_equally() -> None:
    first, again, other = (Resampler(400, replicates=5, seed=seed).counts(ROWS, ROWS, 400) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_draws_on_which_a_figure_is_undefined_say_nothing() -> None:
    assert Estimate.of(np.array([0.5, np.nan, 0.4, 0.4])) == Estimate(0.5, 0.4, 0.4)
    undefined = Estimate.of(np.array([0.5, np.nan]))
    assert undefined.value == 0.5
    assert math.isnan(undefined.low)
