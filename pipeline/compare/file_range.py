"""A file as the source of a comparison: its rows, decoded as if they had come from their topic."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from pipeline.config.app import Config
from pipeline.errors import ConfigError, RecordError
from pipeline.interfaces import Found
from pipeline.records.batches import Int64
from pipeline.records.decode import Decoders
from pipeline.records.files.record_files import Keys, count_records, keys_of, read_records
from pipeline.records.record import Partition, Position


class FileRange:
    """The rows of one file. Implements `pipeline.interfaces.RecordRange`; a row's offset is its number from 0."""

    begins: Mapping[Partition, int]
    ends: Mapping[Partition, int]

    def __init__(self, path: Path, topic: str, keys: Keys, config: Config) -> None:
        """Counts the rows.

        Raises ConfigError for a file that cannot be read, and for a topic whose versions are offsets.
        """
        settings = config.source.topics[topic]
        if settings.version is None:
            raise ConfigError(
                f"--input: topic {topic!r} has no `version` field, so its versions are Kafka offsets, which {path} "
                "does not have. Compare with the topic itself"
            )
        self._path = path
        self.topic = topic
        self._keys = keys
        self._decoder = Decoders(config.source, config.limits).of(topic)
        self.num_records = count_records(path)
        self.begins = self.ends = {}

    def committed(self) -> None:
        """Returns None: no consumer group reads a file, so every row should be stored."""

    def letters(self) -> None:
        """Returns None: dead letters name offsets, which rows do not have."""

    def read(self, wanted: Mapping[tuple[str, int], Int64] | None = None) -> Iterator[Found]:
        """Yields the rows; raises RefractError for a row that cannot become a record."""
        numbers = None if wanted is None else wanted.get((self.topic, 0), np.empty(0, np.int64))
        for number, row in enumerate(read_records(self._path, self._keys)):
            if numbers is not None and number not in numbers[(at := np.searchsorted(numbers, number)) : at + 1]:
                continue
            position = Position(self.topic, 0, number, -1)
            try:
                yield Found(position, self._decoder.decode(row.key, row.value, position, ()))
            except RecordError as error:
                yield Found(position, None, error.reason)


def open_file(path: Path, config: Config, topic: str | None, key: str | None, row_number: str | None) -> FileRange:
    """Returns the file as the range of its topic. Raises ConfigError."""
    name = config.topic_named(topic)
    return FileRange(path, name, keys_of(name, config.source.topics[name], key, row_number), config)
