"""The formats of records: what turns the bytes of a value or of a Kafka key into what JSON can hold.

The one seam: live records, ranges of a topic, comparisons and dead letters are all read through it. A new format is one
function here. Keys, versions, text and payload are read from the fields by `pipeline.records.decode`, the same way for
every format.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import orjson

from pipeline.config.formats import STRING_FIELD
from pipeline.config.pipeline import LimitsConfig
from pipeline.config.source import SourceConfig, TopicConfig
from pipeline.errors import ConfigError, Reason, RecordError, RefractError
from pipeline.records.record import Headers
from pipeline.records.schemas.fields import Choices
from pipeline.records.schemas.framing import KEY_HEADER, VALUE_HEADER, frame_of
from pipeline.records.schemas.part import Parser, Part
from pipeline.records.schemas.registry import Schema, SchemaRegistry
from pipeline.records.schemas.wanted import EVERYTHING, NOTHING, wanted_of_keys, wanted_of_values
from pipeline.records.strict_json import parse_object, spelt


def _json(part: Part) -> Parser:
    max_depth = part.limits.max_depth
    return lambda data, _: parse_object(data, max_depth)


def _string(_: Part) -> Parser:
    return lambda data, _: {STRING_FIELD: _text(data)}


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise RecordError(Reason.INVALID_TEXT, "not UTF-8") from None


def _json_schema(part: Part) -> Parser:
    """JSON behind a schema's id. It can be read without the schema, so nobody is asked for that."""
    is_value, max_depth = part.is_value, part.limits.max_depth

    def parse(data: bytes, headers: Headers) -> Any:
        _, _, start = frame_of(data, headers, part.header, indexed=False)
        return parse_object(data[start:], max_depth) if is_value else _json_key(data[start:])

    return parse


def _json_key(data: bytes) -> Any:
    """Returns a key, which need not be an object."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        raise RecordError(Reason.INVALID_KEY, "the Kafka key is not JSON behind its schema id") from None


def _avro(part: Part) -> Parser:
    with _extra(part, "avro"):
        from pipeline.records.schemas.avro import avro_parser  # noqa: PLC0415 - fastavro only where it is used

        return avro_parser(part)


def _protobuf(part: Part) -> Parser:
    with _extra(part, "protobuf"):
        import grpc_tools  # noqa: F401, PLC0415 - the compiler runs as a process of its own

        from pipeline.records.schemas.protobuf import protobuf_parser  # noqa: PLC0415 - only where it is used

        return protobuf_parser(part)


@contextmanager
def _extra(part: Part, extra: str) -> Iterator[None]:
    """Says which extra a missing package belongs to."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{part.settings.setting}: {part.settings.encoding} needs the package {error.name}: "
            f"pip install 'refract[{extra}]'"
        ) from None


FORMATS: Mapping[str, Callable[[Part], Parser]] = {
    "json": _json,
    "json_schema": _json_schema,
    "avro": _avro,
    "protobuf": _protobuf,
    "string": _string,
}
"""Name -> what makes the parser of a part."""


def parsers_of(
    topic: TopicConfig, limits: LimitsConfig, registry: SchemaRegistry | None
) -> tuple[Parser, Parser | None]:
    """Returns what reads a topic's values, and its Kafka keys where those are more than text, JSON and integers.

    Raises ConfigError for a schema file that cannot be used, or a package that is missing.
    """
    values = Part(topic.values_as, VALUE_HEADER, wanted_of_values(topic), limits, registry)
    keys = Part(topic.keys_as, KEY_HEADER, wanted_of_keys(topic), limits, registry)
    return _parser(values), _parser(keys) if keys.settings.is_structured else None


def fields_known(
    topic: TopicConfig, limits: LimitsConfig, registry: SchemaRegistry | None, schema: Schema | None
) -> Choices | None:
    """Returns which fields a schema of a topic's values has; of its schema file where none is given.

    None where that cannot be said before a record is seen. Raises ConfigError, RecordError.
    """
    part = Part(topic.values_as, VALUE_HEADER, NOTHING, limits, registry)
    with _extra(part, topic.format):
        if topic.format == "avro":
            from pipeline.records.schemas import avro  # noqa: PLC0415 - fastavro only where it is used

            return avro.choices_of(part, schema)
        if topic.format == "protobuf":
            from pipeline.records.schemas import protobuf  # noqa: PLC0415 - only where it is used

            return protobuf.choices_of(part, schema)
    return None


def _parser(part: Part) -> Parser:
    return FORMATS[part.settings.encoding or ""](part)


class Shown:
    """What people are shown of records that are not text: the whole value or key as JSON, where it can be read."""

    def __init__(self, source: SourceConfig, limits: LimitsConfig) -> None:
        """Raises ConfigError like `parsers_of`."""
        registry = registry_of(source)
        self._parsers: dict[tuple[str, str], Parser] = {}
        for name, topic in source.topics.items():
            for settings, header in ((topic.values_as, VALUE_HEADER), (topic.keys_as, KEY_HEADER)):
                if settings.is_structured:
                    part = Part(settings, header, EVERYTHING, limits, registry)
                    self._parsers[name, header] = _parser(part)

    def value(self, topic: str, data: bytes | None, headers: Headers) -> str | None:
        """Returns a value as JSON; as the text that it is, or `hex:` and digits, where it cannot be read."""
        return self._shown(topic, VALUE_HEADER, data, headers)

    def key(self, topic: str, data: bytes | None, headers: Headers) -> str | None:
        """Returns a Kafka key likewise."""
        return self._shown(topic, KEY_HEADER, data, headers)

    def _shown(self, topic: str, header: str, data: bytes | None, headers: Headers) -> str | None:
        parser = self._parsers.get((topic, header))
        if data is None:
            return None
        if parser is not None:
            with suppress(RefractError):  # whoever looks at letters is shown bytes while the registry is away
                return spelt(parser(data, headers)).decode()
            if data[:1] in {b"\x00", b"\x01"}:  # a schema id, which may look like text
                return f"hex:{data.hex()}"
        try:
            return data.decode()
        except UnicodeDecodeError:
            return f"hex:{data.hex()}"


def registry_of(source: SourceConfig) -> SchemaRegistry | None:
    """Returns the registry of a configuration, to share among its topics."""
    return None if source.schema_registry is None else SchemaRegistry(source.schema_registry)
