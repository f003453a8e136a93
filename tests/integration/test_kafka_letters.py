"""The dead-letter topic: written and acknowledged, or the caller hears of it; and read back as it was written."""

import hashlib
from collections.abc import Iterator

import pytest
from kafka import KafkaProducer

from pipeline.config.source import SourceConfig
from pipeline.errors import ConfigError, EnvironmentFault, Reason, TransientError
from pipeline.records.record import DeadLetter, Position
from pipeline.sources.client import connection
from pipeline.sources.letters import dead_letters
from pipeline.sources.letters.dead_letters import KafkaDeadLetters
from pipeline.sources.letters.letter_reader import StoredLetter, read_dead_letters
from tests.broker import Broker, unique
from tests.integration.members import source_config

pytestmark = pytest.mark.kafka


@pytest.fixture
def config(broker: Broker) -> SourceConfig:
    return source_config(broker.bootstrap_servers, unique("letters"))


@pytest.fixture
def letters(config: SourceConfig) -> Iterator[KafkaDeadLetters]:
    opened = KafkaDeadLetters(config, "tickets")
    yield opened
    opened.close()


def letter(
    offset: int, value: bytes | None = b"{", key: bytes | None = b"k", reason: Reason = Reason.INVALID_JSON
) -> DeadLetter:
    return DeadLetter(Position("source", 3, offset, 1_700_000_000_000), reason, key, value)


def test_a_letter_comes_back_with_everything_it_was_given(config: SourceConfig, letters: KafkaDeadLetters) -> None:
    headers = [("tenant", b"blue"), ("empty", None), ("bytes", b"\xff\x00"), ("tenant", b"again")]
    position = Position("source", 3, 77, 1_700_000_000_000)
    letters.send([DeadLetter(position, Reason.TEXT_EMPTY, b"\xffkey", b"\x00v", headers, "urgency", "why")])
    (found,) = read_dead_letters(config)
    assert found.written_ms > 0
    assert found == StoredLetter(
        position=position,
        reason="text_empty",
        detail="why",
        task="urgency",
        pipeline="tickets",
        written_ms=found.written_ms,
        key=b"\xffkey",
        value=b"\x00v",
        headers=tuple(headers),
        is_shortened=False,
        num_value_bytes=2,
    )


@pytest.mark.parametrize(("key", "value"), [(None, None), (b"k", None), (None, b"v"), (b"", b"")])
def test_null_and_empty_stay_apart(
    config: SourceConfig, letters: KafkaDeadLetters, key: bytes | None, value: bytes | None
) -> None:
    letters.send([letter(1, value, key)])
    (found,) = read_dead_letters(config)
    assert (found.key, found.value) == (key, value)


def test_a_letter_too_large_for_the_topic_is_shortened_and_names_the_whole(
    config: SourceConfig, letters: KafkaDeadLetters
) -> None:
    value = b"0123456789" * 200_000
    bad = DeadLetter(Position("source", 0, 5, 1), Reason.RECORD_TOO_LARGE, b"k" * 100_000, value, [("h", b"x" * 10**6)])
    letters.send([bad, letter(6)])
    long, short = read_dead_letters(config)
    assert (long.is_shortened, long.num_value_bytes, long.value) == (True, len(value), value[:65_536])
    assert long.key == b"k" * dead_letters.MAX_KEY_BYTES
    assert (short.is_shortened, short.value) == (False, b"{")


def test_a_topic_that_takes_little_gets_shorter_letters_and_every_letter_arrives(
    broker: Broker, config: SourceConfig, letters: KafkaDeadLetters
) -> None:
    broker.create_topic(config.dead_letter_topic, configs={"max.message.bytes": "20000", "compression.type": "gzip"})
    # Random bytes, so that compression does not make the letter fit.
    noise = b"".join(hashlib.sha256(bytes([i % 256, i // 256])).digest() for i in range(10_000))
    letters.send([letter(1), letter(2, noise), letter(3)])
    found = {stored.position.offset: stored for stored in read_dead_letters(config)}
    assert set(found) == {1, 2, 3}
    assert found[2].is_shortened
    assert found[2].value == noise[:1_024]


def test_a_missing_topic_is_created(broker: Broker, config: SourceConfig, letters: KafkaDeadLetters) -> None:
    letters.send([letter(1)])
    admin = broker.admin()
    assert config.dead_letter_topic in admin.list_topics()
    admin.close()


def test_an_outage_is_heard_and_the_same_letters_go_through_afterwards(
    own_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "DELIVERY_TIMEOUT_MS", 1_500)
    monkeypatch.setattr(dead_letters, "MAX_BLOCK_MS", 500)
    monkeypatch.setattr(connection, "BOOTSTRAP_TIMEOUT_MS", 500)
    monkeypatch.setattr(connection, "REQUEST_TIMEOUT_MS", 1_000)
    config = source_config(own_broker.bootstrap_servers, unique("outage"))
    letters = KafkaDeadLetters(config, "tickets")
    letters.send([letter(1)])
    own_broker.kill()
    for _ in range(2):
        with pytest.raises(TransientError):
            letters.send([letter(2), letter(3)])
    own_broker.start()
    letters.send([letter(2), letter(3)])
    letters.close()
    assert {stored.position.offset for stored in read_dead_letters(config)} == {1, 2, 3}


def test_letters_are_filtered_and_the_newest_kept(config: SourceConfig, letters: KafkaDeadLetters) -> None:
    letters.send([letter(i, reason=Reason.NO_KEY if i % 2 else Reason.INVALID_JSON) for i in range(10)])

    def offsets(**filters: object) -> list[int]:
        return [stored.position.offset for stored in read_dead_letters(config, **filters)]  # type: ignore[arg-type]

    assert offsets() == list(range(10))
    assert offsets(reason="no_key") == [1, 3, 5, 7, 9]
    assert offsets(limit=3) == [7, 8, 9]
    assert offsets(reason="invalid_json", limit=2) == [6, 8]
    assert offsets(topic="other") == []


def test_records_that_others_wrote_to_the_topic_are_passed_over(
    broker: Broker, config: SourceConfig, letters: KafkaDeadLetters
) -> None:
    letters.send([letter(1)])
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers)
    producer.send(config.dead_letter_topic, value=b"hello", headers=[("refract.topic", b"t")])
    producer.close()
    assert len(list(read_dead_letters(config))) == 1


def test_reading_a_topic_that_does_not_exist_is_a_config_error(config: SourceConfig) -> None:
    with pytest.raises(ConfigError, match="dead_letter_topic"):
        list(read_dead_letters(config))


def test_a_topic_name_that_no_broker_takes_needs_a_person(config: SourceConfig) -> None:
    bad = config.model_copy(update={"dead_letter_topic": ".."})
    letters = KafkaDeadLetters(bad, "tickets")
    with pytest.raises(EnvironmentFault):
        letters.send([letter(1)])
    letters.close()
