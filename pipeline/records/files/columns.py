"""Turns Arrow batches into rows: a value that cannot be read costs its row, and names its column."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import RecordError
from pipeline.records.batches import Int64
from pipeline.records.files.arrow_values import depth_of, is_text, plain_type, values_of
from pipeline.records.files.reading import Reading, Row
from pipeline.records.meaning import Expected, value_of
from pipeline.records.strict_json import MAX_SPELT

ESCAPED = 6
"""JSON's longest spelling of a byte: \\u001f for a control character."""

VALUE_BYTES = 48
"""Name, quotes and digits of one value, at most; longer names and texts count by themselves."""


_JUDGED_AS_JSON = 1 << 50
"""More bytes than any limit: a row of so many is written as JSON, and judged as that."""


def in_column(name: str, error: RecordError) -> RecordError:
    """Returns an error of a value as that of its column."""
    return RecordError(error.reason, f"column {name!r}: {error.detail}")


def rows_of(batch: Any, reading: Reading, constants: Mapping[str, Any], first: int) -> list[Row]:
    """Returns the rows of an Arrow batch. `constants` are fields of every row that the batch does not hold.

    Args:
        batch: A record batch that has the columns which the rows shall have.
        reading: How the topic's files are read.
        constants: Fields of every row, unless the batch has a column of that name.
        first: Number of the first row in its file, from 1.
    """
    names = list(batch.schema.names)
    bounds = np.full(batch.num_rows, num_constant_bytes(constants) + num_name_bytes(names), np.int64)
    errors: dict[int, RecordError] = {}
    columns = []
    for name, column in zip(names, batch.columns, strict=True):
        values, bad = _values(column, name, reading.expected.get(name))
        if name in reading.needed:
            errors |= bad
        columns.append(values)
        bounds += _sizes(column, values, reading.max_depth)
    rows = zip(*columns, strict=True) if columns else iter([()] * batch.num_rows)
    found = [
        Row(("row", number), size, dict(zip(names, row)))  # noqa: B905 - a value per name; `strict` costs time per row
        for number, (row, size) in enumerate(zip(rows, bounds.tolist(), strict=True), start=first)
    ]
    if constants:
        for row in found:
            row.fields = {**constants, **(row.fields or {})}
    for at, error in errors.items():
        found[at] = Row(found[at].at, error=error)
    return found


def num_name_bytes(names: Sequence[str]) -> int:
    """Returns an upper bound of an object's bytes as JSON, without those of its texts."""
    return 2 + sum(VALUE_BYTES + len(name.encode()) * ESCAPED for name in names)


def num_constant_bytes(constants: Mapping[str, Any]) -> int:
    """Returns an upper bound of the bytes that constants add to an object."""
    return num_name_bytes([*constants]) + sum(len(str(value).encode()) * ESCAPED for value in constants.values())


def _values(column: Any, name: str, expected: Expected | None) -> tuple[list[Any], dict[int, RecordError]]:
    """Returns a column's values, null where they are bad, and by row what is bad about them."""
    # Texts of text columns mean themselves; a decimal is a text only because JSON has no decimals.
    meaning = expected if pa.types.is_decimal(plain_type(column.type)) else None
    try:
        return _meant(values_of(column), meaning), {}
    except RecordError:
        pass
    values: list[Any] = []
    bad: dict[int, RecordError] = {}
    for at in range(len(column)):
        try:
            values += _meant(values_of(column.slice(at, 1)), meaning)
        except RecordError as error:
            bad[at] = in_column(name, error)
            values.append(None)
    return values, bad


def _meant(values: list[Any], expected: Expected | None) -> list[Any]:
    if expected is None:
        return values
    return [None if value is None else value_of(value, expected) for value in values]


def _sizes(column: Any, values: Sequence[Any], max_depth: int) -> Int64 | int:
    """Returns how much each value may add to its row's bytes, beyond VALUE_BYTES."""
    kind = column.type
    if 1 + depth_of(kind) > min(max_depth, MAX_SPELT):
        return _JUDGED_AS_JSON
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return 0
    if is_text(kind) and not pa.types.is_fixed_size_binary(kind):
        if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
            column = column.cast(pa.large_binary())
        lengths = pc.fill_null(pc.binary_length(column), 0)
        return lengths.to_numpy(zero_copy_only=False).astype(np.int64) * ESCAPED  # type: ignore[no-any-return]
    return np.fromiter((len(orjson.dumps(value)) for value in values), np.int64, len(values))
