"""Filters on payload fields, parsed once into conditions that every store can express.

What a filter may say depends on the field's type (`pipeline.config.payload_fields`); an untyped field takes anything
that some point could hold.
"""

import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pipeline.config.payload_fields import PayloadField, PayloadKind, is_stored_name
from pipeline.errors import ConfigError, nearest
from pipeline.records.characters import is_text
from pipeline.records.times import moment

Filters = Mapping[str, Any]
"""Payload field -> a value to equal, a list of values to match any of, or one of these mappings:
{gt, gte, lt, lte: number or time}, {text: words that all occur}, {is_null: true or false}."""

MAX_INT = 2**63 - 1
BOUNDS = ("gt", "gte", "lt", "lte")
WORDS = "text"
IS_NULL = "is_null"
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Equals:
    """The field equals the value, or is a list that holds it."""

    field: str
    value: str | int | bool


@dataclass(frozen=True, slots=True)
class AnyOf:
    """The field equals one of the values, which are all strings or all integers."""

    field: str
    values: tuple[str, ...] | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Between:
    """The field is a number inside the bounds; None leaves a side open."""

    field: str
    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None


@dataclass(frozen=True, slots=True)
class During:
    """The field is a time inside the bounds, which are in UTC; None leaves a side open."""

    field: str
    gt: datetime | None = None
    gte: datetime | None = None
    lt: datetime | None = None
    lte: datetime | None = None


@dataclass(frozen=True, slots=True)
class HasWords:
    """The field is a text in which all words of `text` occur, upper and lower case alike."""

    field: str
    text: str


@dataclass(frozen=True, slots=True)
class IsNull:
    """The field has no value: it is absent, null or an empty list; with `negated`, it has one."""

    field: str
    negated: bool = False


Condition = Equals | AnyOf | Between | During | HasWords | IsNull

_TAKES: Mapping[PayloadKind | None, str] = {
    "keyword": "a text or a list of texts",
    "uuid": "a UUID or a list of UUIDs",
    "integer": "an integer, a list of integers, or a range {gt, gte, lt, lte}",
    "float": "a number, or a range {gt, gte, lt, lte}",
    "bool": "true or false",
    "datetime": "a time such as 2026-01-31T08:00:00Z, or a range {gt, gte, lt, lte} of times",
    "text": "{text: words to find}",
    None: "a text, an integer, true or false, a list of texts or of integers, or a range {gt, gte, lt, lte}; a float "
    "is matched with {gte: …, lte: …}",
}


class _WrongError(Exception):
    """The value is not of the field's kind."""


def parse_filters(filters: Filters, fields: Mapping[str, PayloadField] | None = None) -> list[Condition]:
    """Returns the conditions, all of which a point must meet.

    Args:
        filters: What was asked for.
        fields: The stored fields by name; one that is not among them is untyped.

    Raises:
        ConfigError: for anything the field cannot be asked. The message names the field, what it is, and what it
            takes; it repeats no value.
    """
    known = fields or {}
    return [
        _condition(name, value, known[name].kind if name in known else None)  # a list field holds values of its kind
        for name, value in filters.items()
    ]


def payload_path(field: str) -> str:
    """Returns a stored payload field as Qdrant's JSON path: payloads are flat, so a dot is part of the name."""
    return field if _PLAIN_KEY.fullmatch(field) else f'"{field}"'


def _condition(field: str, value: object, kind: PayloadKind | None) -> Condition:
    if not is_stored_name(field) or not is_text(field):
        raise ConfigError(f"filter on {field!r}: not the name of a payload field")
    try:
        if isinstance(value, dict):
            return _from_mapping(field, value, kind)
        if isinstance(value, (list, tuple)):
            return _any_of(field, value, kind)
        return _equals(field, value, kind)
    except _WrongError as error:
        is_what = "an untyped field" if kind is None else f"{'an' if kind == 'integer' else 'a'} {kind} field"
        why = f" ({error})" if str(error) else ""
        raise ConfigError(f"filter on {field!r}: {is_what} takes {_TAKES[kind]}, or {{is_null: true}}{why}") from None


def _from_mapping(field: str, wanted: dict[Any, Any], kind: PayloadKind | None) -> Condition:
    if not wanted:
        raise _WrongError("the mapping is empty")
    forms = (*BOUNDS, WORDS, IS_NULL)
    for name in wanted:
        if name not in forms:
            raise _WrongError(f"there is no {str(name)[:32]!r}.{nearest(str(name), forms)}".removesuffix("."))
    if IS_NULL in wanted:
        if len(wanted) > 1 or not isinstance(wanted[IS_NULL], bool):
            raise _WrongError("is_null stands alone and is true or false")
        return IsNull(field, negated=not wanted[IS_NULL])
    if WORDS in wanted:
        words = wanted[WORDS]
        if len(wanted) > 1 or not isinstance(words, str) or not words.strip() or kind not in {"text", None}:
            raise _WrongError
        return HasWords(field, _text(words))
    return _range(field, wanted, kind)


def _range(field: str, bounds: dict[str, object], kind: PayloadKind | None) -> Condition:
    if kind == "datetime":
        return During(field, **{name: _time(bound) for name, bound in bounds.items()})
    if kind not in {"integer", "float", None}:
        raise _WrongError
    return Between(field, **{name: _number(bound) for name, bound in bounds.items()})


def _any_of(field: str, values: list[object] | tuple[object, ...], kind: PayloadKind | None) -> Condition:
    if not values:
        raise _WrongError("an empty list matches nothing")
    if kind == "uuid":
        return AnyOf(field, tuple(_uuid(value) for value in values))
    if kind in {"keyword", None} and all(isinstance(value, str) for value in values):
        return AnyOf(field, tuple(_text(value) for value in values))
    if kind in {"integer", None} and all(isinstance(value, int) for value in values):
        return AnyOf(field, tuple(_integer(value) for value in values))
    raise _WrongError


def _equals(field: str, value: object, kind: PayloadKind | None) -> Condition:
    if kind == "float":
        number = _number(value)
        return Between(field, gte=number, lte=number)
    if kind == "datetime":
        time = _time(value)
        return During(field, gte=time, lte=time)
    return Equals(field, _EXACT[kind](value))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _WrongError
    if not is_text(value):
        raise _WrongError("a text holds a lone surrogate, which is not a character")
    return value


def _uuid(value: object) -> str:
    try:
        return str(UUID(_text(value)))
    except ValueError:
        raise _WrongError("a value is not a UUID") from None


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _WrongError
    if not -MAX_INT <= value <= MAX_INT:
        raise _WrongError("the integer does not fit into 64 bits")
    return value


def _bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise _WrongError
    return value


def _no_value(_value: object) -> str:
    raise _WrongError


def _scalar(value: object) -> str | int | bool:
    if isinstance(value, bool):
        return value
    return _text(value) if isinstance(value, str) else _integer(value)


def _number(value: object) -> float:
    if not isinstance(value, bool) and isinstance(value, (int, float)):
        with suppress(OverflowError):  # of an integer beyond every float
            number = float(value)
            if math.isfinite(number):
                return number
    raise _WrongError("a bound is not a finite number")


def _time(value: object) -> datetime:
    time = moment(value) if isinstance(value, str) else None
    if time is None:
        raise _WrongError("a value is not an RFC 3339 time with a zone, nor a date")
    return time


_EXACT: Mapping[PayloadKind | None, Callable[[object], str | int | bool]] = {
    "keyword": _text,
    "uuid": _uuid,
    "integer": _integer,
    "bool": _bool,
    "text": _no_value,
    None: _scalar,
}
