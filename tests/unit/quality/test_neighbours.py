"""Nearest neighbours in blocks are those of the whole matrix, and what they vote for."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.quality.neighbours import find_neighbours, majority
from pipeline.records.batches import Float32
from tests.unit.quality.made import noise, unit


@given(
    num_rows=st.integers(2, 300),
    k=st.integers(1, 70),
    block_bytes=st.sampled_from([1, 5_000, 1 << 20]),
    seed=st.integers(0, 9),
)
def test_blocks_find_what_sorting_the_whole_matrix_finds(num_rows: int, k: int, block_bytes: int, seed: int) -> None:
    # Few values, so that many similarities are exactly equal.
    vectors = np.random.default_rng(seed).integers(-1, 2, (num_rows, 4)).astype(np.float32)
    found = find_neighbours(vectors, k, block_bytes=block_bytes)
    similarities = vectors @ vectors.T
    np.fill_diagonal(similarities, -np.inf)
    expected = np.argsort(-similarities, axis=1, kind="stable")[:, : min(k, num_rows - 1)]
    assert np.array_equal(found.rows, expected)
    assert np.array_equal(found.similarities, np.take_along_axis(similarities, expected, axis=1))


def test_a_row_is_not_its_own_neighbour_even_among_equal_rows() -> None:
    found = find_neighbours(unit(np.ones((7, 3))), 5)
    assert all(row not in near for row, near in enumerate(found.rows.tolist()))


def test_equally_near_rows_stand_in_their_own_order() -> None:
    found = find_neighbours(unit([[1, 0], [1, 0], [0, 1], [1, 0]]), 3)
    assert found.rows.tolist() == [[1, 3, 2], [0, 3, 2], [0, 1, 3], [0, 1, 2]]


def test_memory_is_bounded_by_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int]] = []
    full = np.full

    def noted(shape: tuple[int, int], value: float, dtype: type) -> Float32:
        sizes.append(shape)
        return full(shape, value, dtype)

    monkeypatch.setattr(np, "full", noted)
    find_neighbours(noise(1_000), 5, block_bytes=100_000)
    assert all(rows * columns * 4 <= 100_000 for rows, columns in sizes)
    assert sizes


@given(votes=st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1, max_size=20))
def test_the_majority_wins_and_among_equals_the_nearest(votes: list[list[int]]) -> None:
    for row, winner in zip(votes, majority(np.array(votes)).tolist(), strict=True):
        counts = Counter(row)
        most = max(counts.values())
        assert winner == next(code for code in row if counts[code] == most)
