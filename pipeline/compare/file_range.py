"""Files as a source of a comparison: their rows, decoded as if they had come from their topic."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from pipeline.config.pipeline import Config
from pipeline.errors import ConfigError, RecordError
from pipeline.interfaces import Found, Origin
from pipeline.records.batches import Int64
from pipeline.records.decode import Decoders
from pipeline.records.files.messages import Keys, RowDecoder
from pipeline.records.files.topic_files import TopicFiles
from pipeline.records.record import LOWEST_VERSION, Partition, Position, Record, file_source

FIRST = -1
"""Partition of the first file: rows of files stand in partitions below those of their topic, one for each file."""


class FileRange:
    """The rows of files. Implements `pipeline.interfaces.RecordRange`.

    A row's offset is its number within its file, from 0; a file's partition is `first`, that of the next one below.
    """

    begins: Mapping[Partition, int]
    ends: Mapping[Partition, int]

    def __init__(self, inputs: Sequence[str], topic: str, keys: Keys, config: Config, first: int = FIRST) -> None:
        """Lists the files and counts the rows.

        Raises ConfigError for files that cannot be of the topic, and for a topic in which a row of a file and a record
        could have the same version.
        """
        settings = config.source.topics[topic]
        if settings.version is None and settings.generation == 0:
            raise ConfigError(
                f"--input: topic {topic!r} has no `version` field, so its versions are Kafka offsets, which "
                f"{inputs[0]} does not have. Compare with the topic itself: --input kafka://{topic}"
            )
        self.topic = topic
        self._versioned = settings.version is not None
        self._files = TopicFiles(inputs, settings, config.limits, keys)
        self._decoder = RowDecoder(Decoders(config.source, config.limits).of_rows(topic), keys, settings, config.limits)
        self.num_records = self._files.count().total
        self.begins = self.ends = {}
        self._uris = list(dict.fromkeys(part.uri for part in self._files.listing.parts))
        self.partitions = range(first, first - len(self._uris), -1)
        self.sources = frozenset(map(file_source, self._uris))
        """What begins the `_source` of points that come from these files."""

    def place(self, partition: int, offset: int) -> str:
        """Names a row, in reports."""
        return f"{self._uris[self.partitions.index(partition)]}:{offset}"

    def origin_of(self, source: str) -> Origin:
        """See `RecordRange.origin_of`: in one of these very files, by their paths, or in another source."""
        file, mark, _ = source.rpartition("#")
        return Origin.INSIDE if not source or file + mark in self.sources else Origin.ELSEWHERE

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
        partitions = dict(zip(self._uris, self.partitions, strict=True))
        done = None if after is None else (-after.partition, after.offset)
        place = Partition(self.topic, 0)
        numbers: Int64 | None = None
        for number, file, row in self._files.rows():
            if place.number != partitions[file]:
                place, offset = Partition(self.topic, partitions[file]), -1
                numbers = None if wanted is None else wanted.get(place, np.empty(0, np.int64))
            offset += 1
            if done is not None and (-place.number, offset) <= done:
                continue
            if numbers is not None and offset not in numbers[(at := np.searchsorted(numbers, offset)) : at + 1]:
                continue
            position = Position(*place, offset, -1)
            try:
                record = self._decoder.record_of(row, number, position)
            except RecordError as error:
                yield Found(position, None, error.reason, f"{file}, {row.place}: {error.detail}")
            else:
                yield Found(position, self._sourced(record, f"{file_source(file)}0:{offset}"))

    def _sourced(self, record: Record, source: str) -> Record:
        record.payload["_source"] = source  # type: ignore[index]  # the decoder's own dict
        return record if self._versioned else dataclasses.replace(record, version=LOWEST_VERSION)
