"""Sends dead letters back to their source topics, as the records they were; the version guard decides.

A replayed record carries its old version, so it wins only where it would have won the first time. Repeated,
it is the same record at the same version, which the guard lets through once.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from kafka import TopicPartition

from pipeline.config.source import SourceConfig, TopicConfig
from pipeline.errors import RecordError
from pipeline.interfaces import Progress
from pipeline.records.decode import REPLAYED_VERSION_HEADER, VERSION_HEADER, Decoders
from pipeline.records.digits import whole_number
from pipeline.records.payload import REPLAYED_TIMESTAMP_HEADER
from pipeline.records.record import Headers, offset_version
from pipeline.sources.client.admin import cleanup_policy, open_admin, partitions_of, topic_exists
from pipeline.sources.client.producer import RecordProducer
from pipeline.sources.client.topic_reader import READ_TIMEOUT_MS, open_reader, silence
from pipeline.sources.letters.letter_reader import StoredLetter, read_dead_letters

ORIGIN_HEADER = "refract-replayed-from"
"""`partition:offset` where a replayed record first was: it stays one record however often it is refused."""

FLUSH_BYTES = 16 << 20
"""Letters on their way to the brokers at once; the client itself bounds no memory."""

Place = tuple[str, int, int]
"""Topic, partition and offset at which a record first was."""


class Fate(StrEnum):
    """What a replay does with a letter."""

    REPLAY = "replay"
    REFUSED_AGAIN = "refused_again"
    """Today's configuration refuses it too; it would only come back."""
    VALUE_LOST = "value_lost"
    """Too large for a letter, and the source topic does not retain the record any more."""
    NO_TOPIC = "no_topic"
    """Its topic is not in the configuration, or not on the cluster."""
    COMPACTED = "compacted"
    """Compaction would drop a newer record of the key in favour of the replayed one."""
    BEYOND_LIMIT = "beyond_limit"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters to replay."""

    topic: str | None = None
    reason: str | None = None
    since_ms: int | None = None
    """Unix milliseconds of the letter's own writing, this one included."""
    until_ms: int | None = None
    """The same, this one not included."""
    limit: int | None = None
    """How many at most, the oldest first, of those that can be replayed."""

    def takes(self, letter: StoredLetter) -> bool:
        """Whether the letter is one of them, not counting the limit."""
        return (
            (self.topic is None or letter.position.topic == self.topic)
            and (self.reason is None or letter.reason == self.reason)
            and (self.since_ms is None or letter.written_ms >= self.since_ms)
            and (self.until_ms is None or letter.written_ms < self.until_ms)
        )


@dataclass(slots=True)
class Survey:
    """What a replay will do."""

    counts: Counter[tuple[str, str, Fate]] = field(default_factory=Counter)
    """Topic, the letter's reason and its fate -> letters."""
    reasons_again: Counter[str] = field(default_factory=Counter)
    """Why today's configuration refuses records."""
    chosen: set[Place] = field(default_factory=set)
    num_copies: int = 0
    """Letters about a record that an earlier letter is about too."""

    def total(self, *fates: Fate) -> int:
        """Returns the letters of these fates."""
        return sum(count for (_, _, fate), count in self.counts.items() if fate in fates)


@dataclass(frozen=True, slots=True)
class Original:
    """A record as its producer sent it."""

    letter: StoredLetter
    place: Place
    key: bytes | None
    value: bytes | None
    headers: Headers


