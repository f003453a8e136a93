"""Rows of a fragment as deliveries, by the topic's own configuration and decoder, in batches of bounded size."""

import dataclasses
import io
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

import orjson

from pipeline.backfill.fragments import RANGE_BYTES, Fragment, hive_columns
from pipeline.config.app import Config, LimitsConfig
from pipeline.config.source import PLACEHOLDER, TopicConfig
from pipeline.errors import ConfigError, EnvironmentFault, Reason, RecordError
from pipeline.records.decode import Decoders, RecordDecoder
from pipeline.records.files.filesystems import is_unchanged, open_filesystem
from pipeline.records.record import Delivery, Partition, Position, Receipt

LOWEST_VERSION = 0
"""Of a row whose topic has no `version` field: below every live version of a generation from 1 on."""

READ_ROWS = 4_096
READ_BYTES = 4 << 20
"""Rows decoded from a Parquet file at once: so many, or fewer where they are long."""

BUFFER_BYTES = 1 << 20
"""Of each column of a row group so much is held undecoded: a row group may be larger than memory."""

MakeReceipt = Callable[[int], Receipt]


class FragmentFault(EnvironmentFault):
    """This fragment cannot be read to its end; others may be."""


def check_topic(name: str, topic: TopicConfig) -> None:
    """Raises ConfigError for a topic whose rows could not be named, or could tie with a live record."""
    check_key(name, topic)
    if topic.version is None and topic.generation == 0:
        raise ConfigError(
            f"source.topics.{name}.generation is 0: the record at offset 0 would have the version of a file's row, "
            "which must lose. Name a `version` field, or set generation: 1"
        )


def check_key(name: str, topic: TopicConfig) -> None:
    """Raises ConfigError for a topic whose rows could not be named."""
    if topic.key is None:
        raise ConfigError(f"source.topics.{name}.key: files have no Kafka message key; name the key's field")


def check_columns(fragments: Iterable[Fragment], topic: TopicConfig) -> None:
    """Raises ConfigError for a Parquet or CSV file whose columns cannot make records. Files that do not open pass."""
    from pipeline.records.files.columns import check_schema  # noqa: PLC0415 - pyarrow

    for fragment in {fragment.uri: fragment for fragment in fragments if fragment.part == 0}.values():
        if fragment.suffix not in {".parquet", ".csv"} or fragment.is_kafka:
            continue
        try:
            schema = _schema(fragment)
        except (OSError, ValueError):
            continue  # it fails when it is read, and is reported then
        check_schema(fragment.uri, schema, topic, hive_columns(fragment.uri))


def column_names(fragment: Fragment, max_bytes: int) -> list[str]:
    """Returns the columns of a file, or the fields of its first line; nothing of a Kafka range.

    Of a line no more than `max_bytes` is read. Raises FragmentFault where the file cannot be read.
    """
    if fragment.is_kafka:
        return []
    try:
        if fragment.suffix in {".parquet", ".csv"}:
            return [*_schema(fragment).names, *hive_columns(fragment.uri)]
        first = next((line for line in _lines(fragment, max_bytes) if isinstance(line, bytes)), b"{}")
        fields = orjson.loads(first)
    except (OSError, ValueError) as error:
        raise FragmentFault(f"{fragment.name}: cannot be read ({type(error).__name__})") from None
    return list(fields) if isinstance(fields, dict) else []


def read_deliveries(fragment: Fragment, topic: str, config: Config) -> list[Delivery]:
    """Returns every row of a fragment, good or bad. Raises like `read_batches`."""
    return [delivery for batch in read_batches(fragment, topic, config) for delivery in batch]


def read_batches(
    fragment: Fragment,
    topic: str,
    config: Config,
    *,
    start: int = 0,
    receipt: MakeReceipt | None = None,
    size: Callable[[], int] | None = None,
) -> Iterator[list[Delivery]]:
    """Yields the rows of a fragment, good or bad, in order and in batches of at most `limits.max_batch_records`.

    Args:
        fragment: What to read.
        topic: By whose rules; of a Kafka range its own.
        config: The pipeline's.
        start: Number of the first row wanted; of a Kafka range the offset.
        receipt: Makes the receipt of a row from its number.
        size: Tells before each batch how many rows it shall have, instead of the limit.

    Raises FragmentFault where the fragment cannot be read, or its file was replaced meanwhile.
    """
    make = receipt or (lambda number: Receipt(Partition(topic, 0), number, 0, 0.0))
    if fragment.is_kafka:
        rows = _kafka_rows(fragment, topic, config, start, make)
    else:
        rows = _file_rows(fragment, topic, config, start, make)
    wanted = size or (lambda: config.limits.max_batch_records)
    while batch := list(islice(rows, wanted())):
        yield batch


