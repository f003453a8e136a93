"""Remembers which topics the group has read, longer than the topics themselves live.

Kafka drops a group's offsets, marks included, together with a deleted topic. So the marks of all
topics are also kept as the metadata of more committed offsets of the group: those of the dead-letter
topic, which nobody reads under this group. What does not fit into the metadata of partition 0 stands
in that of partition 1, and so on: the coordinator keeps them, whether the partition exists or not.
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

PAGE_BYTES = 3_500
"""Of one offset's metadata; brokers take 4,096 (`offset.metadata.max.bytes`). That is about 35 topics."""

_MORE = ""
"""Key under which a page says that another one follows; no topic has this name."""

log = structlog.get_logger(__name__)


class TopicMemory:
    """The marks of the group's topics, by topic. Called from the polling thread only."""

    def __init__(self, consumer: Any, config: SourceConfig, clock: Clock) -> None:
        self._consumer = consumer
        self._config = config
        self._clock = clock
        self._stored: dict[str, Mark] = {}
        self._written_s = clock()

    def load(self) -> Mapping[str, Mark]:
        """Returns what the group remembers. Raises KafkaError."""
        marks: dict[str, Mark] = {}
        page: int | None = 0
        while page is not None:
            content = self._page(page)
            marks |= _parse(content)
            page = page + 1 if _MORE in content else None
        self._stored = marks
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
            self._consumer.commit(self._offsets(), timeout_ms=TIMEOUT_MS)
        except (kafka_errors.KafkaError, RefractError) as error:
            self._failed(error)

    def refresh(self) -> None:
        """Rewrites the marks when they are old, or were refused, without waiting."""
        if self._stored and self._clock() - self._written_s > REFRESH_S:
            self._written_s = self._clock()
            self._consumer.commit_async(self._offsets(), callback=self._answered)

    def _answered(self, _offsets: Any, answer: Any) -> None:
        if isinstance(answer, Exception):
            self._failed(answer)

    def _failed(self, error: Exception) -> None:
        self._written_s = self._clock() - REFRESH_S + RETRY_S
        log.warning("The topics' ids could not be stored; this will be repeated.", error=type(error).__name__)

    def _ensure_topic(self) -> None:
        name = self._config.dead_letter_topic
        if self._consumer.partitions_for_topic(name):
            return
        with open_admin(self._config, "creating the dead-letter topic") as admin:
            if not topic_exists(admin, name):
                create_dead_letter_topic(admin, name)

    def _page(self, number: int) -> dict[str, Any]:
        place = TopicPartition(self._config.dead_letter_topic, number)
        try:
            found = self._consumer.committed(place, metadata=True, timeout_ms=TIMEOUT_MS)
        except kafka_errors.AuthorizationError as error:
            log.warning("The topics' ids could not be looked up.", error=type(error).__name__)
            return {}
        try:
            content = orjson.loads((found.metadata if found is not None else None) or "{}")
        except orjson.JSONDecodeError:
            return {}
        return content if isinstance(content, dict) else {}

    def _offsets(self) -> dict[TopicPartition, OffsetAndMetadata]:
        pages: list[dict[str, str]] = [{}]
        size = 0
        for topic, mark in sorted(self._stored.items()):
            size += len(orjson.dumps({topic: mark.dump()}))
            if size > PAGE_BYTES and pages[-1]:
                pages[-1][_MORE] = "more"
                pages.append({})
                size = len(orjson.dumps({topic: mark.dump()}))
            pages[-1][topic] = mark.dump()
        return {
            TopicPartition(self._config.dead_letter_topic, number): OffsetAndMetadata(
                0, orjson.dumps(page).decode(), -1
            )
            for number, page in enumerate(pages)
        }


def _parse(content: Mapping[str, Any]) -> dict[str, Mark]:
    marks = {topic: Mark.load(mark) for topic, mark in content.items()}
    return {topic: mark for topic, mark in marks.items() if mark is not None}
