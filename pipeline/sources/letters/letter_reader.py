"""Reads the dead-letter topic back, from its beginning to where it ends now."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kafka import TopicPartition

from pipeline.config.source import SourceConfig
from pipeline.errors import ConfigError
from pipeline.records.digits import whole_number
from pipeline.records.record import Headers, Position
from pipeline.sources.client.topic_reader import READ_TIMEOUT_MS, open_reader, silence
from pipeline.sources.letters.dead_letters import HEADER


@dataclass(frozen=True, slots=True)
class StoredLetter:
    """A dead letter as its topic holds it."""

    position: Position
    """Of the record that could not be stored."""
    reason: str
    """A `Reason`, or the word of a newer version of this package."""
    detail: str
    task: str
    pipeline: str
    written_ms: int
    """When the letter was written, as Kafka's timestamp."""
    key: bytes | None
    value: bytes | None
    headers: Headers
    """The record's own."""
    is_shortened: bool
    """Whether key, value and headers are only a part of what was refused."""
    num_value_bytes: int
    """Size of the original value."""
    sha256: str = ""
    """Of the original value, hex, where `is_shortened`."""
    generation: int = 0
    """The topic's generation when the letter was written; 0 for letters of older versions of this package."""


def read_dead_letters(
    config: SourceConfig, *, topic: str | None = None, reason: str | None = None, limit: int | None = None
) -> Iterator[StoredLetter]:
    """Yields letters partition by partition in the order they were written, up to the present end of the topic.

    Args:
        config: Where the topic is.
        topic: Keeps the letters of one source topic.
        reason: Keeps the letters of one reason.
        limit: Keeps so many of the newest, in the order in which they were written.

    Raises:
        ConfigError: the topic does not exist.
        TransientError, EnvironmentFault: the brokers are away, or refuse.
    """
    matching = (
        letter
        for letter in _read(config)
        if (topic is None or letter.position.topic == topic) and (reason is None or letter.reason == reason)
    )
    if limit is None:
        yield from matching
        return
    newest: dict[int, deque[StoredLetter]] = {}
    # Each partition is in order, so its newest are its last; merged afterwards.
    for letter in matching:
        newest.setdefault(letter.position.partition, deque(maxlen=limit)).append(letter)
    merged = sorted((letter for kept in newest.values() for letter in kept), key=lambda letter: letter.written_ms)
    yield from merged[-limit:]


def _read(config: SourceConfig) -> Iterator[StoredLetter]:
    name = config.dead_letter_topic
    doing = f"reading the dead-letter topic {name!r}"
    with open_reader(config, "letters", doing, isolation_level="read_uncommitted") as consumer:
        numbers = consumer.partitions_for_topic(name)
        if not numbers:
            raise ConfigError(f"source.dead_letter_topic: there is no topic {name!r} yet")
        for number in sorted(numbers):
            yield from _read_partition(consumer, TopicPartition(name, number))


def _read_partition(consumer: Any, topic_partition: TopicPartition) -> Iterator[StoredLetter]:
    end = consumer.end_offsets([topic_partition], timeout_ms=READ_TIMEOUT_MS)[topic_partition]
    begin = consumer.beginning_offsets([topic_partition], timeout_ms=READ_TIMEOUT_MS)[topic_partition]
    if begin >= end:
        return
    consumer.assign([topic_partition])
    consumer.seek(topic_partition, begin)
    while consumer.position(topic_partition) < end:
        fetched = consumer.poll(timeout_ms=READ_TIMEOUT_MS)
        if not fetched and consumer.position(topic_partition) < end:
            raise silence()
        for message in fetched.get(topic_partition, ()):
            letter = _parse(message)
            if letter is not None:
                yield letter


def _parse(message: Any) -> StoredLetter | None:
    """Returns the letter in a message, None when something else wrote it."""
    facts = {name.removeprefix(HEADER): _text(value) for name, value in message.headers if name.startswith(HEADER)}
    try:
        topic, reason = facts["topic"], facts["reason"]
        partition, offset = whole_number(facts["partition"]), whole_number(facts["offset"])
        timestamp_ms = -1 if facts["timestamp"] == "-1" else whole_number(facts["timestamp"])
    except KeyError:
        return None
    if partition is None or offset is None or timestamp_ms is None:
        return None
    value = None if facts.get("value") == "null" else message.value
    size = whole_number(facts.get("size", ""))
    return StoredLetter(
        position=Position(topic, partition, offset, timestamp_ms),
        reason=reason,
        detail=facts.get("detail", ""),
        task=facts.get("task", ""),
        pipeline=facts.get("pipeline", ""),
        written_ms=message.timestamp,
        key=message.key,
        value=value,
        headers=tuple(_originals(message.headers)),
        is_shortened=facts.get("shortened") == "true",
        num_value_bytes=len(value or b"") if size is None else size,
        sha256=facts.get("sha256", ""),
        generation=whole_number(facts.get("generation", "")) or 0,
    )


def _originals(headers: list[tuple[str, bytes]]) -> Iterator[tuple[str, bytes | None]]:
    for name, value in headers:
        if name.startswith("original."):
            yield name.removeprefix("original."), value
        elif name.startswith("original-null."):
            yield name.removeprefix("original-null."), None


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")
