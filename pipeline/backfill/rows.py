"""Rows of a fragment as deliveries, by the topic's own configuration and decoder."""

import dataclasses
import io
from collections.abc import Iterator
from typing import Any

import orjson

from pipeline.backfill.fragments import RANGE_BYTES, Fragment, filesystem, hive_columns
from pipeline.config.app import Config
from pipeline.config.source import PLACEHOLDER, TopicConfig
from pipeline.errors import ConfigError, EnvironmentFault, Reason, RecordError
from pipeline.records import Delivery, Partition, Position, Receipt
from pipeline.sources.decode import make_decoder
from pipeline.sources.kafka_source import wall_clock_ms

LOWEST_VERSION = 0
"""Of a row whose topic has no `version` field: below every live version of a generation from 1 on."""


def check_topic(name: str, topic: TopicConfig) -> None:
    """Raises ConfigError for a topic whose rows could not be named, or could tie with a live record."""
    if topic.key is None:
        raise ConfigError(f"source.topics.{name}.key: files have no Kafka message key; name the key's field")
    if topic.version is None and topic.generation == 0:
        raise ConfigError(
            f"source.topics.{name}.generation is 0: the record at offset 0 would have the version of a file's row, "
            "which must lose. Name a `version` field, or set generation: 1"
        )


def read_deliveries(fragment: Fragment, topic: str, config: Config) -> list[Delivery]:
    """Returns every row of a fragment, good or bad. Its offset is the row's number within the fragment.

    Raises EnvironmentFault where the file cannot be read.
    """
    settings = config.source.topics[topic]
    decoder = make_decoder(topic, settings, config.limits, wall_clock_ms)
    deliveries = []
    try:
        for number, value in enumerate(_values(fragment, settings)):
            position = Position(topic, 0, number, -1)
            receipt = Receipt(Partition(topic, 0), number, 0, 0.0)
            try:
                record = decoder.decode(None, value, position, ())
                if settings.version is None:
                    record = dataclasses.replace(record, version=LOWEST_VERSION)
                deliveries.append(Delivery(receipt, position, len(value), record))
            except RecordError as error:
                deliveries.append(
                    Delivery(receipt, position, len(value), error=Reason(error.reason), detail=error.detail)
                )
    except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise EnvironmentFault(f"{fragment.name}: cannot be read ({type(error).__name__})") from None
    return deliveries


def columns_of(topic: TopicConfig) -> set[str]:
    """Returns the top-level columns that the topic's configuration reads."""
    paths = [match[1].removesuffix("?") for match in PLACEHOLDER.finditer(topic.text)]
    paths += [*topic.payload_fields.values(), *filter(None, (topic.key, topic.version))]
    if topic.delete_when:
        paths.append(topic.delete_when.field)
    if topic.schema_version:
        paths.append(str(topic.schema_version["field"]))
    return {path.split(".")[0] for path in paths}


def _values(fragment: Fragment, topic: TopicConfig) -> Iterator[bytes]:
    files, path = filesystem(fragment.uri)
    if fragment.suffix in {".jsonl", ".ndjson"}:
        yield from _lines(files, path, fragment.part)
        return
    wanted, partitions = columns_of(topic), hive_columns(fragment.uri)
    if fragment.suffix == ".parquet":
        import pyarrow.parquet as pq  # noqa: PLC0415 - an optional dependency

        with files.open_input_file(path) as file:
            parquet = pq.ParquetFile(file)
            names = [name for name in parquet.schema_arrow.names if name in wanted]
            for batch in parquet.iter_batches(row_groups=[fragment.part], columns=names):
                for row in batch.to_pylist():
                    yield _value(partitions | row)
        return
    from pyarrow import csv  # noqa: PLC0415 - an optional dependency

    with files.open_input_stream(path) as file:
        names = csv.open_csv(file).schema.names
    options = csv.ConvertOptions(
        column_types=dict.fromkeys(names, "string"), include_columns=[name for name in names if name in wanted]
    )
    integers = {
        name for name, wanted in ((topic.key, topic.key_type == "integer"), (topic.version, True)) if name and wanted
    }
    parse = csv.ParseOptions(newlines_in_values=True)
    with files.open_input_stream(path) as file:
        for batch in csv.open_csv(file, parse_options=parse, convert_options=options):
            for row in batch.to_pylist():
                for name in integers & row.keys():
                    if row[name] and row[name].lstrip("-").isdigit():
                        row[name] = int(row[name])
                yield _value(partitions | row)


def _value(row: dict[str, Any]) -> bytes:
    return orjson.dumps(row, default=str)


def _lines(files: Any, path: str, part: int) -> Iterator[bytes]:
    """Yields the lines that begin in the range; the last one may end behind it."""
    begin, end = part * RANGE_BYTES, (part + 1) * RANGE_BYTES
    with io.BufferedReader(files.open_input_file(path)) as file:  # pyarrow's own file has no readline
        file.seek(max(begin - 1, 0))
        if begin:
            file.readline()
        while file.tell() < end and (line := file.readline()):
            if stripped := line.strip():
                yield stripped
