"""Reads `kafka://topic?from=…&to=…`: which offsets of which partitions that is now."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pipeline.config.source import SourceConfig
from pipeline.errors import ConfigError, nearest
from pipeline.sources.ranges import Bound, bounded_partitions

SCHEME = "kafka://"
RANGE_OFFSETS = 50_000
"""Offsets of one fragment. Fragments begin at multiples of it, so that a later run of a range that grew meets the same
ones again."""

_NAMES = ("from", "to")


@dataclass(frozen=True, slots=True)
class KafkaRange:
    """Offsets of one partition."""

    uri: str
    """Address of the topic."""
    part: int
    """The partition."""
    begin: int
    end: int
    """One past the last offset."""
    topic_id: str
    """A topic that was recreated is another input."""

    @property
    def name(self) -> str:
        """Names the range, in messages and where progress is kept."""
        return f"{self.uri}#{self.part}@{self.begin}+{self.size}"

    @property
    def size(self) -> int:
        """Offsets in the range: an upper bound of its records."""
        return self.end - self.begin

    @property
    def num_rows(self) -> None:
        """Known only after reading."""

    @property
    def state(self) -> str:
        """Changes when the topic does."""
        return self.topic_id or f"{self.size}-0"


def topic_of(uri: str) -> str:
    """Returns the topic of a Kafka address. Raises ConfigError."""
    return _split(uri).netloc


def list_ranges(uri: str, config: SourceConfig) -> list[KafkaRange]:
    """Returns the ranges of an address, bounded by what the topic holds now.

    Raises ConfigError; TransientError and EnvironmentFault as the brokers' answers say.
    """
    topic = topic_of(uri)
    if topic not in config.topics:
        raise ConfigError(f"kafka://{topic}: this file has no source topic {topic!r}.{nearest(topic, config.topics)}")
    parts = _split(uri)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in given:
        if name not in _NAMES or parts.path:
            raise ConfigError(
                f"kafka://{topic}: {name!r} is neither `from` nor `to`.{nearest(name, _NAMES)} "
                "Expected kafka://TOPIC?from=2026-01-01&to=latest"
            )
    begin = _bound("from", given.get("from", "earliest"), topic)
    end = _bound("to", given.get("to", "latest"), topic)
    found, topic_id = bounded_partitions(config, topic, begin, end)
    return [
        KafkaRange(f"{SCHEME}{topic}", partition, start, stop, topic_id)
        for partition, (first, last) in sorted(found.items())
        for start, stop in _aligned(first, last)
    ]


def _split(uri: str) -> SplitResult:
    try:
        return urlsplit(uri)
    except ValueError:
        raise ConfigError(f"{uri!r} is not an address. Expected kafka://TOPIC?from=2026-01-01&to=latest") from None


def _aligned(first: int, last: int) -> Iterator[tuple[int, int]]:
    while first < last:
        stop = min((first // RANGE_OFFSETS + 1) * RANGE_OFFSETS, last)
        yield first, stop
        first = stop


def _bound(name: str, text: str, topic: str) -> Bound:
    if text == "earliest":
        return Bound("earliest")
    if text == "latest":
        return Bound("latest")
    if re.fullmatch(r"[0-9]{1,18}", text):
        return Bound("offset", int(text))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"kafka://{topic}: {name}={text!r}: expected an offset, a date or time (2026-01-01, "
            "2026-01-01T12:00:00+01:00), earliest or latest"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return Bound("time", int(moment.timestamp() * 1000))
