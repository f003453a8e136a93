"""Conditions as Qdrant Edge spells them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import qdrant_edge as edge

from pipeline.filters import AnyOf, Between, Condition, During, Equals, HasWords, IsNull, payload_path
from pipeline.stores.points import DEAD, STATE_FIELD, VERSION_FIELD


def live(conditions: Sequence[Condition]) -> edge.Filter:
    """Returns the filter of live points that meet the conditions."""
    return edge.Filter(must=[_condition(condition) for condition in conditions], must_not=[_dead()])


def dead() -> edge.Filter:
    """Returns the filter of tombstones."""
    return edge.Filter(must=[_dead()])


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
    states: Any = list(DEAD)
    return edge.FieldCondition(STATE_FIELD, match=edge.MatchAny(states))


def _condition(condition: Condition) -> Any:
    path = payload_path(condition.field)
    if isinstance(condition, IsNull):
        empty = edge.IsEmptyCondition(path)
        return edge.Filter(must_not=[empty]) if condition.negated else empty
    if isinstance(condition, (Between, During)):
        return edge.FieldCondition(path, range=_range(condition))
    return edge.FieldCondition(path, match=_match(condition))


def _match(condition: Equals | AnyOf | HasWords) -> Any:
    if isinstance(condition, HasWords):
        return edge.MatchText(condition.text)
    if isinstance(condition, AnyOf):
        values: Any = list(condition.values)
        return edge.MatchAny(values)
    # A numpy bool matches bools; a Python bool would be taken for an integer.
    value: Any = np.bool_(condition.value) if isinstance(condition.value, bool) else condition.value
    return edge.MatchValue(value)


def _range(bounds: Between | During) -> Any:
    if isinstance(bounds, Between):
        return edge.RangeFloat(gt=bounds.gt, gte=bounds.gte, lt=bounds.lt, lte=bounds.lte)
    times = {name: getattr(bounds, name) for name in ("gt", "gte", "lt", "lte")}
    return edge.RangeDateTime(**{name: time.isoformat() for name, time in times.items() if time is not None})
