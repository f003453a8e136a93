"""Files as the source of a comparison: their rows, decoded as if they had come from their topic."""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from pipeline.config.pipeline import Config
from pipeline.errors import ConfigError, RecordError
from pipeline.interfaces import Found, Origin
from pipeline.records.batches import Int64
from pipeline.records.decode import Decoders
from pipeline.records.files.messages import Keys, RowDecoder, keys_of
from pipeline.records.files.topic_files import TopicFiles
from pipeline.records.record import Partition, Position, file_source


class FileRange:
    """The rows of files. Implements `pipeline.interfaces.RecordRange`; a row's offset is its number from 0."""

    begins: Mapping[Partition, int]
    ends: Mapping[Partition, int]

    def __init__(self, given: str, topic: str, keys: Keys, config: Config) -> None:
        """Lists the files and counts the rows.

        Raises ConfigError for files that cannot be of the topic, and for a topic whose versions are offsets.
        """
        settings = config.source.topics[topic]
        if settings.version is None:
            raise ConfigError(
                f"--input: topic {topic!r} has no `version` field, so its versions are Kafka offsets, which {given} "
                "does not have. Compare with the topic itself"
            )
        self.topic = topic
        self._files = TopicFiles([given], settings, config.limits, keys)
        self._decoder = RowDecoder(Decoders(config.source, config.limits).of_rows(topic), keys, settings, config.limits)
        self.num_records = self._files.count().total
        self.begins = self.ends = {}
        self._sources = frozenset(file_source(part.uri) for part in self._files.listing.parts)

    def origin_of(self, source: str) -> Origin:
        """See `RecordRange.origin_of`: in one of these very files, by their paths, or in another source."""
        file, mark, _ = source.rpartition("#")
        return Origin.INSIDE if not source or file + mark in self._sources else Origin.ELSEWHERE

    def committed(self) -> None:
        """Returns None: no consumer group reads a file, so every row should be stored."""

    def letters(self) -> None:
        """Returns None: a row that cannot become a record is rejected, and has no dead letter."""

    def read(
        self, wanted: Mapping[tuple[str, int], Int64] | None = None, after: Position | None = None
    ) -> Iterator[Found]:
        """Yields the rows, good or bad.

        Raises FileFault for a file that cannot be read to its end: what it has would be called extra.
        """
        numbers = None if wanted is None else wanted.get((self.topic, 0), np.empty(0, np.int64))
        for number, file, row in self._files.rows():
            offset = number - 1
            if after is not None and offset <= after.offset:
                continue
            if numbers is not None and offset not in numbers[(at := np.searchsorted(numbers, offset)) : at + 1]:
                continue
            position = Position(self.topic, 0, offset, -1)
            try:
                record = self._decoder.record_of(row, number, position)
            except RecordError as error:
                yield Found(position, None, error.reason, f"{row.place}: {error.detail}")
                continue
            payload = {**record.payload, "_source": f"{file_source(file)}0:{offset}"}
            yield Found(position, dataclasses.replace(record, payload=payload))


def open_file(given: str, config: Config, topic: str | None, key: str | None, row_number: str | None) -> FileRange:
    """Returns files as the range of their topic. Raises ConfigError and EnvironmentFault like `TopicFiles`."""
    name = config.topic_named(topic)
    return FileRange(given, name, keys_of(name, config.source.topics[name], key, row_number), config)
