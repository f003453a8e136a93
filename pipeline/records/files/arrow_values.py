"""What each Arrow type means as JSON, alone and within lists, maps and structs; docs/files.md has the table.

Nothing is rounded, and nothing depends on the time zones or packages of the machine that reads.
"""

from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pyarrow as pa

from pipeline.errors import Reason, RecordError
from pipeline.records.spelling import NS, date, duration, moment, number_or_null, text, time_of_day, uuid

_DAY_MS = 86_400_000

Values = list[Any]


def values_of(column: Any) -> Values:
    """Returns the values of an Arrow array as JSON has them: orjson reads of them what it writes.

    Raises RecordError for a value that JSON or the calendar does not have.
    """
    convert = next((convert for fits, convert in _CONVERTERS if fits(column.type)), None)
    if convert is None:
        raise RecordError(Reason.INVALID_ROW, f"the type {column.type} has no meaning as JSON")
    return convert(column)


def is_text(kind: Any) -> bool:
    """Whether the values of a type are texts: strings, and bytes that are UTF-8."""
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def is_written_as_text(kind: Any) -> bool:
    """Whether the values of a type become texts as JSON: those of `is_text`, and what JSON has no type for."""
    return bool(
        is_text(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_date(kind)
        or pa.types.is_time(kind)
        or pa.types.is_timestamp(kind)
        or pa.types.is_duration(kind)
        or _extension_name(kind) == "arrow.uuid"
    )


def plain_type(kind: Any) -> Any:
    """Returns the type of a dictionary's values, and the storage of an extension that has no meaning of its own."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType) and _extension_name(kind) not in {"arrow.uuid", "arrow.bool8"}:
        return plain_type(kind.storage_type)
    return kind


def depth_of(kind: Any) -> int:
    """Returns how many levels of objects and arrays the values of a type have."""
    kind = plain_type(kind)
    if not pa.types.is_nested(kind):
        return 0
    children = [kind.item_type] if pa.types.is_map(kind) else [kind.field(at).type for at in range(kind.num_fields)]
    return 1 + max((depth_of(child) for child in children), default=0)


def _plain(column: Any) -> Values:
    return list(column.to_pylist())


def _texts(column: Any) -> Values:
    is_decoded = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    try:
        if is_decoded:
            return _plain(column)
        return [text(value) if type(value) is bytes else value for value in column.to_pylist()]
    except UnicodeDecodeError:  # Parquet's strings are whatever their writer called so
        raise RecordError(Reason.INVALID_ROW, "not UTF-8") from None


def _floats(column: Any) -> Values:
    return [None if value is None else number_or_null(value) for value in column.to_pylist()]


def _decimals(column: Any) -> Values:
    return [None if value is None else format(value, "f") for value in column.to_pylist()]


def _dates(column: Any) -> Values:
    in_days = pa.types.is_date32(column.type)
    numbers = column.cast(pa.int32() if in_days else pa.int64()).to_pylist()
    return [None if number is None else date(number if in_days else number // _DAY_MS) for number in numbers]


def _times(column: Any) -> Values:
    unit = NS[column.type.unit]
    numbers = column.cast(pa.int32() if pa.types.is_time32(column.type) else pa.int64()).to_pylist()
    return [None if number is None else time_of_day(number * unit) for number in numbers]


def _timestamps(column: Any) -> Values:
    unit = NS[column.type.unit]
    # An instant whatever the zone's name: it is written in UTC. Without a zone it is a time of an unknown place.
    offset = "" if column.type.tz is None else "+00:00"
    numbers = column.cast(pa.int64()).to_pylist()
    return [None if number is None else moment(number * unit) + offset for number in numbers]


def _durations(column: Any) -> Values:
    unit = NS[column.type.unit]
    return [None if number is None else duration(number * unit) for number in column.cast(pa.int64()).to_pylist()]


def _lists(column: Any) -> Values:
    ranges = list(_ranges(column))
    children, first = _children(column.values, ranges)
    return [None if place is None else children[place[0] - first : place[1] - first] for place in ranges]


def _fixed_lists(column: Any) -> Values:
    size = column.type.list_size
    children = iter(values_of(column.flatten()))
    return [[next(children) for _ in range(size)] if valid else None for valid in column.is_valid().to_pylist()]


def _maps(column: Any) -> Values:
    """Objects, as JSON has no other maps: keys that are not texts are written as JSON writes their values."""
    ranges = list(_ranges(column))
    keys, first = _children(column.keys, ranges)
    items, _ = _children(column.items, ranges)
    names = [key if type(key) is str else orjson.dumps(key).decode() for key in keys]
    found: Values = []
    for place in ranges:
        if place is None:
            found.append(None)
            continue
        begin, end = place[0] - first, place[1] - first
        row = dict(zip(names[begin:end], items[begin:end], strict=True))
        if len(row) != end - begin:
            raise RecordError(Reason.DUPLICATE_FIELD, "a map has the same key twice")
        found.append(row)
    return found


def _ranges(column: Any) -> Iterator[tuple[int, int] | None]:
    """Yields where each list's values begin and end among the children; None for null."""
    begins = column.offsets.to_pylist()
    if pa.types.is_list_view(column.type) or pa.types.is_large_list_view(column.type):
        ends = [begin + size for begin, size in zip(begins, column.sizes.to_pylist(), strict=True)]
    else:
        begins, ends = begins[:-1], begins[1:]
    for begin, end, valid in zip(begins, ends, column.is_valid().to_pylist(), strict=True):
        yield (begin, end) if valid else None


def _children(column: Any, ranges: list[tuple[int, int] | None]) -> tuple[Values, int]:
    """Returns the values that the ranges need, and the place of the first of them."""
    needed = [place for place in ranges if place is not None and place[0] < place[1]]
    if not needed:
        return [], 0
    first, last = min(begin for begin, _ in needed), max(end for _, end in needed)
    return values_of(column.slice(first, last - first)), first


def _structs(column: Any) -> Values:
    names = [column.type.field(at).name for at in range(column.type.num_fields)]
    valid = column.is_valid().to_pylist()
    if len(set(names)) != len(names) and any(valid):
        raise RecordError(Reason.DUPLICATE_FIELD, "a struct has the same field twice")
    children = [values_of(child) for child in column.flatten()]
    if not names:
        return [{} if each else None for each in valid]
    rows = zip(*children, strict=True)
    return [dict(zip(names, row, strict=True)) if each else None for row, each in zip(rows, valid, strict=True)]


def _extensions(column: Any) -> Values:
    name = _extension_name(column.type)
    if name == "arrow.uuid":
        return [None if value is None else uuid(value) for value in column.storage.to_pylist()]
    if name == "arrow.bool8":
        return [None if value is None else value != 0 for value in column.storage.to_pylist()]
    return values_of(column.storage)


def _extension_name(kind: Any) -> str:
    return str(kind.extension_name) if isinstance(kind, pa.BaseExtensionType) else ""


def _is_list(kind: Any) -> bool:
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


_CONVERTERS: tuple[tuple[Callable[[Any], bool], Callable[[Any], Values]], ...] = (
    (lambda kind: isinstance(kind, pa.BaseExtensionType), _extensions),
    (pa.types.is_dictionary, lambda column: values_of(column.dictionary_decode())),
    (is_text, _texts),
    (lambda kind: pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind), _plain),
    (pa.types.is_floating, _floats),
    (pa.types.is_decimal, _decimals),
    (pa.types.is_date, _dates),
    (pa.types.is_time, _times),
    (pa.types.is_timestamp, _timestamps),
    (pa.types.is_duration, _durations),
    (pa.types.is_map, _maps),
    (_is_list, _lists),
    (pa.types.is_fixed_size_list, _fixed_lists),
    (pa.types.is_struct, _structs),
)
"""Which types are converted how; the first that fits."""
