"""Finds the reader of each record: by its schema's id, or the one of a schema file."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, Reason, RecordError
from pipeline.records.record import Headers
from pipeline.records.schemas.framing import frame_of
from pipeline.records.schemas.part import Parser, Part
from pipeline.records.schemas.registry import MAX_SCHEMAS, Schema, SchemaId, SchemaRegistry, with_references

Read = Callable[[bytes, int], Any]
"""Returns the value that begins at a place. Raises RecordError."""

Build = Callable[[Schema, Mapping[str, Schema], tuple[int, ...]], Read]
"""Makes the reader of a schema, of those that it uses, and of a message's indexes. Raises RecordError."""


class Readers:
    """The readers of a registry's schemas, made when a record asks for one. Thread-safe."""

    def __init__(self, registry: SchemaRegistry, build: Build) -> None:
        self._registry = registry
        self._build = build
        self._lock = threading.Lock()
        self._known: dict[tuple[SchemaId, tuple[int, ...]], Read] = {}

    def of(self, identifier: SchemaId, indexes: tuple[int, ...]) -> Read:
        """Returns the reader of a schema's message. Raises like `SchemaRegistry.schema`."""
        known = self._known.get((identifier, indexes))
        return known or self._made(identifier, indexes)

    def _made(self, identifier: SchemaId, indexes: tuple[int, ...]) -> Read:
        with self._lock:
            if (known := self._known.get((identifier, indexes))) is not None:
                return known
            schema = self._registry.schema(identifier)
            used = with_references(self._registry, schema)
            try:
                made = self._build(schema, used, indexes)
            except RecordError as error:
                made = _refusal(error)
            if len(self._known) >= MAX_SCHEMAS:
                self._known.clear()
            self._known[identifier, indexes] = made
            return made


def _refusal(error: RecordError) -> Read:
    """Returns a reader of what cannot be read: a schema that cannot be used stays one."""

    def refuse(_data: bytes, _start: int) -> Any:
        raise RecordError(error.reason, error.detail)

    return refuse


def registered_parser(part: Part, build: Build, *, indexed: bool = False) -> Parser:
    """Returns what reads records that say their schema."""
    if part.registry is None:
        raise ConfigError(f"{part.settings.setting}: {part.settings.encoding} needs source.schema_registry")
    readers, header, is_value = Readers(part.registry, build), part.header, part.is_value

    def parse(data: bytes, headers: Headers) -> Any:
        identifier, indexes, start = frame_of(data, headers, header, indexed=indexed)
        return checked(readers.of(identifier, indexes)(data, start), is_value)

    return parse


def file_parser(part: Part, read: Read) -> Parser:
    """Returns what reads records that all have the schema of a file."""
    is_value = part.is_value
    return lambda data, _: checked(read(data, 0), is_value)


def checked(value: Any, is_value: bool) -> Any:  # noqa: FBT001 - the flag is the call's own subject
    """Returns what was read, of which values must be objects. Raises RecordError."""
    if is_value and type(value) is not dict:
        raise RecordError(Reason.NOT_AN_OBJECT, "the schema's value is not a record")
    return value


def file_bytes(part: Part) -> bytes:
    """Returns the content of a part's schema file. Raises ConfigError."""
    path = part.settings.schema_file or Path()
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{part.settings.prefix}schema_file: {path} cannot be read ({error.strerror})") from None


def in_file(part: Part, error: RecordError) -> ConfigError:
    """Returns an error of a schema as that of a part's schema file."""
    return ConfigError(f"{part.settings.prefix}schema_file: {part.settings.schema_file}: {error.detail}")
