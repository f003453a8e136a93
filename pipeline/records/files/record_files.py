"""Reads CSV, JSON Lines and Parquet files as Kafka records."""

import csv
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from pipeline.config.source import TopicConfig
from pipeline.errors import ConfigError, RefractError, nearest

_BATCH_ROWS = 1_024
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = frozenset({".jsonl", ".ndjson"})
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
SUFFIXES = (*_DELIMITERS, *sorted(_JSON_LINES), ".parquet")


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What one row becomes."""

    key: bytes | None
    value: bytes | None
    """None is a tombstone."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Where the Kafka message key of a row comes from, and how a CSV's texts become typed values."""

    field: str
    """Path of the field; in a flat row the column of that name wins."""
    row_number: str | None = None
    """Column that gets the row's number, from 1, where the file has no identifier of its own."""
    integers: frozenset[str] = frozenset()
    """CSV columns whose digits are sent as numbers."""


def keys_of(topic_name: str, topic: TopicConfig, key: str | None, row_number: str | None) -> Keys:
    """Returns the rule for a topic's keys: `--key`, else the field the configuration names.

    Raises ConfigError when neither says what identifies a record.
    """
    field = key or topic.key or row_number
    if field is None:
        raise ConfigError(f"topic {topic_name!r} is keyed by the Kafka message key: name the column with --key")
    integers = {
        path for path, wanted in ((topic.key, topic.key_type == "integer"), (topic.version, True)) if path and wanted
    }
    return Keys(field, row_number, frozenset(integers))


def count_records(path: Path) -> int:
    """Returns how many records a file holds. Raises like `read_records`."""
    _check_local(path)
    if path.suffix == ".parquet":
        return int(_parquet(path).metadata.num_rows)
    return sum(1 for _ in (_csv_rows(path) if path.suffix in _DELIMITERS else _json_lines(path)))


def read_records(path: Path, keys: Keys) -> Iterator[FileRecord]:
    """Yields a file's records in order.

    A JSON line is sent as it stands, except `{"_raw": TEXT, "_key": KEY}`: its text is sent literally,
    null as a tombstone.

    Raises:
        ConfigError: the file cannot be read, is of no known kind, or lacks the key's column.
        RefractError: a row cannot be a record; the message has its number.
    """
    _check_local(path)
    if path.suffix in _JSON_LINES:
        return _from_json_lines(path, keys)
    if path.suffix in _DELIMITERS:
        return _from_rows(path, _csv_rows(path), keys)
    if path.suffix == ".parquet":
        return _from_rows(path, _parquet_rows(path), keys)
    raise ConfigError(f"{path}: expected a file that ends in {', '.join(SUFFIXES)}.{nearest(path.suffix, SUFFIXES)}")


def _check_local(path: Path) -> None:
    """Refuses addresses, and repeats of them the scheme only: the rest may hold credentials."""
    if address := _ADDRESS.match(str(path)):
        raise ConfigError(f"{address[1]} addresses are not read: name a file on this machine")


def _from_json_lines(path: Path, keys: Keys) -> Iterator[FileRecord]:
    for number, line in _json_lines(path):
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            row = None
        if not isinstance(row, dict):
            raise RefractError(f'{path}, line {number}: not a JSON object; {{"_raw": "…"}} sends a text as it is')
        if "_raw" in row:
            yield FileRecord(_bytes(row.get("_key")), _bytes(row["_raw"]))
        elif keys.row_number is not None:
            row[keys.row_number] = number if keys.row_number in keys.integers else str(number)
            yield FileRecord(_key(row, keys.field), orjson.dumps(row))
        else:
            yield FileRecord(_key(row, keys.field), line)


def _from_rows(path: Path, rows: Iterator[tuple[int, dict[str, Any]]], keys: Keys) -> Iterator[FileRecord]:
    for number, row in rows:
        if keys.row_number is not None:
            row[keys.row_number] = str(number)
        if number == 1 and _at(row, keys.field) is _MISSING:
            raise ConfigError(
                f"{path}: no column {keys.field!r} to take the key from.{nearest(keys.field, row)} "
                f"Name one with --key, or number the rows with --row-number {keys.field}"
            )
        for name in keys.integers & row.keys():
            if isinstance(row[name], str) and row[name].lstrip("-").isdigit():
                row[name] = int(row[name])
        yield FileRecord(_key(row, keys.field), orjson.dumps(row, default=str, option=orjson.OPT_SERIALIZE_NUMPY))


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(sys.maxsize)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, row in enumerate(
                csv.DictReader(file, delimiter=_DELIMITERS[path.suffix], strict=True), start=1
            ):
                if None in row or None in row.values():
                    raise RefractError(f"{path}, row {number}: has not as many fields as the header")
                yield number, row
    except csv.Error as error:
        raise RefractError(f"{path}: is not well-formed CSV ({error})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None


def _json_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if stripped := line.strip():
                    yield number, stripped
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    batches = _parquet(path).iter_batches(batch_size=_BATCH_ROWS)
    while True:
        try:
            batch = next(batches, None)
        except (ValueError, OSError) as error:  # pyarrow's ArrowInvalid is a ValueError
            raise RefractError(f"{path}: is damaged after row {number} ({type(error).__name__})") from None
        if batch is None:
            return
        for row in batch.to_pylist():
            number += 1
            yield number, row


def _parquet(path: Path) -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        raise ConfigError("Parquet files need pyarrow: pip install 'refract[parquet]'") from None
    try:
        return pq.ParquetFile(path)
    except pa.ArrowInvalid:
        raise ConfigError(f"{path}: is not a Parquet file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or 'unreadable'})") from None


_MISSING = object()


def _at(row: Mapping[str, Any], path: str) -> Any:
    if path in row:
        return row[path]
    value: Any = row
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return _MISSING
        value = value[name]
    return value


def _key(row: Mapping[str, Any], path: str) -> bytes | None:
    """The message key: a row without one is sent all the same, the pipeline decides what that means."""
    value = _at(row, path)
    return _bytes(value) if isinstance(value, str | int) and not isinstance(value, bool) else None


def _bytes(value: Any) -> bytes | None:
    if value is None:
        return None
    return value.encode() if isinstance(value, str) else orjson.dumps(value)
