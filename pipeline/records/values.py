"""Reads keys, versions and texts from parsed fields, by rules that never guess."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from pipeline.config.paths import split_path
from pipeline.config.source import PLACEHOLDER, TopicConfig
from pipeline.errors import Reason, RecordError
from pipeline.records.record import MAX_VERSION
from pipeline.records.strict_json import spelt

MICROS_PER_MS = 1_000
"""Versions are microseconds under `version_type: time`; clocks, Kafka timestamps and integers are milliseconds."""

MISSING: Any = object()
"""What `field_at` returns where the record has no such field; null is a value."""

INTEGER = re.compile(r"0|-?[1-9][0-9]{0,39}")
INTEGER_BYTES = {"int32": 4, "int64": 8}
"""Of Kafka's own serializers, big-endian."""

_WRAPPED = re.compile(r'^["{\[]|[\x00-\x1f\x7f]')
"""How texts begin, end or look that a serializer has made of a key."""

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MAX_PLACE_DIGITS = 9
"""Of a place in a list, as a path names it."""

_FILLERS = frozenset("\u115f\u1160\u2800\u3164\uffa0\u034f")
"""Characters that Unicode calls letters or symbols and that show nothing."""


def field_at(fields: dict[str, Any], path: tuple[str, ...]) -> Any:
    """Returns the value under nested names, or MISSING. A number enters a list: `messages.0.body`.

    A field whose own name is the whole path, dots included, wins over a nested one.
    """
    if len(path) == 1:
        return fields.get(path[0], MISSING)
    if (flat := ".".join(path)) in fields:
        return fields[flat]
    value: Any = fields
    for name in path:
        if type(value) is dict:
            value = value.get(name, MISSING)
        elif type(value) is list:
            value = _item(value, name)
        else:
            return MISSING
    return value


def _item(items: list[Any], name: str) -> Any:
    is_place = name.isascii() and name.isdigit() and len(name) <= _MAX_PLACE_DIGITS
    return items[int(name)] if is_place and int(name) < len(items) else MISSING


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


def canonical_kafka_key(key: bytes | None, topic: TopicConfig) -> str:
    """Returns the canonical key that a Kafka message key spells.

    `kafka_key` says how: as text, `17` is the string "17" (`s:17`), or with `key_type: integer` the integer 17
    (`i:17`), and anything but its one decimal spelling (`017`, `+17`, `17.0`) is refused. So a null value deletes
    exactly what a field of the same value stored. With `binary_key` the bytes are taken as hex (`b:`).

    Where records are named by a field and `kafka_key` is not given, a text that some serializer may have written
    around the key (JSON, or bytes that are control characters) is refused: a null value with it would delete nothing.

    Raises:
        RecordError: NO_KEY, INVALID_KEY.
    """
    if key is None:
        raise RecordError(Reason.NO_KEY, "the record has no Kafka key")
    if not key:
        raise RecordError(Reason.INVALID_KEY, "the Kafka key is empty")
    if topic.binary_key:
        return f"b:{key.hex()}"
    if topic.kafka_key in INTEGER_BYTES:
        if len(key) != INTEGER_BYTES[topic.kafka_key]:
            raise RecordError(Reason.INVALID_KEY, f"the Kafka key has {len(key)} bytes, kafka_key is {topic.kafka_key}")
        return canonical_key(int.from_bytes(key, "big", signed=True), "integer")
    try:
        text = key.decode()
    except UnicodeDecodeError:
        raise RecordError(Reason.INVALID_KEY, "the Kafka key is not UTF-8; see binary_key and kafka_key") from None
    if topic.kafka_key == "json":
        return canonical_parsed_key(_json_key(text), topic)
    return _text_key(text, topic)


