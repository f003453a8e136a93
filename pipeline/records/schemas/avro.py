"""Reads Avro values with fastavro, by the schema that they were written with.

A schema is rewritten before fastavro gets it: where the topic reads a value that JSON has no type for, a function of
ours stands as its logical type, which fastavro calls with what it has read, in the right branch of a union (its
documented way to add logical types). So no second walk through a record is needed, and values that nobody reads cost
nothing and cannot be wrong. Types are also unrolled to a depth: fastavro 1.13 follows a recursive schema until the
process dies.
"""

from collections.abc import Callable, Iterable, Mapping
from io import BytesIO
from typing import Any

import orjson
from fastavro import parse_schema, schemaless_reader
from fastavro.read import LOGICAL_READERS

from pipeline.errors import Reason, RecordError
from pipeline.records import spelling
from pipeline.records.meaning import value_of
from pipeline.records.schemas.fields import Choices, avro_choices
from pipeline.records.schemas.part import Parser, Part
from pipeline.records.schemas.readers import file_bytes, file_parser, in_file, registered_parser
from pipeline.records.schemas.registry import Schema, with_references
from pipeline.records.schemas.wanted import (
    EVERYTHING,
    NOTHING,
    Wanted,
    expected_at,
    is_read,
    within,
    within_any,
)

_HOOK = "refract"
"""The name of our logical type, and of the schema's attribute that holds its function."""

_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
_MAX_TYPES = 20_000
"""Of a schema once it is unrolled."""

_MAX_SCHEMA_DEPTH = 400
"""Levels of JSON in a schema; each level of records takes about three."""

_MAX_PRECISION = 1_000
"""Digits of a decimal."""

Convert = Callable[[Any], Any]


def _call_hook(data: Any, schema: Any = None, _: Any = None) -> Any:
    return schema[_HOOK](data)


for _kind in _PRIMITIVES | {"fixed"}:
    LOGICAL_READERS[f"{_kind}-{_HOOK}"] = _call_hook


def avro_parser(part: Part) -> Parser:
    """Returns what reads a part's Avro. Raises ConfigError for a schema file that cannot be used."""
    wanted, max_depth = part.wanted, part.limits.max_depth
    if part.settings.schema_file is None:
        return registered_parser(part, lambda schema, used, _: AvroReader(schema, used, wanted, max_depth))
    try:
        schema = Schema("AVRO", file_bytes(part).decode(errors="replace"))
        return file_parser(part, AvroReader(schema, {}, wanted, max_depth))
    except RecordError as error:
        raise in_file(part, error) from None


def choices_of(part: Part, schema: Schema | None) -> Choices | None:
    """Returns which fields a schema has, of the part's schema file where none is given. Raises like its reader."""
    if schema is None:
        schema = Schema("AVRO", file_bytes(part).decode(errors="replace"))
    return AvroReader(schema, with_references(part.registry, schema), NOTHING, part.limits.max_depth).choices


class AvroReader:
    """Reads values of one schema. Thread-safe."""

    def __init__(self, schema: Schema, used: Mapping[str, Schema], wanted: Wanted, max_depth: int) -> None:
        """Takes a schema, and by name those that it uses, in an order in which each finds its own.

        Raises RecordError, UNUSABLE_SCHEMA.
        """
        try:
            named: dict[str, Any] = {}
            for other in used.values():
                parse_schema(_json_of(other), named)
            parsed = parse_schema(_json_of(schema), named)
            self.choices = avro_choices(parsed, named)
            self._schema = parse_schema(_Rewriting(named, max_depth).root(parsed, wanted), {})
        except RecordError:
            raise
        except Exception as error:  # noqa: BLE001 - fastavro raises whatever a wrong schema provokes
            raise RecordError(Reason.UNUSABLE_SCHEMA, f"not an Avro schema ({type(error).__name__})") from None

    def __call__(self, data: bytes, start: int) -> Any:
        """Returns the value in `data` from `start` on. Raises RecordError."""
        stream = BytesIO(data)
        stream.seek(start)
        try:
            value = schemaless_reader(stream, self._schema, None)
        except RecordError as error:
            if error.reason is Reason.INVALID_ROW:  # the word of files for a value without a meaning
                raise RecordError(Reason.INVALID_AVRO, error.detail) from None
            raise
        except Exception as error:  # noqa: BLE001 - fastavro raises whatever damaged bytes provoke
            raise RecordError(Reason.INVALID_AVRO, f"not what the schema says ({type(error).__name__})") from None
        if stream.tell() != len(data):
            raise RecordError(Reason.INVALID_AVRO, f"{len(data) - stream.tell()} bytes more than the schema says")
        return value


