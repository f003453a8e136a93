"""Decides what the bytes of one Kafka record mean: its key, version, text and payload, or why it has none.

`pipeline.records.formats` turns a value into fields, and may ask a schema registry for that; everything here works on
fields, whatever their format was, and keeps no state between records.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pipeline.clock import wall_clock_ms
from pipeline.config.paths import split_path
from pipeline.config.pipeline import LimitsConfig
from pipeline.config.source import SourceConfig, TopicConfig
from pipeline.errors import Reason, RecordError
from pipeline.records.formats import parsers_of, registry_of
from pipeline.records.headers import carried, decimal
from pipeline.records.payload import PayloadReader
from pipeline.records.record import MAX_VERSION, Headers, InvalidName, Position, Record, offset_version
from pipeline.records.schemas.part import Parser
from pipeline.records.values import (
    MISSING,
    Template,
    canonical_kafka_key,
    canonical_parsed_key,
    field_at,
    key_of_fields,
    tombstone_version,
    version_of,
)

VERSION_HEADER = "refract-version"
"""Header in which a record with a null value carries its version, as decimal digits."""

REPLAYED_VERSION_HEADER = "refract-replayed-version"
"""Header in which `refract dlq replay` keeps the version of a record whose offset was its version."""

_MAX_GROWTH = 5
"""The longest a value gets as text, compared with its JSON."""


class RecordDecoder(Protocol):
    """Turns keys and values of one topic into records. Thread-safe; keeps of records only which paths they had."""

    @property
    def unresolved(self) -> Sequence[str]:
        """Paths of the configuration that no record so far had, and may be misspelt.

        Without those of key and version, whose absence is an error of its own.
        """

    def decode(self, key: bytes | None, value: bytes | None, position: Position, headers: Headers) -> Record:
        """Returns the record of a message.

        Raises:
            RecordError: why it can never be one. The detail names fields and sizes, never text.
            TransientError: a schema registry that must be asked does not answer.
            EnvironmentFault: it refuses the credentials.
        """

    def from_fields(
        self,
        fields: dict[str, Any],
        num_value_bytes: int,
        position: Position,
        key: bytes | None = None,
        headers: Headers = (),
    ) -> Record:
        """Returns the record of a value that is already parsed, by the same rules. Raises RecordError.

        Args:
            fields: What JSON can hold; a file's row, for example.
            num_value_bytes: Size of the value as JSON, or more: a text within it needs no measuring.
            position: Where the record came from.
            key: The Kafka message key.
            headers: The record's headers.
        """


class Decoders:
    """The decoders of a configuration's topics."""

    def __init__(self, source: SourceConfig, limits: LimitsConfig, clock_ms: Callable[[], int] = wall_clock_ms) -> None:
        """Builds one decoder per topic. `clock_ms` is the wall clock that bounds time versions.

        Raises ConfigError for a schema file that cannot be used, or a package that a format needs and is missing.
        """
        registry = registry_of(source)
        self._decoders: dict[str, RecordDecoder] = {}
        self._row_decoders: dict[str, RecordDecoder] = {}
        for name, topic in source.topics.items():
            decoder = TopicDecoder(topic, limits, *parsers_of(topic, limits, registry), clock_ms)
            self._decoders[name] = self._row_decoders[name] = decoder
            if (as_rows := row_settings(topic)) is not topic:
                self._row_decoders[name] = TopicDecoder(as_rows, limits, *parsers_of(as_rows, limits, None), clock_ms)

    def of(self, topic: str) -> RecordDecoder:
        """Returns the decoder of a topic of the configuration."""
        return self._decoders[topic]

    def of_rows(self, topic: str) -> RecordDecoder:
        """Returns the decoder of rows of files that stand for a topic's records: they are JSON in every format."""
        return self._row_decoders[topic]


def row_settings(topic: TopicConfig) -> TopicConfig:
    """Returns by which settings rows of files are a topic's records: they have fields, and keys that JSON spells."""
    changes: dict[str, Any] = {}
    if topic.format != "json":
        changes |= {"format": "json", "schema_file": None, "message": None}
    if topic.keys_as.is_structured:
        changes |= {"kafka_key": "json", "key_schema_file": None, "key_message": None}
    return topic.model_copy(update=changes) if changes else topic