def _text_key(text: str, topic: TopicConfig) -> str:
    if len(topic.key_paths) > 1:
        raise RecordError(Reason.INVALID_KEY, "a text cannot spell a key of several fields; see kafka_key")
    if topic.key_types == ("integer",):
        if INTEGER.fullmatch(text) is None:
            raise RecordError(Reason.INVALID_KEY, "the Kafka key is not a decimal integer; see key_type and kafka_key")
        return f"i:{text}"
    if topic.kafka_key is None and topic.key is not None and _WRAPPED.search(text):
        raise RecordError(
            Reason.INVALID_KEY, "the Kafka key may be JSON, or binary: say what it is with kafka_key (text keeps it)"
        )
    return f"s:{text}"


def kafka_key_of(value: str | int, kafka_key: str | None) -> bytes:
    """Returns the Kafka message key that spells a key. Raises RecordError for one that cannot be spelt so."""
    if kafka_key in INTEGER_BYTES and type(value) is int:
        try:
            return value.to_bytes(INTEGER_BYTES[kafka_key], "big", signed=True)
        except OverflowError:
            raise RecordError(Reason.INVALID_KEY, f"an integer beyond kafka_key {kafka_key}") from None
    return value.encode() if isinstance(value, str) and kafka_key != "json" else orjson.dumps(value)


def canonical_parsed_key(value: Any, topic: TopicConfig) -> str:
    """Returns the canonical key in a Kafka key that is parsed: the value itself, or the fields `key` of an object.

    Where the topic has no `key`, all fields of an object are the key, in the order of their names.

    Raises RecordError like `canonical_key`.
    """
    if type(value) is not dict:
        if len(topic.key_paths) > 1:
            raise RecordError(Reason.INVALID_KEY, "the Kafka key is one value, the key has several fields")
        return canonical_key(value, topic.key_types[0])
    if topic.key_paths:
        return key_of_fields(value, tuple(map(split_path, topic.key_paths)), topic.key_types)
    names = sorted(value)
    if len(names) == 1:
        return canonical_key(value[names[0]], topic.key_types[0])
    kinds = ["integer" if type(value[name]) is int else "string" for name in names]
    return key_of_fields(value, [(name,) for name in names], kinds)


def key_of_fields(fields: dict[str, Any], paths: Sequence[tuple[str, ...]], key_types: Sequence[str]) -> str:
    """Returns the canonical key that the fields at some paths are: of several `c:` and a JSON array of them.

    Raises RecordError like `canonical_key`, where any of them is none.
    """
    found = [field_at(fields, path) for path in paths]
    keys = [canonical_key(value, kind) for value, kind in zip(found, key_types, strict=True)]
    return keys[0] if len(keys) == 1 else f"c:{spelt(found).decode()}"


