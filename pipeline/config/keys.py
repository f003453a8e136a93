"""What identifies a record, and which topics share keys."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import PlainValidator

from pipeline.config.base import FIELD_PATH_MEANING, is_field_path


def _key_paths(value: object) -> str | tuple[str, ...]:
    paths = value if isinstance(value, list | tuple) else [value]
    found = tuple(path for path in paths if isinstance(path, str) and is_field_path(path))
    if not found or len(found) != len(paths):
        raise ValueError(f"{FIELD_PATH_MEANING}; several fields that are one key are a list of paths")
    if len(set(found)) != len(found):
        raise ValueError("names a field twice")
    return found if len(found) > 1 else found[0]


KeyPaths = Annotated[str | tuple[str, ...], PlainValidator(_key_paths)]
"""The path of the field that identifies a record, or of several that do together."""

KeyType = Literal["string", "integer"]


def shared_keys_fault(topics: Mapping[str, Any]) -> str | None:
    """Returns what is wrong with topics that share keys: they compare their versions, which must mean the same."""
    first: dict[str, str] = {}
    for name, ours in topics.items():
        space = ours.key_space or name
        other = first.setdefault(space, name)
        theirs = topics[other]
        if other != name and (ours.version is None or theirs.version is None):
            return (
                f"topics {other!r} and {name!r} share the key space {space!r}, but Kafka offsets of two topics are "
                f"not comparable: give both a `version` field, or each its own key_space"
            )
        if ours.version_type != theirs.version_type:
            return f"topics {other!r} and {name!r} share the key space {space!r}, so their version_type must be equal"
    return None
