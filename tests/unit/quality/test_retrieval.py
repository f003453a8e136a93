"""recall@k, nDCG@k and p-MRR, held against sums done by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from pipeline.quality.estimates import Resampler
from pipeline.quality.retrieval import find_ranks, measure_rank_change, measure_retrieval, places_of
from pipeline.records.batches import Float32, Int64
from tests.unit.quality.made import noise, unit


def line(*similarities: float) -> Float32:
    """Records at these similarities to the query (1, 0)."""
    return np.array([[value, np.sqrt(1 - value * value)] for value in similarities], np.float32)


def places(*lists: list[int]) -> list[Int64]:
    return [np.array(found, np.int64) for found in lists]


ONE = Resampler(1, replicates=10, seed=0)
QUERY = unit([[1, 0]])


@given(seed=st.integers(0, 20), block_bytes=st.sampled_from([1, 1 << 20]))
def test_ranks_count_what_is_nearer_and_of_equals_what_stands_before(seed: int, block_bytes: int) -> None:
    random = np.random.default_rng(seed)
    queries = random.integers(-1, 2, (5, 3)).astype(np.float32)
    records = random.integers(-1, 2, (30, 3)).astype(np.float32)
    every = [np.arange(30)] * 5
    for query, ranks in zip(queries, find_ranks(queries, records, every, block_bytes=block_bytes), strict=True):
        order = np.argsort(-(records @ query), kind="stable")
        assert ranks[order].tolist() == list(range(1, 31))


def test_recall_and_ndcg_by_hand() -> None:
    records = line(0.9, 0.8, 0.7, 0.6, 0.5)
    found = measure_retrieval(QUERY, records, places([1, 4]), 3, ONE)
    assert found.recall.value == 0.5
    assert found.ndcg.value == pytest.approx((1 / np.log2(3)) / (1 + 1 / np.log2(3)))


def test_ndcg_is_that_of_the_reference() -> None:
    queries, records = noise(20, 16, 1), noise(100, 16, 2)
    relevant = [np.arange(number, number + 5) for number in range(20)]
    truth = np.zeros((20, 100))
    for row, found in zip(truth, relevant, strict=True):
        row[found] = 1
    measured = measure_retrieval(queries, records, relevant, 10, Resampler(20, replicates=10, seed=0))
    assert measured.ndcg.value == pytest.approx(ndcg_score(truth, queries @ records.T, k=10))


def test_more_relevant_records_than_ranks_can_still_be_perfect_by_ndcg() -> None:
    found = measure_retrieval(QUERY, line(0.9, 0.8, 0.7), places([0, 1, 2]), 2, ONE)
    assert found.ndcg.value == pytest.approx(1)
    assert found.recall.value == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("after", "expected"),
    [(unit([[1, 0]]), 0.0), (unit([[-1, 0.001]]), 1 - 1 / 4)],
)
def test_p_mrr_of_a_record_that_stays_or_falls(after: Float32, expected: float) -> None:
    records = line(0.9, 0.3, 0.2, 0.1)
    assert measure_rank_change(QUERY, after, records, places([0]), ONE).p_mrr.value == pytest.approx(expected)


def test_p_mrr_of_a_record_that_rises_is_negative() -> None:
    records = line(0.9, 0.3, 0.2, 0.1)
    change = measure_rank_change(QUERY, unit([[-1, 0.001]]), records, places([3]), ONE)
    assert change.p_mrr.value == pytest.approx(1 / 4 - 1)


def test_p_mrr_is_the_mean_over_queries_of_the_mean_over_records() -> None:
    records = line(0.9, 0.3, 0.2, 0.1)
    before, after = np.vstack([QUERY, QUERY]), np.vstack([unit([[-1, 0.001]]), QUERY])
    change = measure_rank_change(before, after, records, places([0, 3], [0]), Resampler(2, replicates=10, seed=0))
    assert change.p_mrr.value == pytest.approx(((0.75 - 0.75) / 2 + 0) / 2)


def test_keys_become_places_and_unknown_ones_are_named() -> None:
    found, unknown = places_of({"a": 0, "b": 1, "c": 2, "copy of a": 0}, [["c", "a", "copy of a"], ["x", "b"], ["y"]])
    assert [one.tolist() for one in found] == [[0, 2], [1], []]
    assert unknown == ["x", "y"]