def _json_key(text: str) -> Any:
    """Returns the key in a JSON text, in Kafka Connect's envelope or not. Raises RecordError for what is not JSON."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise RecordError(Reason.INVALID_KEY, "the Kafka key is not JSON, as kafka_key says") from None
    if isinstance(value, dict) and value.keys() == {"schema", "payload"}:
        return value["payload"]
    return value


def version_of(value: Any, version_type: str | None, latest_ms: int) -> int:
    """Returns the version that a field holds.

    An integer counts as it is. With `time`, versions are microseconds since 1970: of an RFC 3339 time, or of an
    integer, which then says milliseconds. Without a type an RFC 3339 time becomes milliseconds, so that it compares
    with integers that are. Times later than `latest_ms` are refused: they would block their key until then. A plain
    integer may or may not be a time, so without a type it passes. Digits in a string, floats and booleans are not
    versions.

    Raises:
        RecordError: VERSION_MISSING, INVALID_VERSION or VERSION_IN_FUTURE.
    """
    if value is MISSING or value is None:
        raise RecordError(Reason.VERSION_MISSING, "the version field is missing or null")
    scale = MICROS_PER_MS if version_type == "time" else 1
    if type(value) is int:
        version, is_time = value * scale, version_type == "time"
    elif type(value) is str and version_type != "integer":
        version, is_time = _microseconds(value) // (MICROS_PER_MS // scale), True
    else:
        raise RecordError(Reason.INVALID_VERSION, f"a {type(value).__name__} is not a version")
    is_late = type(value) is str and version > MAX_VERSION  # microseconds reach the year 2255: later is the future
    if not 0 <= version <= MAX_VERSION and not is_late:
        raise RecordError(Reason.INVALID_VERSION, "outside 0 … 2^53 - 1")
    if is_time and version // scale > latest_ms:
        ahead_ms = version // scale - latest_ms
        raise RecordError(Reason.VERSION_IN_FUTURE, f"{ahead_ms} ms beyond what max_version_ahead_s allows")
    return version


def tombstone_version(milliseconds: int | str, version_type: str | None, latest_ms: int) -> int:
    """Returns the version of a null value, which says no more than a millisecond where it is a time: that one's end.

    So it deletes what was written in the same millisecond. Raises like `version_of`.
    """
    version = version_of(milliseconds, version_type, latest_ms)
    return version + MICROS_PER_MS - 1 if version_type == "time" else version


def _microseconds(text: str) -> int:
    if _RFC3339.fullmatch(text) is None:
        raise RecordError(Reason.INVALID_VERSION, "a string that is not an RFC 3339 time with a zone")
    try:
        moment = datetime.fromisoformat(text.upper())
        return (moment - _EPOCH) // _MICROSECOND
    except (ValueError, OverflowError):  # month 13, second 60, year 0
        raise RecordError(Reason.INVALID_VERSION, "a time that does not exist") from None


def is_blank(text: str) -> bool:
    """Whether the text shows nothing: only white space, control, zero-width and filler characters."""
    if "!" <= text[:1] <= "~":
        return False
    return not any(char.isprintable() and not char.isspace() and char not in _FILLERS for char in text)


def _as_text(value: Any, path: tuple[str, ...]) -> str:
    """Returns a number, a truth value or a list as JSON spells it, which is how a cell of a CSV holds it.

    An empty list is nothing. An object is refused: the path most likely ends one name too early.
    """
    if type(value) is dict or (type(value) is list and any(type(item) is dict for item in value)):
        kind = "an object" if type(value) is dict else "a list of objects"
        raise RecordError(Reason.TEXT_NOT_A_STRING, f"field {'.'.join(path)} is {kind}; name a field inside it")
    return "" if value == [] else spelt(value).decode()


class Template:
    """The text of a record, assembled from literal parts and fields.

    Built in one pass over the template: a field's own braces, percent signs and placeholders
    are kept as they are.
    """

    def __init__(self, template: str) -> None:
        pieces = PLACEHOLDER.split(template)
        self._literals = pieces[::2]
        self._fields = [
            (split_path(name.removesuffix("?")), name.endswith("?"), literal)
            for name, literal in zip(pieces[1::2], self._literals[1:], strict=True)
        ]
        self.num_literal_bytes = len("".join(self._literals).encode())
        self.num_fields = len(self._fields)

    def fill(self, fields: dict[str, Any]) -> str | None:
        """Returns the text without outer white space, or None when every field of it is blank.

        Raises:
            RecordError: TEXT_MISSING; TEXT_NOT_A_STRING for an object. The detail names the field.
        """
        parts = [self._literals[0]]
        blank = True
        for path, optional, literal in self._fields:
            value = fields.get(path[0], MISSING) if len(path) == 1 else field_at(fields, path)
            if value is MISSING or value is None:
                if not optional:
                    state = "missing" if value is MISSING else "null"
                    raise RecordError(Reason.TEXT_MISSING, f"field {'.'.join(path)} is {state}")
                value = ""
            elif type(value) is not str:
                value = _as_text(value, path)
            blank = blank and is_blank(value)
            parts += (value, literal)
        return None if blank else "".join(parts).strip()
