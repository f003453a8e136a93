"""Decides what is stored beside a record's vector: its payload, in the types that the topic's configuration gives."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import orjson

from pipeline.config.paths import split_path
from pipeline.config.payload_fields import PayloadKind
from pipeline.config.pipeline import LimitsConfig
from pipeline.config.source import TopicConfig
from pipeline.errors import Reason, RecordError
from pipeline.records.headers import carried, decimal
from pipeline.records.record import Headers, Position
from pipeline.records.times import moment
from pipeline.records.values import INTEGER, MISSING, field_at

REPLAYED_TIMESTAMP_HEADER = "refract-replayed-timestamp"
"""Header in which `refract dlq replay` keeps Kafka's timestamp where the payload holds it, as decimal milliseconds."""

_TWO_63 = 2**63
"""Integers of a Qdrant payload are signed 64-bit."""

_EXACT = 2**53
"""Whole numbers up to this are the same as an integer and as a float."""

_MAX_PAYLOAD_DEPTH = 24
"""A level of JSON is three nested protobuf messages, and their readers stop at 100."""

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_UUID = re.compile(r"[0-9A-Fa-f]{32}|[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


class PayloadReader:
    """Reads the payload of a topic's records. Thread-safe, and keeps nothing between records."""

    def __init__(self, config: TopicConfig, limits: LimitsConfig) -> None:
        self._config = config
        self._limits = limits
        self._reads_source = bool(config.payload_headers) or config.payload_timestamp
        self._untyped = []
        self._typed = []
        for name, field in config.payload.items():
            path = split_path(field.path or name)
            if field.kind is None:
                self._untyped.append((name, path))
            else:
                self._typed.append((name, path, field.type or "", _converter(field.kind, is_list=field.is_list)))

    def read(self, fields: dict[str, Any], headers: Headers, position: Position) -> tuple[dict[str, Any], list[str]]:
        """Returns a record's payload by stored name, and the names whose values do not fit their type.

        A value of another type is converted where nothing is lost by it; else it is left out. Null fits every type.

        Raises:
            RecordError: INVALID_PAYLOAD for what a store cannot hold, or for a value of another type where the
                topic has `on_bad_payload: dead_letter`; PAYLOAD_TOO_LARGE. The detail names fields, never values.
        """
        payload: dict[str, Any] = {}
        for name, path in self._untyped:
            value = fields.get(path[0], MISSING) if len(path) == 1 else field_at(fields, path)
            if value is not MISSING:
                payload[name] = value
        dropped = self._read_typed(fields, payload) if self._typed else []
        if self._reads_source:
            self._read_source(headers, position, payload)
        if payload:
            self._check_size(payload)
        return payload, dropped

    def _read_typed(self, fields: dict[str, Any], payload: dict[str, Any]) -> list[str]:
        dropped = []
        for name, path, type_name, convert in self._typed:
            value = field_at(fields, path)
            if value is MISSING:
                continue
            converted = None if value is None else convert(value)
            if converted is not MISSING:
                payload[name] = converted
            elif self._config.on_bad_payload == "dead_letter":
                raise RecordError(
                    Reason.INVALID_PAYLOAD, f"field {'.'.join(path)}: {_kind(value)} does not fit type {type_name}"
                )
            else:
                dropped.append(name)
        return dropped

    def _read_source(self, headers: Headers, position: Position, payload: dict[str, Any]) -> None:
        """Adds what Kafka says of the record."""
        if self._config.payload_headers:
            for name, header in headers:  # Kafka allows a name twice; the last one counts, as in its own API
                if name in self._config.payload_headers and header is not None:
                    payload[name] = header.decode(errors="replace")
        if self._config.payload_timestamp:
            given = carried(headers, REPLAYED_TIMESTAMP_HEADER)
            first = decimal(given[-1]) if given else None
            payload["timestamp_ms"] = first if isinstance(first, int) else position.timestamp_ms

    def _check_size(self, payload: dict[str, Any]) -> None:
        num_values = _check_values(payload)
        if num_values > self._limits.max_payload_fields:
            raise RecordError(
                Reason.PAYLOAD_TOO_LARGE,
                f"{num_values} values, max_payload_fields is {self._limits.max_payload_fields}",
            )
        num_bytes = len(orjson.dumps(payload))
        if num_bytes > self._limits.max_payload_bytes:
            raise RecordError(
                Reason.PAYLOAD_TOO_LARGE, f"{num_bytes} bytes, max_payload_bytes is {self._limits.max_payload_bytes}"
            )


Converter = Callable[[Any], Any]
"""Returns a value as its type stores it, MISSING where it does not fit."""


def _converter(kind: PayloadKind, *, is_list: bool) -> Converter:
    convert = _CONVERTERS[kind]
    if not is_list:
        return convert

    def convert_all(value: Any) -> Any:
        """A single value is a list of one; a list fits when every item does."""
        converted = [convert(item) for item in value] if type(value) is list else [convert(value)]
        return MISSING if any(item is MISSING for item in converted) else converted

    return convert_all


def _text(value: Any) -> Any:
    if type(value) is str:
        return value
    if type(value) is bool:
        return "true" if value else "false"
    return str(value) if type(value) is int else MISSING


def _uuid(value: Any) -> Any:
    # The one spelling, so that every store finds it by comparing text.
    return str(UUID(value)) if type(value) is str and _UUID.fullmatch(value) else MISSING


def _integer(value: Any) -> Any:
    if type(value) is str and INTEGER.fullmatch(value):
        value = int(value)
    if type(value) is float and value.is_integer() and abs(value) <= _EXACT:
        value = int(value)
    return value if type(value) is int and -_TWO_63 <= value < _TWO_63 else MISSING


def _float(value: Any) -> Any:
    if (type(value) is str and _NUMBER.fullmatch(value)) or (type(value) is int and abs(value) <= _EXACT):
        value = float(value)
    return value if type(value) is float and math.isfinite(value) else MISSING


def _bool(value: Any) -> Any:
    return value if type(value) is bool else _BOOLS.get(value, MISSING) if type(value) in {str, int} else MISSING


def _datetime(value: Any) -> Any:
    return value if type(value) is str and moment(value) is not None else MISSING


_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False, 1: True, 0: False}
_CONVERTERS: Mapping[PayloadKind, Converter] = {
    "keyword": _text,
    "uuid": _uuid,
    "integer": _integer,
    "float": _float,
    "bool": _bool,
    "datetime": _datetime,
    "text": _text,
}


def _kind(value: Any) -> str:
    kinds = {str: "a text", bool: "a truth value", int: "an integer", float: "a number", list: "a list"}
    return kinds.get(type(value), "an object")


def _check_values(payload: Mapping[str, Any]) -> int:
    """Counts the values of a payload, nested ones included, and refuses what a store cannot keep.

    A number of 2^63 or more may have been an integer that the parser could only keep as a float, so
    both are refused rather than stored as another number.
    """
    num_values = 0
    level: list[Any] = list(payload.values())
    for _ in range(_MAX_PAYLOAD_DEPTH):
        num_values += len(level)
        nested: list[Any] = []
        for value in level:
            kind = type(value)
            if kind is int or kind is float:
                # -2^63 itself is an integer that fits, but a float may have been one below.
                if not -_TWO_63 < value < _TWO_63 and not (kind is int and value == -_TWO_63):
                    raise RecordError(Reason.INVALID_PAYLOAD, "a number beyond 64 bits")
            elif kind is dict:
                nested.extend(value.values())
            elif kind is list:
                nested.extend(value)
        if not nested:
            return num_values
        level = nested
    raise RecordError(Reason.INVALID_PAYLOAD, f"nested deeper than {_MAX_PAYLOAD_DEPTH}")
