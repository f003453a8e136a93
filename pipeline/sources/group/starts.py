"""Asks the brokers, and what the group remembers, where newly assigned partitions start."""

from collections.abc import Iterable, Mapping
from typing import Any

from kafka import OffsetAndMetadata, TopicPartition

from pipeline.config.source import SourceConfig
from pipeline.records.record import Partition
from pipeline.sources.client.broker_errors import GROUP_MOVED_ON
from pipeline.sources.group.consumer_internals import refresh_metadata, topic_id
from pipeline.sources.group.memory import TopicMemory
from pipeline.sources.group.positions import Committed, History, Mark, Start, Topic, begin, load_witness, resume

PLACE_TIMEOUT_MS = 5_000
"""Longest wait for one answer about a start position; a later poll asks again."""


class StartFinder:
    """Finds starts and makes them the group's. Called from the polling thread only."""

    def __init__(self, consumer: Any, config: SourceConfig, memory: TopicMemory) -> None:
        self._consumer = consumer
        self._config = config
        self._memory = memory

    def find(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Start]:
        """Returns the start of each partition.

        Raises:
            EnvironmentFault: an offset no longer means the same log.
            KafkaError: the client's errors, retriable or not.
        """
        # Without this a recreated topic, or one with more partitions, looks the same.
        refresh_metadata(self._consumer, PLACE_TIMEOUT_MS)
        remembered = self._memory.load()
        siblings: dict[str, list[Committed]] = {}
        return {place: self._start(place, remembered, siblings) for place in partitions}

    def settle(self, starts: Mapping[TopicPartition, Start]) -> dict[TopicPartition, int]:
        """Returns the first offset to read of each start, after committing those of first starts.

        Reading from the end before that is committed would lose what a crash leaves behind. Empty when the
        group has moved on meanwhile. Raises KafkaError.
        """
        offsets = {place: self._offset(place, start) for place, start in starts.items()}
        first = {
            place: OffsetAndMetadata(offsets[place], start.mark.dump(), -1)
            for place, start in starts.items()
            if start.is_first
        }
        if first:
            try:
                self._consumer.commit(first, timeout_ms=PLACE_TIMEOUT_MS)
            except GROUP_MOVED_ON:
                return {}
        self._memory.save({place.topic: start.mark for place, start in starts.items()})
        return offsets

    def _start(
        self, place: TopicPartition, remembered: Mapping[str, Mark], siblings: dict[str, list[Committed]]
    ) -> Start:
        name, number = place
        partition = Partition(name, number)
        numbers = self._consumer.partitions_for_topic(name) | {number}
        topic = Topic(topic_id(self._consumer, name), len(numbers))
        committed = self._committed(place)
        if committed is not None:
            return resume(partition, self._config.topics[name], committed, topic)
        if name not in siblings:
            answers = [self._committed(TopicPartition(name, other)) for other in sorted(numbers)]
            siblings[name] = [answer for answer in answers if answer is not None]
        history = History(siblings[name], remembered.get(name))
        return begin(partition, self._config.topics[name], self._config.start_from, history, topic)

    def _committed(self, place: TopicPartition) -> Committed | None:
        found = self._consumer.committed(place, metadata=True, timeout_ms=PLACE_TIMEOUT_MS)
        return found and Committed(found.offset, Mark.load(found.metadata), load_witness(found.metadata))

    def _offset(self, place: TopicPartition, start: Start) -> int:
        if start.offset is not None:
            return start.offset
        ask = self._consumer.end_offsets if start.at_end else self._consumer.beginning_offsets
        return int(ask([place], timeout_ms=PLACE_TIMEOUT_MS)[place])
