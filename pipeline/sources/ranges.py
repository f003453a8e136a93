"""Reads what topics retain, from their beginnings to where they end at the start, without joining the group."""

import math
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from kafka import OffsetSpec, TopicPartition

from pipeline.config.source import SourceConfig
from pipeline.errors import Reason, RecordError
from pipeline.interfaces import PLACE, Found, Letters, Origin
from pipeline.records.batches import Int64
from pipeline.records.decode import Decoders, RecordDecoder, record_bytes
from pipeline.records.record import Partition, Position, place_of
from pipeline.sources.client.admin import group_offsets, open_admin, partition_offsets, partitions_of, topic_exists
from pipeline.sources.client.topic_reader import READ_TIMEOUT_MS, open_reader, silence
from pipeline.sources.letters.letter_reader import read_dead_letters

SKIP_OFFSETS = 20_000
"""Offsets between two wanted records that are sought over; fewer are read and dropped, which is faster."""


class TopicRange:
    """The retained range of a pipeline's topics. Implements `pipeline.interfaces.RecordRange`. One thread."""

    def __init__(self, config: SourceConfig, decoders: Decoders, topics: Sequence[str] | None = None) -> None:
        """Fixes the range of some topics; without a list, of all.

        Raises:
            ConfigError: a topic does not exist.
            TransientError, EnvironmentFault: see `pipeline.errors`.
        """
        self._config = config
        self._decoders = decoders
        self._topics = list(config.topics if topics is None else topics)
        with open_admin(config, "looking up offsets") as admin:
            known = partitions_of(admin, self._topics)
            begins = partition_offsets(admin, known, OffsetSpec.EARLIEST)
            # What open transactions hold back is not there yet, nor is it for the pipeline.
            ends = partition_offsets(admin, known, OffsetSpec.LATEST)
        self.begins: Mapping[Partition, int] = {Partition(*place): offset for place, offset in begins.items()}
        self.ends: Mapping[Partition, int] = {Partition(*place): offset for place, offset in ends.items()}

    @property
    def num_records(self) -> int:
        """Offsets in the range: an upper bound of its records."""
        return sum(self.ends[place] - self.begins[place] for place in self.ends)

    def origin_of(self, source: str) -> Origin:
        """See `RecordRange.origin_of`."""
        found = place_of(source)
        if found is None:
            return Origin.ELSEWHERE if "#" in source else Origin.INSIDE
        place, offset = found
        if place.topic not in self._topics:
            return Origin.ELSEWHERE
        kept = place not in self.ends or self.begins[place] <= offset < self.ends[place]
        return Origin.INSIDE if kept else Origin.OUTSIDE

    def committed(self) -> Mapping[Partition, int]:
        """Returns the group's committed offsets as of now; 0 where it has none."""
        with open_admin(self._config, "looking up committed offsets") as admin:
            known = partitions_of(admin, self._topics)
            found = group_offsets(admin, self._config.group_id, known)
        return {Partition(*place): max(offset.offset, 0) for place, offset in found.items()}

    def letters(self) -> Letters:
        """Returns what the dead-letter topic holds. Raises TransientError or EnvironmentFault."""
        places: dict[Partition, array[int]] = defaultdict(lambda: array("q"))
        refused: dict[tuple[str, int, int], str] = {}
        oldest_ms = math.inf
        with open_admin(self._config, "looking up dead letters") as admin:
            if not topic_exists(admin, self._config.dead_letter_topic):
                return Letters({}, {}, 0)  # the first dead letter creates it
            topic = partitions_of(admin, [self._config.dead_letter_topic])
            begins = partition_offsets(admin, topic, OffsetSpec.EARLIEST)
        for letter in read_dead_letters(self._config):
            at = letter.position
            oldest_ms = min(oldest_ms, letter.written_ms)
            places[Partition(at.topic, at.partition)].extend((at.offset, at.timestamp_ms))
            if letter.reason in _AFTER_DECODING:
                refused[at.topic, at.partition, at.offset] = letter.reason
        # Of several partitions, each may have lost letters up to another time.
        kept_since_ms = 0.0 if not any(begins.values()) else oldest_ms if len(begins) == 1 else math.inf
        return Letters({place: np.frombuffer(rows, PLACE) for place, rows in places.items()}, refused, kept_since_ms)

    def read(
        self, wanted: Mapping[tuple[str, int], Int64] | None = None, after: Position | None = None
    ) -> Iterator[Found]:
        """Yields the range partition by partition in the order of offsets; see `RecordRange.read`.

        Raises TransientError or EnvironmentFault.
        """
        with _reader(self._config) as consumer:
            for place in sorted(self.ends):
                begin = self._begin(place, after)
                offsets = None if wanted is None else wanted.get((place.topic, place.number))
                if begin < self.ends[place] and (wanted is None or offsets is not None):
                    yield from self._partition(consumer, place, begin, offsets)

    def _begin(self, place: Partition, after: Position | None) -> int:
        if after is None or place > Partition(after.topic, after.partition):
            return self.begins[place]
        return after.offset + 1 if place == Partition(after.topic, after.partition) else self.ends[place]

    def _partition(self, consumer: Any, place: Partition, begin: int, offsets: Int64 | None) -> Iterator[Found]:
        there, end = TopicPartition(*place), self.ends[place]
        if offsets is not None:
            end = min(end, int(offsets[-1]) + 1)
        decoder = self._decoders.of(place.topic)
        for message in _messages(consumer, there, begin, end, offsets):
            yield _decoded(decoder, place, message)


