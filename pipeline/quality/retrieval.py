"""How well queries find what they should, and whether an instruction moves what it should."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.quality.estimates import Estimate, Float64, Resampler
from pipeline.quality.neighbours import BLOCK_BYTES
from pipeline.records.batches import Float32, Int64


@dataclass(frozen=True, slots=True)
class Retrieval:
    """How well the queries of a task find their relevant records."""

    k: int
    num_queries: int
    num_records: int
    recall: Estimate
    """Mean over queries of the share of the relevant records that are among the first k."""
    ndcg: Estimate
    """Mean over queries of nDCG@k: a relevant record at rank r counts 1 / log2(r + 1), against the best order."""


@dataclass(frozen=True, slots=True)
class RankChange:
    """Whether records that an instruction makes irrelevant fall."""

    num_queries: int
    p_mrr: Estimate
    """Mean over queries, -1 to 1: 0 where the ranks stay, above 0 where the records fall, below where they rise."""


def find_ranks(
    queries: Float32, records: Float32, wanted: Sequence[Int64], *, block_bytes: int = BLOCK_BYTES
) -> list[Int64]:
    """Returns the rank, from 1, of each wanted record among all records; of equally near ones the earlier leads.

    Args:
        queries: Unit vectors, (q, d).
        records: Unit vectors, (n, d).
        wanted: Places in `records`, for each query.
        block_bytes: Bound on the similarities held at once; a block has at least one query.
    """
    per_block = max(1, block_bytes // max(1, len(records) * queries.itemsize))
    ranks: list[Int64] = []
    for begin in range(0, len(queries), per_block):
        block = queries[begin : begin + per_block] @ records.T
        ranks += [_ranks(row, places) for row, places in zip(block, wanted[begin : begin + per_block], strict=True)]
    return ranks


def measure_retrieval(
    queries: Float32, records: Float32, relevant: Sequence[Int64], k: int, resampler: Resampler
) -> Retrieval:
    """Returns recall@k and nDCG@k.

    Args:
        queries: Unit vectors, (q, d).
        records: Unit vectors, (n, d).
        relevant: Places in `records` of what each query should find, each at least one, none twice.
        k: Ranks that count.
        resampler: Draws of the queries.
    """
    gains = 1 / np.log2(np.arange(2, k + 2))
    best = np.cumsum(gains)
    recall, ndcg = np.empty(len(queries), np.float32), np.empty(len(queries), np.float32)
    for query, ranks in enumerate(find_ranks(queries, records, relevant)):
        found = ranks[ranks <= k]
        recall[query] = len(found) / len(ranks)
        ndcg[query] = gains[found - 1].sum() / best[min(len(ranks), k) - 1]
    return Retrieval(
        k, len(queries), len(records), Estimate.of(_means(recall, resampler)), Estimate.of(_means(ndcg, resampler))
    )


def measure_rank_change(
    before: Float32, after: Float32, records: Float32, dropped: Sequence[Int64], resampler: Resampler
) -> RankChange:
    """Returns p-MRR (Weller et al., "FollowIR", NAACL 2025) of queries asked under two instructions.

    A record at rank b before and a after counts 1 - b / a where it fell, and a / b - 1 where it rose.

    Args:
        before: The queries under the instruction that wants the records, (q, d).
        after: The same queries under the one that does not, (q, d).
        records: Unit vectors, (n, d).
        dropped: Places in `records` of what the second instruction makes irrelevant, each at least one.
        resampler: Draws of the queries.
    """
    ranks_before, ranks_after = find_ranks(before, records, dropped), find_ranks(after, records, dropped)
    changes = np.array(
        [_change(old, new).mean() for old, new in zip(ranks_before, ranks_after, strict=True)], np.float32
    )
    return RankChange(len(before), Estimate.of(_means(changes, resampler)))


def places_of(places: Mapping[str, int], wanted: Sequence[Sequence[str]]) -> tuple[list[Int64], list[str]]:
    """Returns the places of each query's keys, each once and rising, and the keys that have none.

    Args:
        places: Place of each key's record; equal records may share one.
        wanted: Keys of each query.
    """
    unknown = sorted({key for query in wanted for key in query} - places.keys())
    found = [sorted({places[key] for key in query if key in places}) for query in wanted]
    return [np.array(query, np.int64) for query in found], unknown


def _ranks(similarities: Float32, places: Int64) -> Int64:
    own = similarities[places, None]
    nearer = (similarities > own).sum(axis=1)
    earlier = [np.count_nonzero(similarities[:place] == similarities[place]) for place in places.tolist()]
    return np.asarray(nearer + np.array(earlier, np.int64) + 1, np.int64)


def _change(before: Int64, after: Int64) -> Float64:
    return np.where(after >= before, 1 - before / after, after / before - 1)


def _means(values: Float32, resampler: Resampler) -> Float64:
    rows = np.arange(len(values))
    return resampler.totals(rows, values) / len(values)
