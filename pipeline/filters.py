"""Filters on payload fields, parsed once into the three conditions that every store can express."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ConfigError, nearest

Filters = Mapping[str, Any]
"""Payload field -> a value to equal, a list of values to match any of, or {gt, gte, lt, lte: number}."""

MAX_INT = 2**63 - 1
BOUNDS = ("gt", "gte", "lt", "lte")
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


Condition = Equals | AnyOf | Between


def parse_filters(filters: Filters) -> list[Condition]:
    """Returns the conditions, all of which a point must meet.

    Raises ConfigError, naming the field and what was expected, for anything else than the three forms.
    """
    return [_condition(field, value) for field, value in filters.items()]


def payload_path(field: str) -> str:
    """Returns a stored payload field as Qdrant's JSON path: payloads are flat, so a dot is part of the name."""
    return field if _PLAIN_KEY.fullmatch(field) else f'"{field}"'


def _condition(field: str, value: object) -> Condition:
    if not field or '"' in field:
        raise ConfigError(f"filter on {field!r}: not the name of a payload field")
    if isinstance(value, dict):
        return _between(field, value)
    if isinstance(value, (list, tuple)):
        return _any_of(field, value)
    return Equals(field, _scalar(field, value))


def _any_of(field: str, values: Sequence[object]) -> AnyOf:
    if not values:
        raise ConfigError(f"filter on {field!r}: an empty list matches nothing")
    if all(isinstance(value, str) for value in values):
        return AnyOf(field, tuple(str(value) for value in values))
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return AnyOf(field, tuple(int(_scalar(field, value)) for value in values))
    raise ConfigError(f"filter on {field!r}: a list must hold strings only, or integers only")


def _between(field: str, bounds: dict[Any, Any]) -> Between:
    if not bounds:
        raise ConfigError(f"filter on {field!r}: a range needs one of {', '.join(BOUNDS)}")
    for name, bound in bounds.items():
        if name not in BOUNDS:
            raise ConfigError(
                f"filter on {field!r}: no bound {name!r}; expected {', '.join(BOUNDS)}.{nearest(str(name), BOUNDS)}"
            )
        if isinstance(bound, bool) or not isinstance(bound, (int, float)) or not math.isfinite(bound):
            raise ConfigError(f"filter on {field!r}: {name} must be a finite number")
    return Between(field, **{name: float(bound) for name, bound in bounds.items()})


def _scalar(field: str, value: object) -> str | int | bool:
    if isinstance(value, int) and not -MAX_INT <= value <= MAX_INT:
        raise ConfigError(f"filter on {field!r}: the integer does not fit into 64 bits")
    if isinstance(value, (str, int)):
        return value
    raise ConfigError(
        f"filter on {field!r}: expected a string, an integer, a bool, a list or a range, "
        f"got {type(value).__name__}; a float is matched with {{gte: …, lte: …}}"
    )
