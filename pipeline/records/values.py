"""Reads keys, versions and texts from parsed fields, by rules that never guess."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.config.paths import split_path
from pipeline.config.source import PLACEHOLDER
from pipeline.errors import Reason, RecordError
from pipeline.records.record import MAX_VERSION

MISSING: Any = object()
"""What `field_at` returns where the record has no such field; null is a value."""

INTEGER = re.compile(r"0|-?[1-9][0-9]{0,39}")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_FILLERS = frozenset("\u115f\u1160\u2800\u3164\uffa0\u034f")
"""Characters that Unicode calls letters or symbols and that show nothing."""


def field_at(fields: dict[str, Any], path: tuple[str, ...]) -> Any:
    """Returns the value under nested names, or MISSING. Lists are not entered.

    A field whose own name is the whole path, dots included, wins over a nested one.
    """
    if len(path) == 1:
        return fields.get(path[0], MISSING)
    if (flat := ".".join(path)) in fields:
        return fields[flat]
    value: Any = fields
    for name in path:
        if type(value) is not dict:
            return MISSING
        value = value.get(name, MISSING)
    return value


def canonical_key(value: Any, key_type: str) -> str:
    """Returns the one spelling of a key field: `s:` and the string as it is, or `i:` and the decimal integer.

    A topic has keys of one type: 1, "1", 1.0 and true are never taken for one key, nor for four.
    Strings are compared byte for byte: nothing is trimmed, folded or normalised.

    Raises:
        RecordError: NO_KEY when the value is missing or null, INVALID_KEY when it has another type.
    """
    if value is MISSING or value is None:
        raise RecordError(Reason.NO_KEY, "the key field is missing or null")
    if key_type == "string":
        if type(value) is str and value:
            return f"s:{value}"
    elif type(value) is int:
        return f"i:{value}"
    found = "an empty string" if value == "" else type(value).__name__
    raise RecordError(Reason.INVALID_KEY, f"expected key_type {key_type}, found {found}")


def canonical_kafka_key(key: bytes | None, key_type: str, *, binary: bool) -> str:
    """Returns the canonical key for a Kafka message key.

    The text of the key stands for a field of the topic's `key_type`: with `string`, `17` is the
    string "17" (`s:17`); with `integer` it is the integer 17 (`i:17`), and anything but its one
    decimal spelling (`017`, `+17`, `17.0`) is refused. So a null value deletes exactly what a field
    of the same text stored. With `binary` the bytes are taken as hex (`b:`).
    """
    if key is None:
        raise RecordError(Reason.NO_KEY, "the record has no Kafka key")
    if not key:
        raise RecordError(Reason.INVALID_KEY, "the Kafka key is empty")
    if binary:
        return f"b:{key.hex()}"
    try:
        text = key.decode()
    except UnicodeDecodeError:
        raise RecordError(Reason.INVALID_KEY, "the Kafka key is not UTF-8; set binary_key: true") from None
    if key_type == "string":
        return f"s:{text}"
    if INTEGER.fullmatch(text) is None:
        raise RecordError(Reason.INVALID_KEY, "the Kafka key is not a decimal integer, as key_type says")
    return f"i:{text}"


def version_of(value: Any, version_type: str | None, latest_ms: int) -> int:
    """Returns the version that a field holds.

    An integer counts as it is; an RFC 3339 time becomes milliseconds since 1970. Times (and every
    integer when the type is `time`) later than `latest_ms` are refused: they would block their key
    until then. A plain integer may or may not be a time, so without a `version_type` it
    passes. Digits in a string, floats and booleans are not versions.

    Raises:
        RecordError: VERSION_MISSING, INVALID_VERSION or VERSION_IN_FUTURE.
    """
    if value is MISSING or value is None:
        raise RecordError(Reason.VERSION_MISSING, "the version field is missing or null")
    is_time = version_type == "time"
    if type(value) is int:
        version = value
    elif type(value) is str and version_type != "integer":
        version = _milliseconds(value)
        is_time = True
    else:
        raise RecordError(Reason.INVALID_VERSION, f"a {type(value).__name__} is not a version")
    if not 0 <= version <= MAX_VERSION:
        raise RecordError(Reason.INVALID_VERSION, "outside 0 … 2^53 - 1")
    if is_time and version > latest_ms:
        raise RecordError(Reason.VERSION_IN_FUTURE, f"{version - latest_ms} ms beyond what max_version_ahead_s allows")
    return version


def _milliseconds(text: str) -> int:
    if _RFC3339.fullmatch(text) is None:
        raise RecordError(Reason.INVALID_VERSION, "a string that is not an RFC 3339 time with a zone")
    try:
        moment = datetime.fromisoformat(text.upper())
        return (moment - _EPOCH) // _MILLISECOND
    except (ValueError, OverflowError):  # month 13, second 60, year 0
        raise RecordError(Reason.INVALID_VERSION, "a time that does not exist") from None


def is_blank(text: str) -> bool:
    """Whether the text shows nothing: only white space, control, zero-width and filler characters."""
    return not any(char.isprintable() and not char.isspace() and char not in _FILLERS for char in text)


class Template:
    """The text of a record, assembled from literal parts and fields.

    Built in one pass over the template: a field's own braces, percent signs and placeholders
    are kept as they are.
    """

    def __init__(self, template: str) -> None:
        pieces = PLACEHOLDER.split(template)
        self._literals = pieces[::2]
        self._fields = [(split_path(name.removesuffix("?")), name.endswith("?")) for name in pieces[1::2]]
        self.num_literal_bytes = len("".join(self._literals).encode())
        self.num_fields = len(self._fields)

    def fill(self, fields: dict[str, Any]) -> str | None:
        """Returns the text without outer white space, or None when every field of it is blank.

        Raises:
            RecordError: TEXT_MISSING, TEXT_NOT_A_STRING; the detail names the field.
        """
        parts = [self._literals[0]]
        blank = True
        for (path, optional), literal in zip(self._fields, self._literals[1:], strict=True):
            value = field_at(fields, path)
            if value is MISSING or value is None:
                if not optional:
                    state = "missing" if value is MISSING else "null"
                    raise RecordError(Reason.TEXT_MISSING, f"field {'.'.join(path)} is {state}")
                value = ""
            elif type(value) is not str:
                raise RecordError(
                    Reason.TEXT_NOT_A_STRING, f"field {'.'.join(path)} is a {type(value).__name__}, not a string"
                )
            blank = blank and is_blank(value)
            parts += (value, literal)
        return None if blank else "".join(parts).strip()
