"""Queries of an evaluation: what retrieval tasks find, and what a changed instruction changes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.context import Context
from pipeline.errors import ConfigError
from pipeline.quality.estimates import Resampler
from pipeline.quality.evaluation import RetrievalReport
from pipeline.quality.queries import Query
from pipeline.quality.retrieval import RankChange, measure_rank_change, measure_retrieval, places_of
from pipeline.records.batches import Float32, Int64
from pipeline.usecases.embed import embed
from pipeline.usecases.labelled import Material
from pipeline.usecases.variants import Variants

_REPLICATES = 1_000


@dataclass(frozen=True, slots=True)
class QueryPlan:
    """Queries, and the task of the configuration under which each is embedded."""

    queries: Sequence[Query]
    names: Mapping[tuple[str, str | None], str]
    """Task and instruction -> name of a task."""

    @classmethod
    def of(cls, queries: Sequence[Query], variants: Variants) -> "QueryPlan":
        """Returns a plan; instructions that queries bring along become variants of their task."""
        names: dict[tuple[str, str | None], str] = {}
        for query in queries:
            kind = (query.task, query.instruction)
            if kind not in names:
                own = query.instruction is None
                names[kind] = query.task if own else variants.add_query_instruction(*kind).name  # type: ignore[arg-type]
        return cls(queries, names)


def measure_queries(
    context: Context, plan: QueryPlan, material: Material, k: int, seed: int
) -> Iterator[RetrievalReport]:
    """Yields the figures of each task that has queries.

    Raises ConfigError for a task none of whose queries has a relevant record in the input.
    """
    for task in dict.fromkeys(query.task for query in plan.queries):
        queries = [query for query in plan.queries if query.task == task]
        places, unknown = places_of(material.places, [query.relevant for query in queries])
        known = [number for number, found in enumerate(places) if len(found)]
        if not known:
            raise ConfigError(f"--queries: no record of the input has one of the keys named as relevant for {task!r}")
        queries, places = [queries[number] for number in known], [places[number] for number in known]
        records = np.nan_to_num(embed(context, task, material.texts))
        asked = _asked(context, plan, queries)
        resampler = Resampler(len(queries), replicates=_REPLICATES, seed=seed)
        found = measure_retrieval(asked, records, places, k, resampler)
        yield RetrievalReport(task, found, _change(queries, places, asked, records, seed), len(unknown))


def _asked(context: Context, plan: QueryPlan, queries: Sequence[Query]) -> Float32:
    """The queries' vectors, each under its own instruction."""
    rows: dict[int, Float32] = {}
    for kind, name in plan.names.items():
        chosen = [number for number, query in enumerate(queries) if (query.task, query.instruction) == kind]
        if chosen:
            vectors = embed(context, name, [queries[number].text for number in chosen], as_queries=True)
            rows |= dict(zip(chosen, np.nan_to_num(vectors), strict=True))
    return np.stack([rows[number] for number in range(len(queries))])


def _change(
    queries: Sequence[Query], places: Sequence[Int64], asked: Float32, records: Float32, seed: int
) -> RankChange | None:
    """Compares each query text's first instruction with its others."""
    first: dict[str, int] = {}
    pairs: list[tuple[int, int, Int64]] = []
    for number, query in enumerate(queries):
        start = first.setdefault(query.text, number)
        dropped = np.setdiff1d(places[start], places[number])
        if queries[start].instruction != query.instruction and len(dropped):
            pairs.append((start, number, dropped))
    if not pairs:
        return None
    before, after, dropped_of = zip(*pairs, strict=True)
    resampler = Resampler(len(pairs), replicates=_REPLICATES, seed=seed)
    return measure_rank_change(asked[list(before)], asked[list(after)], records, list(dropped_of), resampler)
