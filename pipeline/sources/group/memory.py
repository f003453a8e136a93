"""Remembers which topics the group has read, longer than the topics themselves live.

Kafka drops a group's offsets, marks included, together with a deleted topic. So the marks of all
topics are also kept as the metadata of one more committed offset of the group: that of partition 0
of the dead-letter topic, which nobody reads under this group.
"""

from collections.abc import Mapping
from typing import Any

import kafka.errors as kafka_errors
import orjson
import structlog
from kafka import OffsetAndMetadata, TopicPartition

from pipeline.clock import Clock
from pipeline.config.source import SourceConfig
from pipeline.errors import RefractError
from pipeline.sources.client.admin import create_dead_letter_topic, open_admin, topic_exists
from pipeline.sources.group.positions import Mark

TIMEOUT_MS = 5_000

REFRESH_S = 3_600.0
"""Kafka forgets offsets of topics that a living group does not subscribe to (after a week, by default)."""

RETRY_S = 30.0

log = structlog.get_logger(__name__)


class TopicMemory:
    """The marks of the group's topics, by topic. Called from the polling thread only."""

    def __init__(self, consumer: Any, config: SourceConfig, clock: Clock) -> None:
        self._consumer = consumer
        self._config = config
        self._clock = clock
        self._place = TopicPartition(config.dead_letter_topic, 0)
        self._stored: dict[str, Mark] = {}
        self._written_s = clock()

    def load(self) -> Mapping[str, Mark]:
        """Returns what the group remembers. Raises KafkaError."""
        try:
            found = self._consumer.committed(self._place, metadata=True, timeout_ms=TIMEOUT_MS)
        except kafka_errors.AuthorizationError as error:
            log.warning("The topics' ids could not be looked up.", error=type(error).__name__)
            found = None
        self._stored = _parse(found.metadata if found is not None else None)
        return self._stored

    def save(self, marks: Mapping[str, Mark]) -> None:
        """Keeps the given marks beside those already stored.

        A failure is logged and the write repeated later: it delays noticing a recreated topic, and endangers no record.
        """
        merged = {**self._stored, **marks}
        if merged == self._stored:
            return
        self._stored = merged
        self._written_s = self._clock()
        try:
            self._ensure_topic()
            self._consumer.commit({self._place: self._offset()}, timeout_ms=TIMEOUT_MS)
        except (kafka_errors.KafkaError, RefractError) as error:
            self._failed(error)

    def refresh(self) -> None:
        """Rewrites the marks when they are old, or were refused, without waiting."""
        if self._stored and self._clock() - self._written_s > REFRESH_S:
            self._written_s = self._clock()
            self._consumer.commit_async({self._place: self._offset()}, callback=self._answered)

    def _answered(self, _offsets: Any, answer: Any) -> None:
        if isinstance(answer, Exception):
            self._failed(answer)

    def _failed(self, error: Exception) -> None:
        self._written_s = self._clock() - REFRESH_S + RETRY_S
        log.warning("The topics' ids could not be stored; this will be repeated.", error=type(error).__name__)

    def _ensure_topic(self) -> None:
        if self._consumer.partitions_for_topic(self._place.topic):
            return
        with open_admin(self._config, "creating the dead-letter topic") as admin:
            if not topic_exists(admin, self._place.topic):
                create_dead_letter_topic(admin, self._place.topic)

    def _offset(self) -> OffsetAndMetadata:
        text = orjson.dumps({topic: mark.dump() for topic, mark in self._stored.items()}).decode()
        return OffsetAndMetadata(0, text, -1)


def _parse(metadata: str | None) -> dict[str, Mark]:
    try:
        found = orjson.loads(metadata or "{}")
        marks = {str(topic): Mark.load(mark) for topic, mark in found.items()}
    except (orjson.JSONDecodeError, AttributeError):
        return {}
    return {topic: mark for topic, mark in marks.items() if mark is not None}