def columns_of(topic: TopicConfig) -> set[str]:
    """Returns the top-level columns that the topic's configuration reads."""
    paths = [match[1].removesuffix("?") for match in PLACEHOLDER.finditer(topic.text)]
    paths += [*topic.payload_fields.values(), *filter(None, (topic.key, topic.version))]
    if topic.delete_when:
        paths.append(topic.delete_when.field)
    if topic.schema_version:
        paths.append(str(topic.schema_version["field"]))
    return {path.split(".")[0] for path in paths}


def _kafka_rows(fragment: Fragment, topic: str, config: Config, start: int, receipt: MakeReceipt) -> Iterator[Delivery]:
    from pipeline.sources.ranges import read_partition  # noqa: PLC0415 - kafka only where it is read

    place = Partition(topic, fragment.part)
    begin = max(start, fragment.begin)
    for found in read_partition(
        config.source, Decoders(config.source, config.limits), place, begin, fragment.begin + fragment.size
    ):
        position = found.position
        yield Delivery(
            receipt(position.offset), position, found.num_bytes, found.record, found.error, detail=found.detail
        )


def _file_rows(fragment: Fragment, topic: str, config: Config, start: int, receipt: MakeReceipt) -> Iterator[Delivery]:
    settings = config.source.topics[topic]
    source = f"{PurePosixPath(fragment.uri).name}#{fragment.part}"
    decoder = Decoders(config.source, config.limits).of(topic)
    decode = _Decode(decoder, config.limits, source, settings)
    number = 0
    try:
        for number, value in enumerate(_values(fragment, settings, config.limits, start), start=start):
            position = Position(topic, -1, number, -1)
            num_bytes, record, error = decode(value, position)
            if error is None:
                yield Delivery(receipt(number), position, num_bytes, record)
            else:
                yield Delivery(receipt(number), position, num_bytes, error=error.reason, detail=error.detail)
        if not is_unchanged(fragment.uri, fragment.size, fragment.mtime_ns):
            raise FragmentFault(
                f"{fragment.name}: the file was replaced while it was read; run again to read the new one"
            )
    except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise FragmentFault(f"{fragment.name}: cannot be read beyond row {number} ({type(error).__name__})") from None


Value = bytes | RecordError | tuple[dict[str, Any], int]
"""A JSON text; why a row has no fields; or its fields, with an upper bound of their bytes as JSON."""


class _Decode:
    """Makes a record of a value, wherever it comes from."""

    def __init__(self, decoder: RecordDecoder, limits: LimitsConfig, source: str, topic: TopicConfig) -> None:
        self._decoder = decoder
        self._limits = limits
        self._source = source
        self._versioned = topic.version is not None

    def __call__(self, value: Value, position: Position) -> tuple[int, Any, RecordError | None]:
        try:
            if isinstance(value, RecordError):
                return 0, None, value
            if isinstance(value, bytes):
                num_bytes = len(value)
                record = self._decoder.decode(None, value, position, ())
            else:
                fields, num_bytes = value
                if num_bytes > self._limits.max_record_bytes:
                    # Only a bound so far; the decoder judges the exact size.
                    return self(orjson.dumps(fields), position)
                record = self._decoder.from_fields(fields, num_bytes, position)
        except RecordError as error:
            return num_bytes, None, error
        record.payload["_source"] = f"{self._source}:{position.offset}"  # type: ignore[index]  # the decoder's own dict
        if not self._versioned:
            record = dataclasses.replace(record, version=LOWEST_VERSION)
        return num_bytes, record, None


def _values(fragment: Fragment, topic: TopicConfig, limits: LimitsConfig, start: int) -> Iterator[Value]:
    if fragment.suffix in {".jsonl", ".ndjson"}:
        yield from islice(_lines(fragment, limits.max_record_bytes), start, None)
        return
    from pipeline.records.files.columns import rows_of  # noqa: PLC0415 - pyarrow

    constants = hive_columns(fragment.uri)
    batches = _parquet_batches if fragment.suffix == ".parquet" else _csv_batches
    for batch in batches(fragment, topic):
        if start >= batch.num_rows:
            start -= batch.num_rows
            continue
        wanted, start = batch.slice(start), 0
        rows, bounds = rows_of(wanted, constants)
        if fragment.suffix == ".csv":
            _to_integers(rows, topic)
        for row, bound in zip(rows, bounds.tolist(), strict=True):
            yield row if isinstance(row, RecordError) else (row, bound)


