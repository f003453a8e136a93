"""Flip rate: 0 for vectors that do not depend on the instruction, a quarter at random, 1 for perfect ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.quality.crossing import Crossing, cross
from pipeline.quality.estimates import Resampler
from pipeline.quality.triplets import PER_ANCHOR, Flips, Triplets, draw_triplets, find_flips
from pipeline.records.batches import Float32
from tests.unit.quality.made import around, crossed, label, noise, unit

FIRST, SECOND = crossed(3, 4, 30)
CROSSING = cross(label("a", FIRST), label("b", SECOND), seed=0)
RESAMPLER = Resampler(360, replicates=200, seed=0)


def flips(first: Float32, second: Float32, crossing: Crossing = CROSSING) -> Flips:
    return find_flips(draw_triplets(crossing, seed=0), first, second, RESAMPLER)


@given(num_first=st.integers(2, 4), num_second=st.integers(2, 4), seed=st.integers(0, 5))
def test_triplets_are_crossed(num_first: int, num_second: int, seed: int) -> None:
    a, b = crossed(num_first, num_second, 6, seed=seed)
    triplets = draw_triplets(cross(label("a", a), label("b", b), seed=seed), seed=seed)
    anchors = triplets.anchors[:, None]
    assert sorted(triplets.anchors.tolist()) == list(range(len(a)))
    assert (a[triplets.same_first] == a[anchors]).all()
    assert (b[triplets.same_first] != b[anchors]).all()
    assert (b[triplets.same_second] == b[anchors]).all()
    assert (a[triplets.same_second] != a[anchors]).all()


def test_vectors_that_ignore_the_instruction_never_flip() -> None:
    both = unit(np.hstack([around(FIRST), around(SECOND, seed=5)]))
    for vectors in (both, noise(360), unit(np.ones((360, 8)))):
        assert not flips(vectors, vectors).rate.any()


def test_random_vectors_flip_a_quarter_of_the_triplets() -> None:
    found = flips(noise(360, seed=1), noise(360, seed=2))
    assert found.rate[0] == pytest.approx(0.25, abs=0.03)
    assert found.first[0] == pytest.approx(0.5, abs=0.04)
    assert found.second[0] == pytest.approx(0.5, abs=0.04)


def test_vectors_that_follow_both_instructions_flip_every_triplet() -> None:
    found = flips(around(FIRST), around(SECOND, seed=5))
    assert found.rate[0] > 0.97
    assert flips(around(SECOND), around(FIRST, seed=5)).rate[0] < 0.03


def test_equally_near_is_not_nearer() -> None:
    same = unit(np.ones((360, 8)))
    found = flips(same, around(SECOND))
    assert found.first[0] == 0
    assert found.second[0] > 0.97


def test_the_rate_is_the_mean_over_anchors_of_the_share_among_their_triplets() -> None:
    a, p, n = 0, 1, 2
    some = np.full((1, PER_ANCHOR), p)
    some[0, : PER_ANCHOR // 4] = n  # p and n are one text here: neither is nearer
    triplets = Triplets(np.array([a]), some, np.full((1, PER_ANCHOR), n))
    first = unit([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    second = unit([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1]])
    found = find_flips(triplets, first, second, Resampler(3, replicates=5, seed=0))
    assert found.rate[0] == pytest.approx(0.75)


def test_dimensions_of_the_two_tasks_may_differ() -> None:
    assert flips(around(FIRST, dimension=16), around(SECOND, dimension=48)).rate[0] > 0.9


def test_an_anchor_without_a_counterpart_is_left_out() -> None:
    # (0, 0) (0, 1) (1, 1): only texts of (0, 1) have both a p, in (0, 0), and an n, in (1, 1).
    a, b = np.repeat([0, 0, 1], 10), np.repeat([0, 1, 1], 10)
    triplets = draw_triplets(cross(label("a", a), label("b", b), seed=0), seed=0)
    assert triplets.anchors.tolist() == list(range(10, 20))
