"""A letter counts as written when the broker says so, and not before."""

from types import SimpleNamespace
from typing import Any

import kafka.errors as kafka_errors
import pytest

from pipeline.config.source import SourceConfig
from pipeline.errors import Reason, TransientError
from pipeline.records.record import DeadLetter, Position
from pipeline.sources.letters.dead_letters import SHORT_VALUE_BYTES, KafkaDeadLetters

CONFIG = SourceConfig.model_validate(
    {
        "bootstrap_servers": ["b:1"],
        "group_id": "g",
        "topics": {"t": {"key": "id", "text": "{text}", "tasks": ["a"]}},
        "dead_letter_topic": "dead",
    }
)
LETTER = DeadLetter(Position("t", 0, 1, 1), Reason.INVALID_JSON, b"k", b"{bad")


class FakeProducer:
    """Takes everything; the answers are given."""

    def __init__(self, *answers: Exception | None) -> None:
        self._answers = list(answers)
        self.closed = False

    def send(self, topic: str, **message: Any) -> Any:
        assert topic == "dead"
        assert message["value"] == LETTER.value
        return SimpleNamespace(get=self._answer)

    def _answer(self, timeout: float) -> None:
        assert timeout
        answer = self._answers.pop(0)
        if answer is not None:
            raise answer

    def flush(self, timeout: float) -> None:
        assert timeout

    def close(self, timeout: float) -> None:
        assert timeout
        self.closed = True


def letters_through(producer: FakeProducer) -> KafkaDeadLetters:
    letters = KafkaDeadLetters(CONFIG, "support")
    letters._producer = producer
    return letters


def test_letter_that_is_not_acknowledged_is_an_outage() -> None:
    producer = FakeProducer(None, kafka_errors.KafkaTimeoutError("no answer"))
    with pytest.raises(TransientError):
        letters_through(producer).send([LETTER, LETTER])
    assert producer.closed


def test_acknowledged_letters_are_done() -> None:
    producer = FakeProducer(None, None)
    letters_through(producer).send([LETTER, LETTER])
    assert not producer.closed


def test_a_small_letter_that_was_refused_with_a_large_one_stays_whole() -> None:
    letters = KafkaDeadLetters(CONFIG, "support")
    large = DeadLetter(Position("t", 0, 2, 1), Reason.INVALID_JSON, b"k", b"x" * 100_000)
    for num_bytes in SHORT_VALUE_BYTES:
        assert letters._message(LETTER, num_bytes) == letters._message(LETTER, None)
        message = letters._message(large, num_bytes)
        assert len(message["value"]) == num_bytes
        assert ("refract.shortened", b"true") in message["headers"]
