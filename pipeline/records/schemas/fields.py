"""Whether a topic's paths lead to something in a schema: for `refract check`, before any record is read."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.config.paths import split_path
from pipeline.config.source import PLACEHOLDER, TopicConfig
from pipeline.errors import nearest

Choices = Callable[[tuple[str, ...]], Sequence[str] | None]
"""Returns None where a path may have a value, else the names that there are where it ends."""


def path_faults(topic: TopicConfig, choices: Choices, what: str) -> Iterator[tuple[bool, str]]:
    """Yields for each path that a schema of a topic's values lacks whether every record needs it, and a message.

    `what` names the schema.
    """
    for setting, path, needed in _paths(topic):
        names = choices(split_path(path))
        if names is not None:
            known = f" Fields: {', '.join(sorted(names)[:20])}" if names else ""
            # The wrong name is the first one behind those that lead somewhere, so most likely the last.
            hint = next((hint for part in reversed(split_path(path)) if (hint := nearest(part, names))), "")
            yield needed, f"{setting}: {what} has no field {path!r}.{hint}{known}"


def _paths(topic: TopicConfig) -> Iterator[tuple[str, str, bool]]:
    for path in topic.key_paths:
        yield "key", path, True
    if topic.version is not None:
        yield "version", topic.version, True
    for path in PLACEHOLDER.findall(topic.text):
        yield "text", path.removesuffix("?"), not path.endswith("?")
    for path in topic.payload_fields.values():
        yield "payload", path, False
    if topic.delete_when is not None:
        yield "delete_when.field", topic.delete_when.field, False
    if topic.schema_version is not None:
        yield "schema_version.field", str(topic.schema_version["field"]), False


def avro_choices(schema: Any, named: Mapping[str, Any]) -> Choices:
    """Returns the choices of an Avro schema, as `parse_schema` returns it, and of the types that it names."""

    def choices(path: tuple[str, ...], at: Any = schema) -> Sequence[str] | None:
        at = named.get(at, at) if isinstance(at, str) else at
        if not path:
            return None
        if isinstance(at, list):
            found = [choices(path, branch) for branch in at]
            return None if None in found else [name for names in found for name in names or ()]
        if not isinstance(at, dict):
            return []
        kind = at["type"]
        if kind in {"array", "map"}:
            return choices(path[1:], at["items" if kind == "array" else "values"])
        if kind not in {"record", "error"}:
            return choices(path, kind) if kind in named or not isinstance(kind, str) else []
        inside = next((field["type"] for field in at["fields"] if field["name"] == path[0]), None)
        return [field["name"] for field in at["fields"]] if inside is None else choices(path[1:], inside)

    return choices


def protobuf_choices(message: Any) -> Choices:
    """Returns the choices of a message's descriptor."""

    def choices(path: tuple[str, ...], at: Any = message) -> Sequence[str] | None:
        if not path or (at is not None and at.full_name in _OPEN):
            return None
        if at is None:
            return []
        field = at.fields_by_name.get(path[0])
        if field is None:
            return [known.name for known in at.fields]
        inside, rest = field.message_type, path[1:]
        if inside is not None and inside.GetOptions().map_entry:
            return choices(rest[1:], inside.fields_by_name["value"].message_type) if rest else None
        return choices(rest[1:] if field.is_repeated else rest, inside)

    return choices


_OPEN = frozenset({"google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue"})
"""Messages that hold whatever JSON can."""