@dataclass(frozen=True, slots=True)
class Bound:
    """Where a range begins or ends."""

    kind: Literal["earliest", "latest", "offset", "time"]
    value: int = 0
    """An offset of every partition, or the Unix milliseconds of the earliest record."""


def bounded_partitions(
    config: SourceConfig, topic: str, begin: Bound, end: Bound
) -> tuple[dict[int, tuple[int, int]], str]:
    """Returns by partition its first offset and one past its last, of what is kept now; and the topic's id.

    Raises:
        ConfigError: the topic does not exist.
        TransientError, EnvironmentFault: see `pipeline.errors`.
    """
    with open_admin(config, "looking up offsets") as admin:
        places = partitions_of(admin, [topic])
        first = partition_offsets(admin, places, OffsetSpec.EARLIEST)
        last = partition_offsets(admin, places, OffsetSpec.LATEST)
        described = admin.describe_topics([topic])[0]
        found: dict[int, list[int]] = {}
        for bound in (begin, end):
            at = partition_offsets(admin, places, bound.value) if bound.kind == "time" else {}
            for place in places:
                known = {"earliest": first[place], "latest": last[place], "offset": bound.value}
                # Kafka answers -1 where every record is older.
                offset = known.get(bound.kind, at.get(place, -1))
                offset = last[place] if offset < 0 else offset
                found.setdefault(place.partition, []).append(min(max(offset, first[place]), last[place]))
    ranges = {number: (start, stop) for number, (start, stop) in found.items() if start < stop}
    return ranges, str(described.get("topic_id") or topic)


def read_partition(config: SourceConfig, decoders: Decoders, place: Partition, begin: int, end: int) -> Iterator[Found]:
    """Yields the records from offset `begin` up to but not including `end`, in order.

    Raises TransientError or EnvironmentFault.
    """
    decoder = decoders.of(place.topic)
    with _reader(config) as consumer:
        for message in _messages(consumer, TopicPartition(*place), begin, end, None):
            yield _decoded(decoder, place, message)


def _reader(config: SourceConfig) -> AbstractContextManager[Any]:
    return open_reader(
        config,
        "range",
        "reading the source's range",
        max_poll_records=config.max_poll_records,
        max_partition_fetch_bytes=config.max_partition_fetch_bytes,
    )


def _messages(consumer: Any, there: Any, begin: int, end: int, offsets: Int64 | None) -> Iterator[Any]:
    """Yields the messages of one partition in order; of `offsets`, ascending, nothing else. Raises KafkaError."""
    consumer.assign([there])
    at = begin
    consumer.seek(there, at)
    while at < end:
        if offsets is not None:
            upcoming = int(offsets[np.searchsorted(offsets, at)])
            if upcoming - at > SKIP_OFFSETS:
                consumer.seek(there, upcoming)
        fetched = consumer.poll(timeout_ms=READ_TIMEOUT_MS).get(there, ())
        if not fetched and consumer.position(there) <= at:
            raise silence()
        for message in fetched:
            if message.offset >= end:
                break
            if offsets is None or offsets[np.searchsorted(offsets, message.offset)] == message.offset:
                yield message
        at = consumer.position(there)


def _decoded(decoder: RecordDecoder, place: Partition, message: Any) -> Found:
    position = Position(place.topic, place.number, message.offset, message.timestamp)
    headers = message.headers or ()
    num_bytes = record_bytes(message.key, message.value, headers)
    try:
        return Found(position, decoder.decode(message.key, message.value, position, headers), num_bytes=num_bytes)
    except RecordError as error:
        raw = (message.key, message.value, tuple(headers))
        return Found(position, None, error.reason, error.detail, num_bytes, raw)


_AFTER_DECODING = frozenset(
    {
        Reason.TOO_LARGE_FOR_MODEL,
        Reason.INVALID_EMBEDDING,
        Reason.REFUSED_BY_STORE,
        Reason.CRASHES_WORKER,
        Reason.UNKNOWN_TASK,
        Reason.VERSION_IN_FUTURE,
    }
)
"""Reasons that decoding the record again does not show: the worker's own, and what has passed with time."""
