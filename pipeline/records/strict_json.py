"""Decides which bytes are one JSON object that means the same to every reader, and why others are not."""

import json
import re
from collections.abc import Iterable
from typing import Any

import orjson

from pipeline.errors import Reason, RecordError

MAX_SPELT = 254
"""Levels that orjson writes; it reads 1,024."""

_BOM = b"\xef\xbb\xbf"

_FOREIGN_STARTS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"\xff\xfe|\xfe\xff|[^\0]\0[^\0]\0|\0[^\0]\0[^\0]"), "UTF-16 text"),
    (re.compile(rb"\0.{4}", re.DOTALL), "a schema registry's magic byte"),
    (re.compile(rb"\x80[\x00-\x06]"), "a pickle"),
    (re.compile(rb"\x1f\x8b|\x28\xb5\x2f\xfd|\x04\x22\x4d\x18"), "compressed bytes"),
)
"""What other formats begin with, so that the dead letter says more than "invalid"."""


_SPACED_COLONS = (b" :", b"\t:", b"\n:", b"\r:")


class _RepeatedNameError(Exception):
    """An object has a name twice."""


def _refuse_repeated_names(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) != len(pairs):
        raise _RepeatedNameError


_NAME_SCANNER = json.JSONDecoder(object_pairs_hook=_refuse_repeated_names)


def parse_object(value: bytes, max_depth: int) -> dict[str, Any]:
    """Returns the JSON object that `value` holds.

    Strict where readers differ: repeated names (at any depth), NaN and Infinity, numbers beyond a
    float64, lone surrogates, control characters in strings and invalid UTF-8 are refused. A UTF-8
    byte order mark is dropped. Numbers keep Python's types, except that integers outside
    [-2^63, 2^64) arrive as floats.

    Raises:
        RecordError: with the reason; never with a part of the value.
    """
    value = value.removeprefix(_BOM)
    try:
        parsed = orjson.loads(value)
    except orjson.JSONDecodeError:
        raise _explain(value) from None
    if type(parsed) is not dict:
        raise RecordError(Reason.NOT_AN_OBJECT, f"a JSON {_kind(parsed)} instead of an object")
    # Each level of nesting has a bracket of its own, so few brackets mean little depth.
    if value.count(b"{") + value.count(b"[") > max_depth and _deeper_than(parsed, max_depth):
        raise RecordError(Reason.TOO_DEEP, f"nested deeper than {max_depth}")
    if _is_flat(value, len(parsed)):
        return parsed
    # orjson keeps the last of repeated names and has no switch for it; the scanner of the standard
    # library calls back once per object (a few microseconds for a typical record).
    try:
        _NAME_SCANNER.decode(value.decode())
    except _RepeatedNameError:
        raise RecordError(Reason.DUPLICATE_FIELD, "an object has the same name twice") from None
    return parsed


def _is_flat(value: bytes, num_names: int) -> bool:
    """Whether JSON is one object of so many names and nothing else could be a name; else it may be all the same.

    A name ends in a quote, white space and a colon. Without that white space, no more places than names can look so.
    """
    return (
        value.count(b"{") == 1 and value.count(b'":') == num_names and not any(sign in value for sign in _SPACED_COLONS)
    )


def spelt(value: Any) -> bytes:
    """Returns the JSON of a value that was parsed. Raises RecordError where it is nested deeper than can be written."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        raise RecordError(
            Reason.TOO_DEEP, f"nested deeper than {MAX_SPELT}, which is as deep as JSON is written"
        ) from None


def _deeper_than(parsed: Any, max_depth: int) -> bool:
    level: list[Any] = [parsed]
    for _ in range(max_depth):
        level = [child for item in level for child in _children(item) if isinstance(child, dict | list)]
        if not level:
            return False
    return True


def _children(item: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return item.values() if isinstance(item, dict) else item


def _kind(parsed: Any) -> str:
    if parsed is None:
        return "null"
    return {list: "array", str: "string", bool: "boolean"}.get(type(parsed), "number")


def _explain(value: bytes) -> RecordError:
    """Finds the reason why orjson refused `value`. Slow, and only for records that are lost anyway."""
    for start, name in _FOREIGN_STARTS:
        if start.match(value):
            return RecordError(Reason.WRONG_FORMAT, f"begins like {name}, not like JSON")
    reason = Reason.INVALID_JSON
    detail = "NaN, Infinity, or a number beyond a float64"
    try:
        # The lenient reader of the standard library tells syntax from the finer rules.
        json.dumps(json.loads(value.decode()), ensure_ascii=False).encode()
    except UnicodeDecodeError:
        detail = "not UTF-8"
    except UnicodeEncodeError:
        reason, detail = Reason.INVALID_TEXT, "a lone surrogate escape"
    except RecursionError:
        reason, detail = Reason.TOO_DEEP, "nested deeper than any reader follows"
    except json.JSONDecodeError as error:
        detail = f"line {error.lineno} column {error.colno}"
    except ValueError:  # Python's own limit on the digits of one integer
        detail = "a number with thousands of digits"
    return RecordError(reason, detail)
