"""Turns Arrow batches into rows of fields, as if each row had come as a JSON object; and checks columns beforehand.

Text, integers and booleans are taken as they are. Whatever else a column holds makes the way through JSON once per
batch, so that a row means what the same object would mean in the topic.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.source import PLACEHOLDER, TopicConfig
from pipeline.errors import ConfigError, Reason, RecordError, nearest
from pipeline.records.batches import Int64

Rows = list[dict[str, Any] | RecordError]

_ESCAPED = 6
"""JSON's longest spelling of a byte: \\u001f for a control character."""

_VALUE_BYTES = 32
"""Name, quotes and digits of one value, at most; longer names count by themselves."""


def rows_of(batch: Any, constants: Mapping[str, str]) -> tuple[Rows, Int64]:
    """Returns the rows of an Arrow batch as fields, and an upper bound of each one's bytes as JSON.

    `constants` are fields of every row that the batch does not hold. A row with text that is not UTF-8 comes as the
    error it is.
    """
    names = list(batch.schema.names)
    bounds = np.full(batch.num_rows, 2 + sum(_VALUE_BYTES + len(name) * _ESCAPED for name in names), np.int64)
    bounds += sum(_VALUE_BYTES + (len(name) + len(value)) * _ESCAPED for name, value in constants.items())
    broken: set[int] = set()
    columns = []
    for column in batch.columns:
        values, sizes = _values(column, broken)
        columns.append(values)
        bounds += sizes
    fixed = dict(constants)
    if not columns:
        return [dict(fixed) for _ in range(batch.num_rows)], bounds
    rows: Rows = [{**fixed, **dict(zip(names, row, strict=True))} for row in zip(*columns, strict=True)]
    for number in broken:
        rows[number] = RecordError(Reason.INVALID_JSON, "not UTF-8")
    return rows, bounds


def check_schema(file: str, schema: Any, topic: TopicConfig, constants: Collection[str]) -> None:
    """Raises ConfigError for a file whose rows cannot be records: a column missing, twice, or of a wrong type."""
    names = list(schema.names)
    known = {*names, *constants}
    for column, what, fits in _needed(topic):
        if column not in known:
            raise ConfigError(
                f"{file}: no column {column!r}, which {what} needs.{nearest(column, known)} Nothing was written"
            )
        if names.count(column) > 1:
            raise ConfigError(f"{file}: two columns are called {column!r}, which {what} needs. Nothing was written")
        if column in names and not fits(_plain(schema.field(column).type)):
            raise ConfigError(
                f"{file}: column {column!r} holds {schema.field(column).type}, which {what} cannot be. Nothing "
                "was written"
            )


def _needed(topic: TopicConfig) -> list[tuple[str, str, Any]]:
    """Returns (column, what needs it, which types do) of all that no record can be without."""
    required = [path for path in PLACEHOLDER.findall(topic.text) if not path.endswith("?")]
    needed = [(path, "`text`", _is_text) for path in required]
    if topic.key is not None:
        needed.append((topic.key, f"`key` ({topic.key_type})", _is_text if topic.key_type == "string" else _is_integer))
    if topic.version is not None:
        needed.append((topic.version, "`version`", _is_version(topic.version_type)))
    # Of `customer.name` the file has the column `customer`; what is inside shows row by row.
    return [
        (path.partition(".")[0], what, fits if "." not in path else pa.types.is_nested) for path, what, fits in needed
    ]


def _plain(kind: Any) -> Any:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: Any) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_null(kind)
    )


def _is_integer(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_null(kind))


def _is_version(version_type: str | None) -> Any:
    def fits(kind: Any) -> bool:
        is_time = _is_text(kind) or (pa.types.is_timestamp(kind) and kind.tz is not None)
        return _is_integer(kind) or (is_time and version_type != "integer")

    return fits


def _values(column: Any, broken: set[int]) -> tuple[Sequence[Any], Int64 | int]:
    """Returns a column's values as JSON would give them, and their sizes; adds the rows that are not UTF-8."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return column.to_pylist(), 0
    if _is_text(kind):
        sizes = pc.fill_null(pc.binary_length(column), 0).to_numpy(zero_copy_only=False).astype(np.int64) * _ESCAPED
        return _texts(column, broken), sizes
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        # Python's times end at microseconds, and versions at milliseconds.
        column = pc.cast(column, pa.timestamp("us", kind.tz), safe=False)
    values = column.to_pylist()
    spelled = [orjson.dumps(value, default=_spell) for value in values]
    sizes = np.fromiter(map(len, spelled), np.int64, len(spelled))
    parsed: list[Any] = orjson.loads(b"[" + b",".join(spelled) + b"]")
    return parsed, sizes


def _texts(column: Any, broken: set[int]) -> Sequence[Any]:
    try:
        values: list[Any] = column.to_pylist()
        if not pa.types.is_string(column.type) and values and any(type(value) is bytes for value in values):
            values = [value if value is None else value.decode() for value in values]
    except UnicodeDecodeError:
        # Parquet's strings are whatever their writer called so.
        values = []
        for row, value in enumerate(column.cast(pa.large_binary()).to_pylist()):
            try:
                values.append(None if value is None else value.decode())
            except UnicodeDecodeError:
                broken.add(row)
                values.append(None)
    return values


def _spell(value: Any) -> Any:
    """What orjson does not spell itself: decimals, durations, and bytes inside of lists and structs."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
