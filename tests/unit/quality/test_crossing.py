"""Two labels held against each other on a sample in which neither tells anything of the other."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.quality.crossing import MIN_CELL, cramers_v, cross
from pipeline.quality.estimates import Resampler
from pipeline.quality.pairs import Pair, Side, measure_pair
from pipeline.records.batches import Float32, Int64
from tests.unit.quality.made import around, crossed, label, noise, unit

FIRST, SECOND = crossed(3, 4, 20)


def measure(first: tuple[Int64, Float32], second: tuple[Int64, Float32]) -> Pair:
    """Of codes and vectors of two tasks."""
    return measure_pair(
        Side("one", label("a", first[0]), first[1]),
        Side("two", label("b", second[0]), second[1]),
        Resampler(len(first[0]), replicates=200, seed=0),
        k=5,
        seed=0,
    )


@given(st.lists(st.integers(0, 12), min_size=12, max_size=12), st.integers(0, 3))
def test_every_frequent_combination_is_equally_often_in_the_sample(cells: list[int], seed: int) -> None:
    cells = [count if number not in {0, 5} else MIN_CELL + count for number, count in enumerate(cells)]
    codes = np.repeat(np.arange(12), cells)
    crossing = cross(label("a", codes // 4), label("b", codes % 4), seed=seed)
    found = Counter(codes[crossing.rows].tolist())
    frequent = {cell for cell, count in enumerate(cells) if count >= MIN_CELL}
    if crossing.reason is None:
        assert found == dict.fromkeys(frequent, min(cells[cell] for cell in frequent))
    else:
        assert not found
    rare = {
        (f"a-{cell // 4:02}", f"b-{cell % 4:02}", count) for cell, count in enumerate(cells) if 0 < count < MIN_CELL
    }
    assert set(crossing.thin) == rare


def test_a_sample_is_bounded() -> None:
    crossing = cross(label("a", FIRST), label("b", SECOND), seed=0, max_texts=100)
    assert (crossing.per_cell, len(crossing.rows)) == (8, 96)


def test_which_texts_are_drawn_depends_on_the_seed_and_not_on_the_order_of_the_labels() -> None:
    first, second = label("a", FIRST), label("b", SECOND)
    drawn = cross(first, second, seed=0, max_texts=100).rows
    assert np.array_equal(drawn, cross(first, second, seed=0, max_texts=100).rows)
    assert not np.array_equal(drawn, cross(first, second, seed=1, max_texts=100).rows)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ([[5, 5], [5, 5]], 0),
        ([[7, 0], [0, 3]], 1),
        ([[5, 0, 5], [0, 5, 0]], 1),
        ([[10, 20], [30, 5]], 550 / np.sqrt(30 * 35 * 40 * 25)),
        ([[9, 9]], 0),
    ],
)
def test_cramers_v(table: list[list[int]], expected: float) -> None:
    assert cramers_v(np.array(table)) == pytest.approx(expected, abs=1e-3)


def test_labels_that_are_one_label_cannot_be_held_against_each_other() -> None:
    crossing = cross(label("a", FIRST), label("b", 2 - FIRST), seed=0)
    assert crossing.reason is not None
    assert "each value of one goes with one value of the other" in crossing.reason
    assert crossing.cramers_v == pytest.approx(1)


def test_one_frequent_value_is_not_enough() -> None:
    crossing = cross(label("a", np.where(np.arange(240) < 4, 1, 0)), label("b", SECOND), seed=0)
    assert crossing.reason is not None
    assert "fewer than two values of 'a'" in crossing.reason


def test_instructions_that_bring_out_their_own_label_separate_fully() -> None:
    pair = measure((FIRST, around(FIRST)), (SECOND, around(SECOND, seed=5)))
    for found in pair.report.separations:
        assert found.own_kappa.value > 0.95
        assert abs(found.other_kappa.value) < 0.2
        assert found.difference.low > 0.7
        assert found.difference.value == pytest.approx(found.own_kappa.value - found.other_kappa.value)


def test_a_model_that_ignores_instructions_separates_nothing_however_good_it_is() -> None:
    both = unit(np.hstack([around(FIRST), 0.7 * around(SECOND, seed=5)]))
    pair = measure((FIRST, both), (SECOND, both))
    assert np.array_equal(pair.differences[0], -pair.differences[1])
    assert pair.report.separations[0].own_kappa.value > 0.9


def test_labels_that_go_together_flatter_no_instruction() -> None:
    # The second label mostly follows the first one; vectors know the first one only.
    random = np.random.default_rng(0)
    first = random.integers(0, 3, 3_000)
    second = np.where(random.random(3_000) < 0.8, first, random.integers(0, 3, 3_000))
    vectors = around(first)
    pair = measure((first, vectors), (second, vectors))
    assert pair.report.cramers_v > 0.7
    assert pair.report.sample_cramers_v == 0
    of_first, of_second = pair.report.separations
    assert abs(of_first.other_kappa.value) < 0.1
    assert of_first.difference.low > 0.8
    assert of_second.difference.high < -0.8


def test_random_vectors_separate_nothing() -> None:
    pair = measure((FIRST, noise(240, seed=1)), (SECOND, noise(240, seed=2)))
    assert all(found.difference.low < 0 < found.difference.high for found in pair.report.separations)


def test_a_pair_that_cannot_be_measured_says_why_and_has_no_figures() -> None:
    pair = measure((FIRST, noise(240)), (FIRST, noise(240)))
    assert pair.report.reason is not None
    assert (pair.report.separations, pair.report.flip, pair.differences, pair.flip_rate) == ((), None, (), None)
