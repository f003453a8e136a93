"""Reads Protobuf messages with Google's runtime, by descriptors; no code is generated.

Fields keep their names of the .proto file. A field that is not set is null, or its default where the schema says that
the two cannot be told apart (proto3 without `optional`) or names one. Only fields that the topic reads are looked at.
"""

from collections.abc import Callable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from pipeline.errors import ConfigError, Reason, RecordError, nearest
from pipeline.records import spelling
from pipeline.records.meaning import value_of
from pipeline.records.schemas import protoc
from pipeline.records.schemas.fields import Choices, protobuf_choices
from pipeline.records.schemas.part import Parser, Part
from pipeline.records.schemas.readers import file_bytes, file_parser, in_file, registered_parser
from pipeline.records.schemas.registry import Schema, with_references
from pipeline.records.schemas.wanted import Wanted, expected_at, is_read, within, within_any

_MAX_DECIMAL_BYTES = 512
_MAX_SCALE = 1_000
_EXACT = 2.0**53
"""Whole numbers up to this are the same as an integer and as a float."""

Convert = Callable[[Any], Any]
Step = tuple[str, Convert]
"""A field's name, and what reads it from a message."""


def protobuf_parser(part: Part) -> Parser:
    """Returns what reads a part's Protobuf. Raises ConfigError for a schema file that cannot be used."""
    wanted = part.wanted

    def build(schema: Schema, used: Mapping[str, Schema], indexes: tuple[int, ...]) -> "MessageReader":
        return MessageReader(message_at(protoc.compiled(schema, tuple(used.items())), indexes), wanted)

    if part.settings.schema_file is None:
        return registered_parser(part, build, indexed=True)
    return file_parser(part, MessageReader(_message_of_file(part), wanted))


def choices_of(part: Part, schema: Schema | None) -> Choices | None:
    """Returns which fields a message has, of the part's schema file where no schema is given; None where it has many.

    Raises like its reader.
    """
    if schema is None:
        return protobuf_choices(_message_of_file(part))
    used = tuple(with_references(part.registry, schema).items())
    messages = list(protoc.compiled(schema, used).message_types_by_name.values())
    return protobuf_choices(messages[0]) if len(messages) == 1 else None


class MessageReader:
    """Reads values of one message. Thread-safe."""

    def __init__(self, descriptor: Descriptor, wanted: Wanted) -> None:
        self.choices = protobuf_choices(descriptor)
        self._from_bytes = GetMessageClass(descriptor).FromString
        self._fields = _Compiling().message(descriptor, wanted)

    def __call__(self, data: bytes, start: int) -> Any:
        """Returns the message in `data` from `start` on. Raises RecordError."""
        try:
            return self._fields(self._from_bytes(data[start:]))
        except RecordError as error:
            if error.reason is Reason.INVALID_ROW:  # the word of files for a value without a meaning
                raise RecordError(Reason.INVALID_PROTOBUF, error.detail) from None
            raise
        except (DecodeError, UnicodeDecodeError) as error:
            raise RecordError(Reason.INVALID_PROTOBUF, f"not what the schema says ({type(error).__name__})") from None


def message_at(file: FileDescriptor, indexes: tuple[int, ...]) -> Descriptor:
    """Returns the message that a record's indexes name. Raises RecordError.

    As Confluent's registry counts: the entries of maps, which descriptors hold as nested messages, are none.
    """
    messages = list(file.message_types_by_name.values())
    found: Descriptor | None = None
    for index in indexes:
        if not 0 <= index < len(messages):
            raise RecordError(Reason.INVALID_PROTOBUF, f"the schema has no message with the indexes {list(indexes)}")
        found = messages[index]
        messages = [nested for nested in found.nested_types if not nested.GetOptions().map_entry]
    assert found is not None  # noqa: S101 - there is always an index
    return found


def _message_of_file(part: Part) -> Descriptor:
    """Returns the message of a schema file. Raises ConfigError."""
    path = part.settings.schema_file or Path()
    content = file_bytes(part)
    try:
        if path.suffix == ".proto":
            files = protoc.run_protoc(path.resolve().parent, path.name)
            roots = [protoc.load(files, path.name)]
        else:
            files = FileDescriptorSet.FromString(content)
            roots = [protoc.load(files, file.name) for file in files.file]
    except RecordError as error:
        raise in_file(part, error) from None
    except DecodeError:
        raise ConfigError(
            f"{part.settings.prefix}schema_file: {path} is no descriptor set; a .proto file must end in .proto"
        ) from None
    return _message_named(part, roots)


def _message_named(part: Part, roots: list[FileDescriptor]) -> Descriptor:
    messages = {found.full_name: found for root in roots for found in root.message_types_by_name.values()}
    wanted = part.settings.message
    if wanted is None and len(messages) == 1:
        return next(iter(messages.values()))
    for root in roots if wanted else ():
        try:
            return root.pool.FindMessageTypeByName(wanted)
        except KeyError:
            continue
    said = "is missing." if wanted is None else f"{wanted!r} is not in {part.settings.schema_file}."
    raise ConfigError(
        f"{part.settings.prefix}message {said}{nearest(wanted or '', messages)} Messages: {', '.join(sorted(messages))}"
    )


