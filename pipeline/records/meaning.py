"""What a topic's configuration makes of texts without a type: cells of CSV, names of folders, decimals.

A cell of CSV is a text. Where the topic compares or counts by a column, it says what the column holds, and its
cells are read as that: see `Meaning`. An empty cell of such a column is null.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pipeline.config.paths import flat_name
from pipeline.config.source import TopicConfig
from pipeline.errors import Reason, RecordError

_INTEGER = re.compile(r"(-?)0*([0-9]+)")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_INTEGERS = range(-(2**63), 2**64)
"""What JSON keeps as an integer, signed or not."""

_MAX_DIGITS = 20

_TRUE = ("true", "t", "yes", "y", "1")
_FALSE = ("false", "f", "no", "n", "0")
_BOOLEANS = dict.fromkeys(_TRUE, True) | dict.fromkeys(_FALSE, False)


class Meaning(StrEnum):
    """What a column of texts holds, because the topic's configuration needs it so."""

    INTEGER = "an integer of 64 bits"
    """`key` with `key_type: integer`, `version` with `version_type: integer`, `schema_version.field`: ASCII digits with
    or without a minus, within what JSON keeps as one (-2^63 to 2^64 - 1). Anything else is rejected."""
    INTEGER_OR_TEXT = "an integer or a text"
    """`version` with another `version_type`, and `delete_when.field` compared with an integer: digits are an integer;
    other texts stay."""
    BOOLEAN = "true or false"
    """`delete_when.field` compared with true or false: true, t, yes, y, 1 and false, f, no, n, 0, in upper or lower
    case. Anything else is rejected."""
    NUMBER = "a number or a text"
    """`delete_when.field` compared with a number that is not whole: what reads as a number is one; other texts stay."""
    NULLABLE = "a text or null"
    """`delete_when.field` compared with null."""


_COUNTED = (Meaning.INTEGER, Meaning.INTEGER_OR_TEXT)


@dataclass(frozen=True, slots=True)
class Expected:
    """What the cells of a column are read as."""

    meaning: Meaning
    reason: Reason = Reason.INVALID_ROW
    """Of a row whose cell holds anything else."""


def expected_by(topic: TopicConfig) -> Mapping[str, Expected]:
    """Returns the columns to which a topic's configuration gives a meaning of their own."""
    found: dict[str, Expected] = {}
    if topic.delete_when is not None and (meaning := _of_marker(topic.delete_when.equals)) is not None:
        found[flat_name(topic.delete_when.field)] = Expected(meaning)
    if topic.schema_version is not None:
        found[flat_name(str(topic.schema_version["field"]))] = Expected(Meaning.INTEGER, Reason.SCHEMA_VERSION)
    if topic.version is not None:
        meaning = Meaning.INTEGER if topic.version_type == "integer" else Meaning.INTEGER_OR_TEXT
        found[flat_name(topic.version)] = Expected(meaning, Reason.INVALID_VERSION)
    for path, kind in zip(topic.key_paths, topic.key_types, strict=False):  # a Kafka key has a type and no path
        if kind == "integer":
            found[flat_name(path)] = Expected(Meaning.INTEGER, Reason.INVALID_KEY)
    return found


def value_of(text: str, expected: Expected) -> Any:
    """Returns what a text means. Raises RecordError where it means nothing of the kind."""
    if not text:
        return None
    meaning = expected.meaning
    found: Any = text
    if meaning in _COUNTED:
        found = int(text) if len(text) < _MAX_DIGITS - 1 and text.isascii() and text.isdigit() else _integer(text)
    elif meaning is Meaning.BOOLEAN:
        found = _BOOLEANS.get(text.lower(), text)
    elif meaning is Meaning.NUMBER:
        found = _number(text)
    if found is text and (meaning is Meaning.INTEGER or meaning is Meaning.BOOLEAN):
        raise RecordError(expected.reason, f"not {meaning}")
    return found


def _of_marker(marker: object) -> Meaning | None:
    if isinstance(marker, bool):
        return Meaning.BOOLEAN
    if isinstance(marker, int):
        return Meaning.INTEGER_OR_TEXT
    if isinstance(marker, float):
        return Meaning.NUMBER
    return Meaning.NULLABLE if marker is None else None


def _integer(text: str) -> int | str:
    """Returns the integer of 64 bits that a text spells, or the text."""
    found = _INTEGER.fullmatch(text)
    if found is None or len(found[2]) > _MAX_DIGITS:
        return text
    number = int(found[1] + found[2])
    return number if number in _INTEGERS else text


def _number(text: str) -> float | str:
    """Returns the finite number that a text spells, or the text."""
    if _NUMBER.fullmatch(text) is None:
        return text
    number = float(text)
    return number if math.isfinite(number) else text
