"""What a row is as a Kafka message, and as a record: the two mean the same."""

from dataclasses import dataclass
from typing import Any

import orjson

from pipeline.config.paths import split_path
from pipeline.config.pipeline import LimitsConfig
from pipeline.config.source import TopicConfig
from pipeline.errors import ConfigError, Reason, RecordError
from pipeline.records.decode import RecordDecoder, row_settings
from pipeline.records.files.reading import RAW, Row
from pipeline.records.record import Position, Record
from pipeline.records.strict_json import parse_object, spelt
from pipeline.records.values import INTEGER_BYTES, field_at, kafka_key_of

_RAW_KEY = "_key"


@dataclass(slots=True)
class Message:
    """What is sent for a row."""

    key: bytes | None
    value: bytes | None
    """None is a tombstone."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Where the Kafka message key of a row comes from."""

    field: str | tuple[str, ...]
    """Path of the field, or of several that are the key together."""
    row_number: str | None = None
    """Field that gets the row's number, from 1, where the file has no identifier of its own."""
    integer_number: bool = False
    """Whether that number is sent as an integer, not as a text."""
    spelling: str | None = None
    """The topic's `kafka_key`."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The path, or all of them."""
        return (self.field,) if isinstance(self.field, str) else self.field


def keys_of(name: str, topic: TopicConfig, key: str | None = None, row_number: str | None = None) -> Keys:
    """Returns the rule for a topic's keys: `--key`, else the field that the configuration names.

    Raises ConfigError when neither says what identifies a record.
    """
    field = key or topic.key or row_number
    if field is None:
        raise ConfigError(f"topic {name!r} is keyed by the Kafka message key: name the column with --key")
    is_integer = row_number is not None and (
        row_number == topic.version or (row_number, "integer") in zip(topic.key_paths, topic.key_types, strict=False)
    )
    return Keys(field, row_number, is_integer, row_settings(topic).kafka_key)


class Messages:
    """Makes messages of rows: objects of their columns, and JSON values as they stand.

    `{"_raw": TEXT, "_key": KEY}` stands for the message of that text, literally, and null for a tombstone.
    """

    def __init__(self, keys: Keys, max_depth: int) -> None:
        """Takes where keys come from, and the depth of JSON that a topic takes."""
        self._keys = keys
        self._paths = {path: split_path(path) for path in keys.paths}
        self._path = split_path(keys.paths[0])
        self._row_number = keys.row_number
        self._is_plain = keys.spelling != "json"
        self._max_depth = max_depth

    def of(self, row: Row, number: int) -> Message:
        """Returns the message of a row with a number, from 1. Raises RecordError for a row that cannot be one."""
        if row.error is not None:
            raise row.error
        text, fields = row.text, row.fields or {}
        if text is not None:
            try:
                parsed = orjson.loads(text)
            except orjson.JSONDecodeError:
                parsed = None
            # Less strict than a decoder: what is JSON is sent, and the pipeline judges the rest.
            fields = parsed if isinstance(parsed, dict) else parse_object(text, self._max_depth)
            if RAW in fields:
                return _raw_message(fields)
        if self._row_number is not None:
            fields[self._row_number] = number if self._keys.integer_number else str(number)
        elif text is not None:
            return Message(self._key(fields), text)
        return Message(self._key(fields), spelt(fields))

    def _key(self, fields: dict[str, Any]) -> bytes | None:
        """A row without a key is sent all the same: the pipeline decides what that means."""
        if len(self._paths) > 1:
            return self._key_of_several(fields)
        path = self._path
        value = fields.get(path[0]) if len(path) == 1 else field_at(fields, path)
        if type(value) is str and self._is_plain:
            return value.encode()
        if isinstance(value, bool) or not isinstance(value, str | int):
            return None
        return kafka_key_of(value, self._keys.spelling)

    def _key_of_several(self, fields: dict[str, Any]) -> bytes | None:
        found = {name: field_at(fields, path) for name, path in self._paths.items()}
        if any(isinstance(value, bool) or not isinstance(value, str | int) for value in found.values()):
            return None
        return spelt(found)


class RowDecoder:
    """Makes records of rows: the same ones that their messages would become."""

    def __init__(self, decoder: RecordDecoder, keys: Keys, topic: TopicConfig, limits: LimitsConfig) -> None:
        """Takes the decoder of the topic's rows, and where its message keys come from."""
        self._decoder = decoder
        self._messages = Messages(keys, limits.max_depth)
        self._max_depth = limits.max_depth
        # A message counts its key as well. Where that cannot matter, and the key is a field that Kafka's key can always
        # spell, none is made.
        self._max_bytes = limits.max_record_bytes - limits.max_key_bytes
        self._needs_message = topic.key is None or keys.row_number is not None or topic.kafka_key in INTEGER_BYTES

    def record_of(self, row: Row, number: int, position: Position) -> Record:
        """Returns the record of a row with a number, from 1. Raises RecordError for a row that can never be one."""
        if not self._needs_message and row.num_bytes <= self._max_bytes:
            fields = row.fields
            if fields is None:
                fields = fields_of(row, self._max_depth)
            if row.text is None or RAW not in fields:
                return self._decoder.from_fields(fields, row.num_bytes, position)
        message = self._messages.of(row, number)
        return self._decoder.decode(message.key, message.value, position, ())


def fields_of(row: Row, max_depth: int) -> dict[str, Any]:
    """Returns the fields of a row, of JSON as the topic's own parser gives them. Raises RecordError."""
    if row.error is not None:
        raise row.error
    return parse_object(row.text, max_depth) if row.text is not None else row.fields or {}


def _raw_message(fields: dict[str, Any]) -> Message:
    message = Message(_bytes(fields.get(_RAW_KEY)), _bytes(fields[RAW]))
    if message.key is None and message.value is None:
        raise RecordError(Reason.NO_KEY, f"a tombstone needs a {_RAW_KEY}")
    return message


def _bytes(value: Any) -> bytes | None:
    if value is None:
        return None
    return value.encode() if isinstance(value, str) else spelt(value)