class _Compiling:
    """Makes what reads messages; each kind of message once, also where messages hold their own kind."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, Wanted], Convert] = {}

    def message(self, descriptor: Descriptor, wanted: Wanted) -> Convert:
        """Returns what turns a message into an object of the fields that are wanted."""
        known = self._known.get((descriptor.full_name, wanted))
        if known is not None:
            return known
        steps: list[Step] = []

        def read(message: Any) -> dict[str, Any]:
            return {name: get(message) for name, get in steps}

        self._known[descriptor.full_name, wanted] = read
        steps += [
            (field.name, self._field(field, inside))
            for field in descriptor.fields
            if (inside := within(wanted, field.name))
        ]
        return read

    def _field(self, field: FieldDescriptor, wanted: Wanted) -> Convert:
        name, get = field.name, attrgetter(field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            return self._map(field, get, within_any(wanted))
        if field.is_repeated:
            convert_each = self._value(field, within_any(wanted))
            if convert_each is None:
                return lambda message: list(get(message))
            return lambda message: [convert_each(value) for value in get(message)]
        convert = self._value(field, wanted)
        if not field.has_presence or field.has_default_value:
            return get if convert is None else (lambda message: convert(get(message)))
        if convert is None:
            return lambda message: get(message) if message.HasField(name) else None
        return lambda message: convert(get(message)) if message.HasField(name) else None

    def _map(self, field: FieldDescriptor, get: Convert, wanted: Wanted) -> Convert:
        convert = self._value(field.message_type.fields_by_name["value"], wanted) or _same
        return lambda message: {_map_key(key): convert(value) for key, value in get(message).items()}

    def _value(self, field: FieldDescriptor, wanted: Wanted) -> Convert | None:
        """Returns what turns a set value into what JSON holds; None where it is that already."""
        if field.message_type is not None:
            special = _well_known(field.message_type.full_name, wanted)
            return special or self.message(field.message_type, wanted)
        if not is_read(wanted):
            return None
        if field.enum_type is not None:
            names = {number: value.name for number, value in field.enum_type.values_by_number.items()}
            return lambda number: names.get(number, number)  # a number of a newer schema
        return _SCALARS.get(field.type)


def _same(value: Any) -> Any:
    return value


def _map_key(key: Any) -> str:
    if type(key) is str:
        return key
    return str(key).lower() if type(key) is bool else str(key)


_SCALARS: Mapping[int, Convert] = {
    FieldDescriptor.TYPE_FLOAT: spelling.number_or_null,
    FieldDescriptor.TYPE_DOUBLE: spelling.number_or_null,
    FieldDescriptor.TYPE_BYTES: spelling.text,
}


def _nanoseconds(message: Any) -> int:
    return int(message.seconds) * spelling.NS["s"] + int(message.nanos)


def _timestamp(message: Any) -> str:
    if not 0 <= message.nanos < spelling.NS["s"]:
        raise RecordError(Reason.INVALID_PROTOBUF, "a timestamp whose nanos are not within a second")
    return spelling.moment(_nanoseconds(message)) + "+00:00"


def _wrapped(message: Any) -> Any:
    return message.value


def _struct(message: Any) -> dict[str, Any]:
    return {name: _json_value(value) for name, value in message.fields.items()}


def _list(message: Any) -> list[Any]:
    return [_json_value(value) for value in message.values]


def _json_value(message: Any) -> Any:
    kind = message.WhichOneof("kind")
    if kind == "number_value":
        number = spelling.number_or_null(message.number_value)
        # It is JSON's number, which has no integers of its own.
        return int(number) if number is not None and number.is_integer() and abs(number) <= _EXACT else number
    if kind in {"string_value", "bool_value"}:
        return getattr(message, kind)
    if kind == "struct_value":
        return _struct(message.struct_value)
    return _list(message.list_value) if kind == "list_value" else None


def _decimal(wanted: Wanted) -> Convert:
    expected = expected_at(wanted)

    def read(message: Any) -> Any:
        if len(message.value) > _MAX_DECIMAL_BYTES or not 0 <= message.scale <= _MAX_SCALE:
            raise RecordError(Reason.INVALID_PROTOBUF, "a decimal of too many digits")
        unscaled = int.from_bytes(message.value, "big", signed=True)
        if message.precision and len(str(abs(unscaled))) > message.precision:
            raise RecordError(Reason.INVALID_PROTOBUF, "a decimal of more digits than its precision")
        spelt = spelling.decimal(unscaled, message.scale)
        return spelt if expected is None else value_of(spelt, expected)

    return read


_WELL_KNOWN: Mapping[str, Convert] = {
    "google.protobuf.Timestamp": _timestamp,
    "google.protobuf.Duration": lambda message: spelling.duration(_nanoseconds(message)),
    "google.protobuf.Struct": _struct,
    "google.protobuf.ListValue": _list,
    "google.protobuf.Value": _json_value,
    **{f"google.protobuf.{kind}Value": _wrapped for kind in ("String", "Bool", "Int32", "Int64", "UInt32", "UInt64")},
    "google.protobuf.FloatValue": lambda message: spelling.number_or_null(message.value),
    "google.protobuf.DoubleValue": lambda message: spelling.number_or_null(message.value),
    "google.protobuf.BytesValue": lambda message: spelling.text(message.value),
}


def _well_known(name: str, wanted: Wanted) -> Convert | None:
    """Returns what reads a message that stands for a value. Its parts are no fields of the record."""
    if name == "confluent.type.Decimal":
        return _decimal(wanted)
    return _WELL_KNOWN.get(name)
