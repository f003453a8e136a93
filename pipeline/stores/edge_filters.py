"""Conditions as Qdrant Edge spells them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import qdrant_edge as edge

from pipeline.filters import AnyOf, Condition, Equals, payload_path
from pipeline.stores.points import DELETED, STATE_FIELD, VERSION_FIELD


def live(conditions: Sequence[Condition]) -> edge.Filter:
    """Returns the filter of live points that meet the conditions."""
    return edge.Filter(must=[_condition(condition) for condition in conditions], must_not=[_dead()])


def tombstones(ids: Sequence[str], versions: Sequence[int]) -> edge.Filter:
    """Returns the filter of the tombstones among the ids that are no newer than the given versions."""
    return edge.Filter(
        should=[
            edge.Filter(
                must=[
                    edge.HasIdCondition({point}),
                    _dead(),
                    edge.FieldCondition(VERSION_FIELD, range=edge.RangeFloat(lte=float(version))),
                ]
            )
            for point, version in zip(ids, versions, strict=True)
        ]
    )


def _dead() -> edge.FieldCondition:
    return edge.FieldCondition(STATE_FIELD, match=edge.MatchValue(DELETED))


def _condition(condition: Condition) -> edge.FieldCondition:
    path = payload_path(condition.field)
    if isinstance(condition, Equals):
        # A numpy bool matches bools; a Python bool would be taken for an integer.
        value: Any = np.bool_(condition.value) if isinstance(condition.value, bool) else condition.value
        return edge.FieldCondition(path, match=edge.MatchValue(value))
    if isinstance(condition, AnyOf):
        values: Any = list(condition.values)
        return edge.FieldCondition(path, match=edge.MatchAny(values))
    bounds = edge.RangeFloat(gt=condition.gt, gte=condition.gte, lt=condition.lt, lte=condition.lte)
    return edge.FieldCondition(path, range=bounds)
