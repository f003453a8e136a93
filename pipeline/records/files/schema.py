"""Checks before anything is read whether the columns of files can make records of a topic."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.config.paths import split_path, top_names
from pipeline.config.source import PLACEHOLDER, TopicConfig
from pipeline.errors import ConfigError, nearest
from pipeline.records.files.arrow_values import is_written_as_text, plain_type
from pipeline.records.files.filesystems import READ_ERRORS
from pipeline.records.files.folders import hive_columns
from pipeline.records.files.kinds import Format
from pipeline.records.files.listing import FilePart
from pipeline.records.files.parquet_rows import open_parquet
from pipeline.records.files.reading import FileFault
from pipeline.records.files.text_rows import open_table

Column = tuple[str, Any]
"""Name, and Arrow type; None for a column of texts that may mean anything."""

_HEADER_BYTES = 1 << 20


class Need(NamedTuple):
    """What a topic's configuration asks of one field."""

    path: str
    what: str
    """Who asks, for messages."""
    fits: Any
    """Whether an Arrow type can be it."""
    required: bool = True
    """Whether a file without such a column is refused."""


def check_columns(
    parts: Iterable[FilePart], topic: TopicConfig, extra: Collection[str] = (), keys: Iterable[str] = ()
) -> None:
    """Raises ConfigError for a file whose columns cannot make records. Files that cannot be opened pass.

    Args:
        parts: Parts of the files.
        topic: By whose rules they are read.
        extra: Columns that every row gets besides those of its file.
        keys: Paths of the fields that become the Kafka message key, where the command line names one.
    """
    needs = needs_of(topic)
    needs += [
        Need(key, "the message key", lambda kind: is_written_as_text(kind) or pa.types.is_integer(kind)) for key in keys
    ]
    stored = [name for path in topic.payload_fields.values() for name in top_names(path)]
    for part in {part.uri: part for part in reversed(list(parts))}.values():
        try:
            columns = columns_of(part)
        except (FileFault, *READ_ERRORS):
            continue  # it fails when it is read, and is reported then
        if columns:
            check_schema(part.uri, columns, needs, {*extra, *hive_columns(part.uri)})
            _check_once(part.uri, [name for name, _ in columns], stored, "`payload`")


def columns_of(part: FilePart) -> Sequence[Column]:
    """Returns the columns of a file; none of JSON. Raises FileFault, or as pyarrow, where it cannot be opened."""
    if not part.kind.has_columns:
        return ()
    if part.kind.format is Format.PARQUET:
        with open_parquet(part) as parquet:
            schema = parquet.schema_arrow
        return [(field.name, field.type) for field in schema]
    return [(name, None) for name in open_table(part, _HEADER_BYTES).names]


def check_schema(file: str, columns: Sequence[Column], needs: Iterable[Need], constants: Collection[str]) -> None:
    """Raises ConfigError for a file that lacks a column, has it twice, or has it with a type that cannot be it."""
    names = [name for name, _ in columns]
    for need in needs:
        path = split_path(need.path)
        flat = ".".join(path)
        name, inner = (flat, ()) if flat in names or flat in constants else (path[0], path[1:])
        if name not in names and name not in constants:
            if need.required:
                raise ConfigError(
                    f"{file}: no column {name!r}, which {need.what} needs.{nearest(name, {*names, *constants})}"
                    f"{_separator_hint(names)} Nothing was written"
                )
            continue
        _check_once(file, names, [name], need.what)
        kind = dict(columns).get(name)
        if kind is not None and name in names:
            _check_type(file, name, _inner_type(kind, inner), kind, need)


def _check_once(file: str, names: Sequence[str], wanted: Iterable[str], what: str) -> None:
    for name in wanted:
        if names.count(name) > 1:
            raise ConfigError(f"{file}: two columns are called {name!r}, which {what} needs. Nothing was written")


def _check_type(file: str, name: str, found: Any, kind: Any, need: Need) -> None:
    if found is not None and (pa.types.is_null(found) or need.fits(found)):
        return
    raise ConfigError(f"{file}: column {name!r} holds {kind}, which {need.what} cannot be. Nothing was written")


def _inner_type(kind: Any, path: Sequence[str]) -> Any:
    """Returns the type of a field within structs and maps; None where there is none."""
    kind = plain_type(kind)
    for name in path:
        if pa.types.is_map(kind):
            kind = plain_type(kind.item_type)
        elif pa.types.is_struct(kind) and kind.get_field_index(name) >= 0:
            kind = plain_type(kind.field(name).type)
        else:
            return None
    return kind


def _separator_hint(names: Sequence[str]) -> str:
    signs = [sign for sign in (";", "\t", "|") if len(names) == 1 and sign in names[0]]
    return f" Its header seems to be divided by {signs[0]!r}; CSV is divided by commas." if signs else ""


def needs_of(topic: TopicConfig) -> list[Need]:
    """Returns what the configuration asks of columns."""
    required = [path for path in PLACEHOLDER.findall(topic.text) if not path.endswith("?")]
    optional = [path.removesuffix("?") for path in PLACEHOLDER.findall(topic.text) if path.endswith("?")]
    needs = [Need(path, "`text`", is_written_as_text) for path in required]
    needs += [Need(path, "`text`", is_written_as_text, required=False) for path in optional]
    for path, kind in zip(topic.key_paths, topic.key_types, strict=False):  # a Kafka key has a type and no path
        needs.append(Need(path, f"`key` ({kind})", is_written_as_text if kind == "string" else _is_integer))
    if topic.version is not None:
        fits = _is_integer if topic.version_type == "integer" else _is_integer_or_time
        needs.append(Need(topic.version, "`version`", fits))
    if topic.delete_when is not None:
        marker = topic.delete_when
        what = f"`delete_when.equals` ({marker.equals!r})"
        needs.append(Need(marker.field, what, _marked_by(marker.equals), required=False))
    if topic.schema_version is not None:
        needs.append(Need(str(topic.schema_version["field"]), "`schema_version`", _is_integer, required=False))
    return needs


def _is_integer(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or (pa.types.is_decimal(kind) and kind.scale == 0))


def _is_integer_or_time(kind: Any) -> bool:
    if pa.types.is_timestamp(kind):
        return kind.tz is not None
    is_text = is_written_as_text(kind) and not pa.types.is_decimal(kind)
    return is_text or _is_integer(kind)


def _marked_by(marker: object) -> Any:
    if isinstance(marker, bool):
        return lambda kind: pa.types.is_boolean(kind) or getattr(kind, "extension_name", "") == "arrow.bool8"
    if isinstance(marker, int):
        return _is_integer
    if isinstance(marker, float):
        return lambda kind: pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    return is_written_as_text if isinstance(marker, str) else lambda _kind: True