def _json_of(schema: Schema) -> Any:
    if schema.kind != "AVRO":
        raise RecordError(Reason.WRONG_FORMAT, f"the schema is of type {schema.kind}, not AVRO")
    try:
        parsed = orjson.loads(schema.text)
    except orjson.JSONDecodeError:
        parsed = schema.text.strip()
        if parsed not in _PRIMITIVES:
            raise RecordError(Reason.UNUSABLE_SCHEMA, "the schema is not JSON") from None
    level = [parsed]
    for _ in range(_MAX_SCHEMA_DEPTH):
        level = [child for item in level for child in _children(item)]
        if not level:
            return parsed
    raise RecordError(Reason.UNUSABLE_SCHEMA, f"the schema is nested deeper than {_MAX_SCHEMA_DEPTH}")


def _children(item: Any) -> Iterable[Any]:
    if isinstance(item, dict):
        return item.values()
    return item if isinstance(item, list) else ()


class _Rewriting:
    """Rewrites one schema, as `parse_schema` returns it: every name is a full one."""

    def __init__(self, named: Mapping[str, Any], max_depth: int) -> None:
        self._named = named
        self._max_depth = max_depth
        self._names: dict[tuple[str, Wanted, int], str] = {}

    def root(self, schema: Any, wanted: Wanted) -> Any:
        """Returns a whole schema rewritten. What is no record is read as a whole."""
        resolved = self._named.get(schema, schema) if isinstance(schema, str) else schema
        is_record = isinstance(resolved, dict) and resolved.get("type") in {"record", "error"}
        return self._rewritten(resolved, wanted if is_record else EVERYTHING, 0)

    def _rewritten(self, schema: Any, wanted: Wanted, level: int) -> Any:
        if isinstance(schema, list):
            return [self._rewritten(branch, wanted, level) for branch in schema]
        if isinstance(schema, str) and schema not in _PRIMITIVES:
            schema = self._named[schema]
        if isinstance(schema, str):
            schema = {"type": schema}
        kind = schema["type"]
        if not isinstance(kind, str) or (kind in self._named and "name" not in schema):
            return self._rewritten(kind, wanted, level)
        if kind in {"record", "error", "array", "map"}:
            return self._container(schema, wanted, level + 1)
        convert = _converter(schema, wanted)
        if kind == "enum":
            return self._enum(schema)
        bare = {"type": kind, "logicalType": _HOOK, _HOOK: convert} if convert else {"type": kind}
        return bare | {"name": self._new_name(), "size": schema["size"]} if kind == "fixed" else bare

    def _container(self, schema: Any, wanted: Wanted, level: int) -> Any:
        if level > self._max_depth:
            return {"type": "null", "logicalType": _HOOK, _HOOK: self._too_deep}
        if schema["type"] == "map":
            return {"type": "map", "values": self._rewritten(schema["values"], within_any(wanted), level)}
        if schema["type"] == "array":
            if _takes_no_bytes(schema["items"], self._named, 0):
                raise RecordError(Reason.UNUSABLE_SCHEMA, "an array of items that take no bytes")
            return {"type": "array", "items": self._rewritten(schema["items"], within_any(wanted), level)}
        # What is not read needs no copy of its own for each level, unless it goes round in circles.
        place = (schema["name"], wanted, level)
        known = self._names.get(place)
        if known is not None:
            return known
        name = self._names[place] = self._new_name()
        fields = [
            {
                "name": field["name"],
                "type": self._rewritten(field["type"], _named_within(wanted, field["name"]), level),
            }
            for field in schema["fields"]
        ]
        return {"type": "record", "name": name, "fields": fields}

    def _enum(self, schema: Any) -> Any:
        return {"type": "enum", "name": self._new_name(), "symbols": schema["symbols"]}

    def _new_name(self) -> str:
        if len(self._names) > _MAX_TYPES:
            raise RecordError(Reason.UNUSABLE_SCHEMA, f"more than {_MAX_TYPES} types")
        name = f"T{len(self._names)}"
        self._names[name, NOTHING, -1] = name
        return name

    def _too_deep(self, _: Any) -> Any:
        raise RecordError(Reason.TOO_DEEP, f"nested deeper than {self._max_depth}")