class TopicDecoder:
    """Implements `RecordDecoder` by the rules of a topic's configuration.

    The canonical key comes from the field `key`, else from the Kafka message key. A null value has
    no fields, so its Kafka key must name the record: it is read as the topic's `key_type` (see
    `canonical_kafka_key`), and matches what a field of the same text stored.

    The version comes from the field `version`, else from generation and offset (from the first ones
    where a dead letter was replayed: a later offset would make it newer than it is). A null value of a
    topic with a `version` field takes the header `refract-version`; else, with `version_type: time`,
    Kafka's timestamp; else it is refused, because every guess could lose against the record it
    deletes or win against a later one.

    Deletes keep no payload except `_key` and `_source`: what was deleted is gone.
    """

    def __init__(
        self,
        config: TopicConfig,
        limits: LimitsConfig,
        parser: Parser,
        key_parser: Parser | None = None,
        clock_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        """Takes what turns values into fields; `key_parser` does the same for Kafka keys that have a schema."""
        self._config = config
        self._limits = limits
        self._parser = parser
        self._key_parser = key_parser
        self._is_json = config.format in {"json", "json_schema"}
        self._clock_ms = clock_ms
        self._template = Template(config.text)
        self._key_paths = tuple(map(split_path, config.key_paths))
        self._version_path = split_path(config.version) if config.version else None
        self._integer_counts = config.version_type != "time"
        self._payload = PayloadReader(config, limits)
        self._marker = (split_path(config.delete_when.field), config.delete_when.equals) if config.delete_when else None
        schema = config.schema_version
        self._schema = (split_path(str(schema["field"])), int(schema["max"])) if schema else None
        self._unseen = tuple((path, split_path(path)) for path in config.watched_paths)

    @property
    def unresolved(self) -> Sequence[str]:
        """See `RecordDecoder.unresolved`."""
        return [path for path, _ in self._unseen]

    def decode(self, key: bytes | None, value: bytes | None, position: Position, headers: Headers) -> Record:
        """See `RecordDecoder.decode`."""
        num_bytes = record_bytes(key, value, headers)
        if num_bytes > self._limits.max_record_bytes:
            raise RecordError(
                Reason.RECORD_TOO_LARGE, f"{num_bytes} bytes, max_record_bytes is {self._limits.max_record_bytes}"
            )
        if headers and any(type(name) is InvalidName for name, _ in headers):
            raise RecordError(Reason.INVALID_HEADER, "the name of a header is not UTF-8")
        if value is None:
            canonical = self._check_key(self._kafka_key(key, headers))
            return self._delete(canonical, self._tombstone_version(position, headers), position)
        if not value:
            raise RecordError(Reason.EMPTY_VALUE, "the value has no bytes; a null value deletes")
        # Other formats write a text in fewer bytes than it has: a date, or the symbol of an enum.
        num_bytes = len(value) if self._is_json else self._limits.max_text_bytes + 1
        return self.from_fields(self._parser(value, headers), num_bytes, position, key, headers)

    def from_fields(
        self,
        fields: dict[str, Any],
        num_value_bytes: int,
        position: Position,
        key: bytes | None = None,
        headers: Headers = (),
    ) -> Record:
        """See `RecordDecoder.from_fields`."""
        if self._unseen:
            self._unseen = tuple(each for each in self._unseen if field_at(fields, each[1]) is MISSING)
        if self._schema is not None:
            self._check_schema(fields, *self._schema)
        canonical = self._check_key(self._key(key, headers, fields))
        version = self._version(fields, position, headers)
        misspelt = key is not None and self._is_misspelt(key, headers, canonical)
        if self._marker is not None and self._is_marked(fields, *self._marker):
            return self._delete(canonical, version, position, misspelt=misspelt)
        text = self._template.fill(fields)
        if text is None:
            if self._config.on_empty_text == "delete":
                return self._delete(canonical, version, position, misspelt=misspelt)
            raise RecordError(Reason.TEXT_EMPTY, "nothing but white space")
        self._check_text(text, num_value_bytes)
        payload, dropped = self._payload.read(fields, headers, position)
        stored = self._add_system_fields(payload, canonical, position)
        return Record(canonical, version, text, stored, position, misspelt, tuple(dropped))

    def _delete(self, key: str, version: int, position: Position, *, misspelt: bool = False) -> Record:
        return Record(key, version, None, self._add_system_fields({}, key, position), position, misspelt)

    def _is_misspelt(self, kafka_key: bytes, headers: Headers, canonical: str) -> bool:
        """Whether the Kafka key, which a null value would come with, spells another key than the field."""
        if not self._key_paths:
            return False
        try:
            return self._kafka_key(kafka_key, headers) != canonical
        except RecordError:
            return True

    def _add_system_fields(self, payload: dict[str, Any], key: str, position: Position) -> dict[str, Any]:
        payload["_key"] = key
        payload["_source"] = position.source
        return payload

    def _kafka_key(self, key: bytes | None, headers: Headers) -> str:
        if self._key_parser is None or not key:
            return canonical_kafka_key(key, self._config)
        return canonical_parsed_key(self._key_parser(key, headers), self._config)

    def _key(self, key: bytes | None, headers: Headers, fields: dict[str, Any]) -> str:
        if not self._key_paths:
            return self._kafka_key(key, headers)
        return key_of_fields(fields, self._key_paths, self._config.key_types)

    def _check_key(self, key: str) -> str:
        # A character has at most four bytes, so most keys need no encoding to be measured.
        if len(key) * 4 > self._limits.max_key_bytes and len(key.encode()) - 2 > self._limits.max_key_bytes:
            raise RecordError(Reason.KEY_TOO_LARGE, f"longer than max_key_bytes, {self._limits.max_key_bytes}")
        return key

    def _check_schema(self, fields: dict[str, Any], path: tuple[str, ...], newest: int) -> None:
        found = field_at(fields, path)
        if found is MISSING:
            return
        if type(found) is not int:
            raise RecordError(Reason.SCHEMA_VERSION, f"{'.'.join(path)} is not an integer")
        if found > newest:
            raise RecordError(Reason.SCHEMA_VERSION, f"{'.'.join(path)} {found} is newer than {newest}")

    def _version(self, fields: dict[str, Any], position: Position, headers: Headers) -> int:
        if self._version_path is None:
            return self._offset_version(position, headers)
        value = field_at(fields, self._version_path)
        if type(value) is int and self._integer_counts and 0 <= value <= MAX_VERSION:
            return value
        return version_of(value, self._config.version_type, self._latest_ms())

    def _tombstone_version(self, position: Position, headers: Headers) -> int:
        if self._version_path is None:
            return self._offset_version(position, headers)
        if given := carried(headers, VERSION_HEADER):
            return tombstone_version(decimal(given[-1]), self._config.version_type, self._latest_ms())
        if self._config.version_type == "time" and position.timestamp_ms >= 0:
            return tombstone_version(position.timestamp_ms, "time", self._latest_ms())
        raise RecordError(
            Reason.VERSION_MISSING,
            f"a null value has no field {self._config.version}: send the header {VERSION_HEADER}, "
            f"or set version_type: time where Kafka's timestamp is comparable",
        )

    def _offset_version(self, position: Position, headers: Headers) -> int:
        own = offset_version(self._config.generation, position.offset)
        if given := carried(headers, REPLAYED_VERSION_HEADER):
            first = version_of(decimal(given[-1]), "integer", 0)
            if first > own:
                raise RecordError(Reason.INVALID_VERSION, f"{REPLAYED_VERSION_HEADER} is newer than the offset")
            return first
        return own

    def _latest_ms(self) -> int:
        return self._clock_ms() + self._config.max_version_ahead_s * 1000

    def _is_marked(self, fields: dict[str, Any], path: tuple[str, ...], marker: object) -> bool:
        found = field_at(fields, path)
        return type(found) is type(marker) and bool(found == marker)

    def _check_text(self, text: str, num_value_bytes: int) -> None:
        limit = self._limits.max_text_bytes
        # JSON spells a character with at least its UTF-8 bytes, so a small value needs no second look. A number may
        # grow: 1e15 is stored as 1000000000000000.0.
        if num_value_bytes * self._template.num_fields * _MAX_GROWTH + self._template.num_literal_bytes <= limit:
            return
        num_bytes = len(text.encode())
        if num_bytes > limit:
            raise RecordError(Reason.TEXT_TOO_LARGE, f"{num_bytes} bytes, max_text_bytes is {limit}")


def record_bytes(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """Returns the size of a record: key, value and headers."""
    size = (len(key) if key else 0) + (len(value) if value else 0)
    for name, header in headers:
        size += len(name) + (len(header) if header else 0)
    return size