def _schema(fragment: Fragment) -> Any:
    files, path = open_filesystem(fragment.uri)
    if fragment.suffix == ".parquet":
        import pyarrow.parquet as pq  # noqa: PLC0415 - an optional dependency

        return pq.read_schema(path, filesystem=files)
    import pyarrow as pa  # noqa: PLC0415 - an optional dependency
    from pyarrow import csv  # noqa: PLC0415

    with files.open_input_stream(path) as file:
        return pa.schema([(name, pa.null()) for name in csv.open_csv(file).schema.names])


def _parquet_batches(fragment: Fragment, topic: TopicConfig) -> Iterator[Any]:
    import pyarrow.parquet as pq  # noqa: PLC0415 - an optional dependency

    files, path = open_filesystem(fragment.uri)
    wanted = columns_of(topic)
    with files.open_input_file(path) as file:
        parquet = pq.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False)
        names = [name for name in parquet.schema_arrow.names if name in wanted]
        size = _rows_at_once(parquet.metadata.row_group(fragment.part), wanted)
        yield from parquet.iter_batches(size, row_groups=[fragment.part], columns=names, use_threads=False)


def _rows_at_once(group: Any, wanted: Collection[str]) -> int:
    columns = (group.column(number) for number in range(group.num_columns))
    num_bytes = sum(
        column.total_uncompressed_size for column in columns if column.path_in_schema.partition(".")[0] in wanted
    )
    fitting = int(READ_BYTES * group.num_rows // max(num_bytes, 1))
    return max(1, min(READ_ROWS, fitting))


def _csv_batches(fragment: Fragment, topic: TopicConfig) -> Iterator[Any]:
    from pyarrow import csv  # noqa: PLC0415 - an optional dependency

    files, path = open_filesystem(fragment.uri)
    with files.open_input_stream(path) as file:
        names = csv.open_csv(file).schema.names
    wanted = columns_of(topic)
    options = csv.ConvertOptions(
        column_types=dict.fromkeys(names, "string"), include_columns=[name for name in names if name in wanted]
    )
    parse = csv.ParseOptions(newlines_in_values=True)
    with files.open_input_stream(path) as file:
        yield from csv.open_csv(file, parse_options=parse, convert_options=options)


def _to_integers(rows: Sequence[Any], topic: TopicConfig) -> None:
    """A CSV has texts only: digits are numbers where the topic expects some."""
    names = [
        name for name, wanted in ((topic.key, topic.key_type == "integer"), (topic.version, True)) if name and wanted
    ]
    for row in rows:
        for name in names:
            text = row.get(name) if isinstance(row, dict) else None
            if isinstance(text, str) and text.lstrip("-").isdigit() and len(text) < len(str(1 << 63)):
                row[name] = int(text)


def _lines(fragment: Fragment, max_bytes: int) -> Iterator[bytes | RecordError]:
    """Yields the lines that begin in the range; the last one may end behind it.

    Of a longer line than `max_bytes` no more is ever held: what calls itself JSON Lines may be one array.
    """
    files, path = open_filesystem(fragment.uri)
    begin, end = fragment.part * RANGE_BYTES, (fragment.part + 1) * RANGE_BYTES
    longest = max_bytes + len(b"\r\n")
    with io.BufferedReader(files.open_input_file(path), BUFFER_BYTES) as file:  # pyarrow's own file has no readline
        file.seek(max(begin - 1, 0))
        if begin:
            _skip_line(file, end)
        while file.tell() < end and (line := file.readline(longest)):
            if len(line) == longest and not line.endswith(b"\n"):
                _skip_line(file, end)
                yield RecordError(Reason.RECORD_TOO_LARGE, f"longer than max_record_bytes, {max_bytes}")
            elif stripped := line.strip():
                yield stripped


def _skip_line(file: io.BufferedReader, end: int) -> None:
    """Moves behind the line, or to somewhere from `end` on: no line of the range begins there."""
    while file.tell() < end and (part := file.readline(BUFFER_BYTES)) and not part.endswith(b"\n"):
        pass