def _named_within(wanted: Wanted, name: str) -> Wanted:
    return within(wanted, name) if wanted else NOTHING


def _takes_no_bytes(schema: Any, named: Mapping[str, Any], depth: int) -> bool:
    """Whether values of a schema are written as nothing: damaged bytes could claim any number of them."""
    if isinstance(schema, list) or depth > _MAX_SCHEMA_DEPTH:
        return False
    if isinstance(schema, str):
        return schema == "null" or (schema in named and _takes_no_bytes(named[schema], named, depth + 1))
    kind = schema["type"]
    if kind in {"record", "error"}:
        return all(_takes_no_bytes(field["type"], named, depth + 1) for field in schema["fields"])
    if kind == "fixed":
        return int(schema["size"]) <= 0
    return kind == "null" or (not isinstance(kind, str) and _takes_no_bytes(kind, named, depth + 1))


def _converter(schema: Mapping[str, Any], wanted: Wanted) -> Convert | None:
    """Returns what turns a value of a schema that is not a container into what JSON holds; None where nothing must."""
    if not is_read(wanted):
        return None
    kind, logical = schema["type"], schema.get("logicalType")
    if kind in {"float", "double"}:
        return spelling.number_or_null
    if kind in {"bytes", "fixed"}:
        return _of_bytes(schema, wanted)
    return _LOGICAL.get((kind, logical))


def _of_bytes(schema: Mapping[str, Any], wanted: Wanted) -> Convert:
    logical, size = schema.get("logicalType"), schema.get("size")
    precision, scale = schema.get("precision"), schema.get("scale", 0)
    if logical == "decimal" and type(precision) is int and type(scale) is int and 0 <= scale <= precision:
        return _decimal(precision, scale, wanted)
    if logical == "uuid" and size == _UUID_BYTES:
        return spelling.uuid
    if logical == "duration" and size == _DURATION_BYTES:
        return _duration
    return spelling.text


def _decimal(precision: int, scale: int, wanted: Wanted) -> Convert:
    if precision > _MAX_PRECISION:
        raise RecordError(Reason.UNUSABLE_SCHEMA, f"a decimal of more than {_MAX_PRECISION} digits")
    limit, expected = 10**precision, expected_at(wanted)

    def read(data: bytes) -> Any:
        unscaled = int.from_bytes(data, "big", signed=True)
        if not -limit < unscaled < limit:
            raise RecordError(Reason.INVALID_AVRO, f"a decimal of more than {precision} digits")
        spelt = spelling.decimal(unscaled, scale)
        return spelt if expected is None else value_of(spelt, expected)

    return read


def _duration(data: bytes) -> str:
    """Months, days and milliseconds, each a little-endian unsigned integer of 32 bits."""
    months, days, ms = (int.from_bytes(data[at : at + 4], "little") for at in (0, 4, 8))
    calendar = (f"{months}M" if months else "") + (f"{days}D" if days else "")
    if not calendar:
        return spelling.duration(ms * spelling.NS["ms"])
    # In seconds: a day of the calendar and one of 24 hours are two things.
    clock = f"T{ms / 1000:.3f}".rstrip("0").rstrip(".") + "S" if ms else ""
    return f"P{calendar}{clock}"


def _instant(unit: str) -> Convert:
    factor = spelling.NS[unit]
    return lambda number: spelling.moment(number * factor) + "+00:00"


def _local(unit: str) -> Convert:
    factor = spelling.NS[unit]
    return lambda number: spelling.moment(number * factor)


def _time(unit: str) -> Convert:
    factor = spelling.NS[unit]
    return lambda number: spelling.time_of_day(number * factor)


_UUID_BYTES, _DURATION_BYTES = 16, 12

_LOGICAL: Mapping[tuple[str, Any], Convert] = {
    ("int", "date"): spelling.date,
    ("int", "time-millis"): _time("ms"),
    ("long", "time-micros"): _time("us"),
    ("long", "timestamp-millis"): _instant("ms"),
    ("long", "timestamp-micros"): _instant("us"),
    ("long", "timestamp-nanos"): _instant("ns"),
    ("long", "local-timestamp-millis"): _local("ms"),
    ("long", "local-timestamp-micros"): _local("us"),
    ("long", "local-timestamp-nanos"): _local("ns"),
}
"""Avro's own logical types of integers (avro.apache.org, specification 1.12). Others are what they are written as."""
