"""Conditions as a Qdrant server's protocol spells them."""

from collections.abc import Iterable, Sequence

from qdrant_client import grpc as qdrant

from pipeline.filters import AnyOf, Condition, Equals, payload_path
from pipeline.stores.points import DELETED, STATE_FIELD, VERSION_FIELD


def live(conditions: Sequence[Condition]) -> qdrant.Filter:
    """Returns the filter of live points that meet the conditions."""
    return qdrant.Filter(must=[_condition(condition) for condition in conditions], must_not=[_dead()])


def tombstones(texts_versions: Iterable[tuple[str, int]]) -> qdrant.Filter:
    """Returns the filter of the tombstones among the ids that are no newer than the given versions."""
    return qdrant.Filter(
        should=[
            qdrant.Condition(
                filter=qdrant.Filter(
                    must=[
                        qdrant.Condition(has_id=qdrant.HasIdCondition(has_id=[qdrant.PointId(uuid=text)])),
                        _dead(),
                        _field(VERSION_FIELD, range=qdrant.Range(lte=float(version))),
                    ]
                )
            )
            for text, version in texts_versions
        ]
    )


def _dead() -> qdrant.Condition:
    return _field(STATE_FIELD, match=qdrant.Match(keyword=DELETED))


def _condition(condition: Condition) -> qdrant.Condition:
    path = payload_path(condition.field)
    if isinstance(condition, Equals):
        return _field(path, match=_equals(condition))
    if isinstance(condition, AnyOf):
        return _field(path, match=_any_of(condition.values))
    bounds = qdrant.Range(gt=condition.gt, gte=condition.gte, lt=condition.lt, lte=condition.lte)
    return _field(path, range=bounds)


def _equals(condition: Equals) -> qdrant.Match:
    value = condition.value
    if isinstance(value, bool):
        return qdrant.Match(boolean=value)
    return qdrant.Match(integer=value) if isinstance(value, int) else qdrant.Match(keyword=value)


def _any_of(values: tuple[str, ...] | tuple[int, ...]) -> qdrant.Match:
    texts = [value for value in values if isinstance(value, str)]
    if texts:
        return qdrant.Match(keywords=qdrant.RepeatedStrings(strings=texts))
    numbers = [value for value in values if isinstance(value, int)]
    return qdrant.Match(integers=qdrant.RepeatedIntegers(integers=numbers))


def _field(key: str, match: qdrant.Match | None = None, range: qdrant.Range | None = None) -> qdrant.Condition:  # noqa: A002 - the protocol's word
    return qdrant.Condition(field=qdrant.FieldCondition(key=key, match=match, range=range))
