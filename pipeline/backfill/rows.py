"""Rows of a fragment as deliveries, by the topic's own configuration and decoder, in batches of bounded size."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from pipeline.backfill.inputs import Fragment
from pipeline.backfill.kafka_ranges import KafkaRange
from pipeline.config.pipeline import Config
from pipeline.config.source import TopicConfig
from pipeline.errors import ConfigError, EnvironmentFault, RecordError
from pipeline.records.decode import Decoders
from pipeline.records.files.listing import FilePart
from pipeline.records.files.messages import RowDecoder, keys_of
from pipeline.records.files.reader import read_rows
from pipeline.records.files.reading import FileFault, reading_of
from pipeline.records.record import LOWEST_VERSION, Delivery, Partition, Position, Receipt, Record, file_source

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


class FragmentReader:
    """Reads the fragments of one topic. Thread-safe."""

    def __init__(self, config: Config, topic: str) -> None:
        """Takes by whose rules files are read; a Kafka range is of the topic itself."""
        self._config = config
        self._topic = topic
        self._decoders = Decoders(config.source, config.limits)

    @property
    def resolved(self) -> Sequence[str]:
        """Paths of the configuration that some record so far had, of those that a record may lack."""
        records, rows = self._decoders.of(self._topic), self._decoders.of_rows(self._topic)
        unresolved = set(records.unresolved) & set(rows.unresolved)
        return [path for path in self._config.source.topics[self._topic].watched_paths if path not in unresolved]

    def deliveries(self, fragment: Fragment) -> list[Delivery]:
        """Returns every row of a fragment, good or bad. Raises like `batches`."""
        return [delivery for batch in self.batches(fragment) for delivery in batch]

    def batches(
        self,
        fragment: Fragment,
        start: int = 0,
        receipt: MakeReceipt | None = None,
        size: Callable[[], int] | None = None,
    ) -> Iterator[list[Delivery]]:
        """Yields the rows of a fragment, good or bad, in order and in batches of at most `limits.max_batch_records`.

        Args:
            fragment: What to read.
            start: Number of the first row wanted; of a Kafka range the offset.
            receipt: Makes the receipt of a row from its number.
            size: Returns before each batch how many rows it shall have, instead of the limit.

        Raises FragmentFault where the fragment cannot be read, or its file was replaced meanwhile.
        """
        place = Partition(self._topic, 0)
        make = receipt or (lambda number: Receipt(place, number, 0, 0.0))
        if isinstance(fragment, KafkaRange):
            rows = self._kafka_rows(fragment, start, make)
        else:
            rows = self._file_rows(fragment, start, make)
        return _batches(rows, size or (lambda: self._config.limits.max_batch_records))

    def _kafka_rows(self, fragment: KafkaRange, start: int, receipt: MakeReceipt) -> Iterator[Delivery]:
        from pipeline.sources.ranges import read_partition  # noqa: PLC0415 - kafka only where it is read

        place = Partition(self._topic, fragment.part)
        begin = max(start, fragment.begin)
        for found in read_partition(self._config.source, self._decoders, place, begin, fragment.end):
            position = found.position
            yield Delivery(
                receipt(position.offset), position, found.num_bytes, found.record, found.error, detail=found.detail
            )

    def _file_rows(self, part: FilePart, start: int, receipt: MakeReceipt) -> Iterator[Delivery]:
        topic, limits = self._config.source.topics[self._topic], self._config.limits
        source = f"{file_source(part.uri)}{part.part}"
        decoder = RowDecoder(self._decoders.of_rows(self._topic), keys_of(self._topic, topic), topic, limits)
        try:
            for number, row in enumerate(read_rows(part, reading_of(topic, limits), start), start=start):
                position = Position(self._topic, -1, number, -1)
                try:
                    record = decoder.record_of(row, number + 1, position)
                except RecordError as error:
                    detail = f"{row.place}: {error.detail}" if error.detail else row.place
                    yield Delivery(receipt(number), position, row.num_bytes, error=error.reason, detail=detail)
                else:
                    found = _from_file(record, source, versioned=topic.version is not None)
                    yield Delivery(receipt(number), position, row.num_bytes, found)
        except FileFault as fault:
            raise FragmentFault(str(fault)) from None


def _batches(rows: Iterator[Delivery], size: Callable[[], int]) -> Iterator[list[Delivery]]:
    """Groups rows; those in front of a fault come before it is raised."""
    while True:
        batch: list[Delivery] = []
        try:
            for row in islice(rows, size()):
                batch.append(row)  # noqa: PERF402 - what is there when the next one fails is wanted
        except FragmentFault:
            if batch:
                yield batch
            raise
        if not batch:
            return
        yield batch


def _from_file(record: Record, source: str, *, versioned: bool) -> Record:
    """Returns a record with where it came from, and with the lowest version if it has none of its own."""
    record.payload["_source"] = f"{source}:{record.position.offset}"  # type: ignore[index]  # the decoder's own dict
    return record if versioned else dataclasses.replace(record, version=LOWEST_VERSION)