class Replay:
    """One replay: `survey` says what it will do, `send` does that and no more. One thread."""

    def __init__(self, config: SourceConfig, decoders: Decoders, wanted: Wanted, *, into_compacted: bool) -> None:
        """Looks the topics up. Raises TransientError or EnvironmentFault."""
        self._config = config
        self._wanted = wanted
        self._into_compacted = into_compacted
        self._decoders = decoders
        with open_admin(config, "looking up the source topics") as admin:
            found = [topic for topic in config.topics if topic_exists(admin, topic)]
            self._partitions = Counter(place.topic for place in partitions_of(admin, found))
            self._compacted = {topic for topic in found if "compact" in cleanup_policy(admin, topic)}

    def survey(self, progress: Progress) -> Survey:
        """Reads every letter and decides its fate.

        Raises:
            ConfigError: there is no dead-letter topic.
            TransientError, EnvironmentFault: see `pipeline.errors`.
        """
        survey = Survey()
        ready: list[tuple[int, Place, str]] = []
        for number, (original, fate) in enumerate(self._originals(survey, lambda _: True), start=1):
            progress("reading letters", number, 0)
            letter = original.letter
            if fate is Fate.REPLAY:
                ready.append((letter.written_ms, original.place, letter.reason))
            else:
                survey.counts[letter.position.topic, letter.reason, fate] += 1
        limit = len(ready) if self._wanted.limit is None else self._wanted.limit
        for number, (_, place, reason) in enumerate(sorted(ready)):
            fate = Fate.REPLAY if number < limit else Fate.BEYOND_LIMIT
            survey.counts[place[0], reason, fate] += 1
            if fate is Fate.REPLAY:
                survey.chosen.add(place)
        return survey

    def send(self, chosen: set[Place], progress: Progress) -> int:
        """Writes the chosen records and returns how many are acknowledged. Raises as `survey`."""
        num_sent = num_bytes = 0
        with RecordProducer(self._config) as producer:
            for original, fate in self._originals(Survey(), chosen.__contains__):
                if fate is not Fate.REPLAY:  # what the source topic held a moment ago is gone
                    continue
                self._send(producer, original)
                num_sent += 1
                num_bytes += len(original.value or b"")
                if num_bytes >= FLUSH_BYTES:
                    producer.flush()
                    num_bytes = 0
                progress("replaying", num_sent, len(chosen))
            producer.flush()
        return num_sent

    def _send(self, producer: RecordProducer, original: Original) -> None:
        position = original.letter.position
        topic = position.topic
        producer.send(
            topic,
            original.key,
            original.value,
            replay_headers(original, self._config.topics[topic]),
            # With a new timestamp: at the old one the topic's retention could drop it before it is read.
            # An offset is comparable within its partition only.
            partition=position.partition if position.partition < self._partitions[topic] else None,
        )

    def _originals(self, survey: Survey, wants: Callable[[Place], bool]) -> Iterator[tuple[Original, Fate]]:
        """Yields every record that letters are about, once, with its fate; those in short letters come last."""
        seen: set[Place] = set()
        shortened: list[tuple[Place, StoredLetter]] = []
        for letter in filter(self._wanted.takes, read_dead_letters(self._config)):
            place = origin_of(letter)
            if not wants(place):
                continue
            if place in seen:
                survey.num_copies += 1
                continue
            seen.add(place)
            whole = Original(letter, place, letter.key, letter.value, letter.headers)
            if letter.position.topic not in self._partitions:
                yield whole, Fate.NO_TOPIC
            elif letter.position.topic in self._compacted and not self._into_compacted:
                yield whole, Fate.COMPACTED
            elif letter.is_shortened:
                shortened.append((place, letter))
            else:
                yield whole, self._decide(whole, survey)
        for place, letter, message in _fetch(self._config, shortened):
            if message is None:
                yield Original(letter, place, None, None, ()), Fate.VALUE_LOST
            else:
                original = Original(letter, place, message.key, message.value, _plain(message.headers))
                yield original, self._decide(original, survey)

    def _decide(self, original: Original, survey: Survey) -> Fate:
        position = original.letter.position
        try:
            self._decoders.of(position.topic).decode(original.key, original.value, position, original.headers)
        except RecordError as error:
            survey.reasons_again[error.reason] += 1
            return Fate.REFUSED_AGAIN
        return Fate.REPLAY


def origin_of(letter: StoredLetter) -> Place:
    """Returns where the letter's record first was: a replay that was refused again names it."""
    position = letter.position
    for name, value in letter.headers:
        if name == ORIGIN_HEADER:
            first, _, second = (value or b"").decode(errors="replace").partition(":")
            partition, offset = whole_number(first), whole_number(second)
            if partition is not None and offset is not None:
                return position.topic, partition, offset
    return position.topic, position.partition, position.offset


def replay_headers(original: Original, topic: TopicConfig) -> Headers:
    """Returns a record's own headers, and those that keep its first place, version and timestamp.

    Null headers are left out: the client sends none, and nothing here tells them from absent ones.
    """
    letter, position = original.letter, original.letter.position
    kept = [(name, value) for name, value in original.headers if value is not None]
    names = {name for name, _ in kept}
    added: list[tuple[str, bytes]] = []
    if ORIGIN_HEADER not in names:
        added.append((ORIGIN_HEADER, f"{position.partition}:{position.offset}".encode()))
    if topic.version is None and REPLAYED_VERSION_HEADER not in names:
        version = offset_version(letter.generation, position.offset)
        added.append((REPLAYED_VERSION_HEADER, str(version).encode()))
    if original.value is None and topic.version_type == "time" and VERSION_HEADER not in names:
        added.append((VERSION_HEADER, str(position.timestamp_ms).encode()))
    if topic.payload_timestamp and REPLAYED_TIMESTAMP_HEADER not in names and position.timestamp_ms >= 0:
        added.append((REPLAYED_TIMESTAMP_HEADER, str(position.timestamp_ms).encode()))
    return [*kept, *added]


def _plain(headers: Iterable[tuple[str, bytes | None]]) -> Headers:
    """Returns the headers with names that can be sent: of one that is not UTF-8, its escaped form, as letters do."""
    return tuple((str(name), value) for name, value in headers)


def _fetch(
    config: SourceConfig, letters: Sequence[tuple[Place, StoredLetter]]
) -> Iterator[tuple[Place, StoredLetter, Any]]:
    """Yields the whole message of each shortened letter from its source topic, None where it is not there any more."""
    if not letters:
        return
    with open_reader(config, "replay", "reading the records of shortened letters", max_poll_records=1) as consumer:
        for place, letter in letters:
            message = _message_at(consumer, letter)
            same = message is not None and hashlib.sha256(message.value or b"").hexdigest() == letter.sha256
            yield place, letter, message if same else None


def _message_at(consumer: Any, letter: StoredLetter) -> Any:
    position = letter.position
    there = TopicPartition(position.topic, position.partition)
    if position.partition not in (consumer.partitions_for_topic(position.topic) or ()):
        return None
    begin = consumer.beginning_offsets([there], timeout_ms=READ_TIMEOUT_MS)[there]
    end = consumer.end_offsets([there], timeout_ms=READ_TIMEOUT_MS)[there]
    if not begin <= position.offset < end:
        return None
    consumer.assign([there])
    consumer.seek(there, position.offset)
    while consumer.position(there) <= position.offset:
        messages: Iterable[Any] = consumer.poll(timeout_ms=READ_TIMEOUT_MS).get(there, ())
        for message in messages:
            return message if message.offset == position.offset else None
        if consumer.position(there) <= position.offset:
            raise silence()
    return None
