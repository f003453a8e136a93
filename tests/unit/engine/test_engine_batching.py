"""Packing loses nothing, doubles nothing and keeps the budget."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.batching import band_groups, exact_length_groups, flat_packs, halves

LENGTHS = st.lists(st.integers(1, 300), max_size=60).map(lambda values: np.array(values, np.int32))
BUDGETS = st.integers(1, 2_000)


def in_one(groups: list[np.ndarray]) -> list[int]:
    return sorted(int(i) for group in groups for i in group)


@given(LENGTHS, BUDGETS)
def test_exact_groups_hold_every_item_once_one_length_each_within_the_budget(lengths: np.ndarray, budget: int) -> None:
    groups = exact_length_groups(lengths, budget)
    assert in_one(groups) == list(range(len(lengths)))
    for group in groups:
        assert len(set(lengths[group])) == 1
        assert len(group) == 1 or lengths[group].sum() <= budget


@given(LENGTHS, BUDGETS, st.integers(0, 64))
def test_a_band_is_no_wider_than_asked_and_its_padded_cost_within_the_budget(
    lengths: np.ndarray, budget: int, spread: int
) -> None:
    groups = band_groups(lengths, budget, spread)
    assert in_one(groups) == list(range(len(lengths)))
    for group in groups:
        assert lengths[group].max() - lengths[group].min() <= spread
        assert len(group) == 1 or lengths[group].max() * len(group) <= budget


@given(LENGTHS, BUDGETS)
def test_flat_packs_hold_every_item_once_and_are_full(lengths: np.ndarray, budget: int) -> None:
    packs = flat_packs(lengths, budget)
    assert in_one(packs) == list(range(len(lengths)))
    for pack, following in pairwise(packs):
        assert len(pack) == 1 or lengths[pack].sum() <= budget
        assert lengths[pack].sum() + lengths[following[0]] > budget


def test_the_longest_items_come_first() -> None:
    groups = exact_length_groups(np.array([3, 9, 3, 5]), 100)
    assert [group.tolist() for group in groups] == [[1], [3], [0, 2]]


def test_halves_keep_order() -> None:
    assert [half.tolist() for half in halves(np.array([4, 1, 7]))] == [[4], [1, 7]]
