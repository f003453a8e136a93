"""Conditions as a Qdrant server's protocol spells them, and which index each of them needs."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from qdrant_client import grpc as qdrant

from pipeline.filters import AnyOf, Between, Condition, During, Equals, HasWords, IsNull, payload_path
from pipeline.stores.points import DEAD, PURGED, STATE_FIELD, VERSION_FIELD


def live(conditions: Sequence[Condition]) -> qdrant.Filter:
    """Returns the filter of live points that meet the conditions."""
    return qdrant.Filter(must=[_condition(condition) for condition in conditions], must_not=[_state(*DEAD)])


def dead() -> qdrant.Filter:
    """Returns the filter of tombstones."""
    return qdrant.Filter(must=[_state(*DEAD)])


def not_newer_tombstones(texts_versions: Iterable[tuple[str, int]]) -> qdrant.Filter:
    """Returns the guard of a write: the tombstones among the ids that are no newer than the given versions.

    For an update filter only: a server in strict mode refuses the range on the version anywhere else.
    """
    return qdrant.Filter(
        should=[
            qdrant.Condition(
                filter=qdrant.Filter(
                    must=[
                        _ids([text]),
                        _state(*DEAD),
                        _field(VERSION_FIELD, range=qdrant.Range(lte=float(version))),
                    ]
                )
            )
            for text, version in texts_versions
        ]
    )


def purged(texts: Sequence[str]) -> qdrant.Filter:
    """Returns the filter of the points among the ids that are marked as purged."""
    return qdrant.Filter(must=[_ids(texts), _state(PURGED)])


def needed_kinds(condition: Condition) -> tuple[str, ...]:
    """Returns the kinds of index of which a server in strict mode wants one; empty where any kind will do.

    By the server's rules (qdrant 1.19, `lib/collection/src/problems/unindexed_field.rs`).
    """
    if isinstance(condition, IsNull):
        return ()
    if isinstance(condition, (Equals, AnyOf)):
        value = condition.value if isinstance(condition, Equals) else condition.values[0]
        if isinstance(value, bool):
            return ("bool",)
        return ("keyword", "uuid") if isinstance(value, str) else ("integer",)
    return {Between: ("integer", "float"), During: ("datetime",), HasWords: ("text",)}[type(condition)]


def _condition(condition: Condition) -> qdrant.Condition:
    path = payload_path(condition.field)
    if isinstance(condition, IsNull):
        empty = qdrant.Condition(is_empty=qdrant.IsEmptyCondition(key=path))
        return qdrant.Condition(filter=qdrant.Filter(must_not=[empty])) if condition.negated else empty
    if isinstance(condition, (Between, During)):
        return _field(path, **_range(condition))
    return _field(path, match=_match(condition))


def _match(condition: Equals | AnyOf | HasWords) -> qdrant.Match:
    if isinstance(condition, HasWords):
        return qdrant.Match(text=condition.text)
    if isinstance(condition, AnyOf):
        return _any_of(condition.values)
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


def _range(bounds: Between | During) -> dict[str, Any]:
    if isinstance(bounds, Between):
        return {"range": qdrant.Range(gt=bounds.gt, gte=bounds.gte, lt=bounds.lt, lte=bounds.lte)}
    times = {name: getattr(bounds, name) for name in ("gt", "gte", "lt", "lte")}
    given = {name: _timestamp(time) for name, time in times.items() if time is not None}
    return {"datetime_range": qdrant.DatetimeRange(**given)}


def _timestamp(time: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp


def _state(*states: str) -> qdrant.Condition:
    return _field(STATE_FIELD, match=_any_of(states))


def _ids(texts: Sequence[str]) -> qdrant.Condition:
    return qdrant.Condition(has_id=qdrant.HasIdCondition(has_id=[qdrant.PointId(uuid=text) for text in texts]))


def _field(key: str, **condition: Any) -> qdrant.Condition:
    return qdrant.Condition(field=qdrant.FieldCondition(key=key, **condition))
