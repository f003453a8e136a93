"""Writes records that can never be stored to the dead-letter topic, and waits for the acknowledgement."""

import hashlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

import kafka.errors as kafka_errors
from kafka import KafkaProducer

from pipeline.config.source import SourceConfig
from pipeline.errors import EnvironmentFault
from pipeline.records.record import DeadLetter
from pipeline.sources.client.admin import create_dead_letter_topic, open_admin, topic_exists
from pipeline.sources.client.broker_errors import error_from_kafka
from pipeline.sources.client.connection import client_settings, connect
from pipeline.version import __version__

HEADER = "refract."
"""Begins the headers this package writes. The record's own follow under `original.`."""

MAX_LETTER_BYTES = 900_000
"""Larger letters are shortened: brokers take 1 MiB by default, batch overhead included."""

SHORT_VALUE_BYTES = (65_536, 1_024)
"""What a shortened letter keeps of its value; the second one when the topic refuses even the first."""

MAX_KEY_BYTES = 16_384
MAX_DETAIL_CHARS = 500

DELIVERY_TIMEOUT_MS = 20_000
MAX_BLOCK_MS = 8_000


class KafkaDeadLetters:
    """The dead-letter topic. Implements `pipeline.interfaces.DeadLetters`; see there for the contract.

    A letter keeps the record's key, value and headers as bytes; where it came from, why, and under
    which pipeline stand in `refract.*` headers. A record too large for the topic is shortened to the
    beginning of its value with its size and SHA-256: the position still names the original. The
    topic is created at the first letter where that is allowed.

    Thread-safe. After a failure the producer is thrown away: an idempotent producer that gave up on
    a batch has a gap in its sequence.
    """

    def __init__(
        self, config: SourceConfig, pipeline: str, *, make_producer: Callable[..., Any] = KafkaProducer
    ) -> None:
        self._config = config
        self._topic = config.dead_letter_topic
        self._pipeline = pipeline
        self._make_producer = make_producer
        self._lock = threading.Lock()
        self._producer: Any = None

    def send(self, letters: Sequence[DeadLetter]) -> None:
        """Returns when every letter is acknowledged by all in-sync replicas.

        Raises:
            TransientError: some may not be written; send all of them again.
            EnvironmentFault: the topic is missing and cannot be created, or may not be written.
        """
        with self._lock:
            try:
                refused = self._send(letters, None)
                for num_bytes in SHORT_VALUE_BYTES:
                    if refused:
                        refused = self._send(refused, num_bytes)
            except kafka_errors.KafkaError as error:
                self._discard()
                raise error_from_kafka(
                    error, f"writing to the dead-letter topic {self._topic!r}", self._config
                ) from error
        if refused:
            raise EnvironmentFault(
                f"the dead-letter topic {self._topic!r} refuses even letters of {SHORT_VALUE_BYTES[-1]} bytes; "
                f"raise its max.message.bytes"
            )

    def close(self) -> None:
        """Flushes and frees the producer."""
        with self._lock:
            self._discard()

    def _send(self, letters: Sequence[DeadLetter], max_value_bytes: int | None) -> list[DeadLetter]:
        """Writes letters and returns those that are too large for the topic."""
        producer = self._connect()
        futures = [producer.send(self._topic, **self._message(letter, max_value_bytes)) for letter in letters]
        producer.flush(timeout=DELIVERY_TIMEOUT_MS / 1000)
        refused = []
        for letter, future in zip(letters, futures, strict=True):
            try:
                future.get(timeout=DELIVERY_TIMEOUT_MS / 1000)
            except (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError):
                refused.append(letter)
        if refused:
            self._discard()
        return refused

    def _connect(self) -> Any:
        if self._producer is not None:
            return self._producer
        self._ensure_topic()
        settings = {
            **client_settings(self._config, "dead-letters"),
            "acks": "all",
            "enable_idempotence": True,
            "compression_type": "lz4",
            "linger_ms": 5,
            "max_request_size": 4 * MAX_LETTER_BYTES,
            "delivery_timeout_ms": DELIVERY_TIMEOUT_MS,
            "max_block_ms": MAX_BLOCK_MS,
            "metrics_enabled": False,
        }
        self._producer = connect(self._make_producer, settings, self._config)
        return self._producer

    def _ensure_topic(self) -> None:
        with open_admin(self._config, f"creating the dead-letter topic {self._topic!r}") as admin:
            if not topic_exists(admin, self._topic):
                create_dead_letter_topic(admin, self._topic)

    def _discard(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close(timeout=1)

    def _message(self, letter: DeadLetter, max_value_bytes: int | None) -> dict[str, Any]:
        """Builds one message.

        A null value is written as no bytes with a header that says so: in a compacted topic a null
        would delete an earlier letter, and Kafka takes no record without key and value.
        """
        headers = self._headers(letter)
        key, value = letter.key, letter.value
        originals = [
            (f"original.{name}" if content is not None else f"original-null.{name}", content or b"")
            for name, content in letter.headers
        ]
        num_bytes = _size(key, value, headers + originals)
        if max_value_bytes is None and num_bytes > MAX_LETTER_BYTES:
            max_value_bytes = SHORT_VALUE_BYTES[0]
        elif max_value_bytes is not None and num_bytes <= max_value_bytes:
            max_value_bytes = None  # it was refused together with larger ones
        if max_value_bytes is None:
            headers += originals
        else:
            headers += _shortened(letter)
            value = value[:max_value_bytes] if value is not None else None
            key = key[: min(MAX_KEY_BYTES, max_value_bytes)] if key is not None else None
        if value is None:
            headers.append((f"{HEADER}value", b"null"))
        return {"key": key, "value": value or b"", "headers": headers}

    def _headers(self, letter: DeadLetter) -> list[tuple[str, bytes]]:
        position = letter.position
        topic = self._config.topics.get(position.topic)
        facts = {
            "topic": position.topic,
            "partition": position.partition,
            "offset": position.offset,
            "timestamp": position.timestamp_ms,
            "generation": topic.generation if topic else 0,
            "task": letter.task,
            "reason": letter.reason,
            "detail": letter.detail[:MAX_DETAIL_CHARS],
            "pipeline": self._pipeline,
            "version": __version__,
        }
        return [(f"{HEADER}{name}", str(fact).encode(errors="replace")) for name, fact in facts.items()]


def _shortened(letter: DeadLetter) -> list[tuple[str, bytes]]:
    value = letter.value or b""
    return [
        (f"{HEADER}shortened", b"true"),
        (f"{HEADER}size", str(len(value)).encode()),
        (f"{HEADER}sha256", hashlib.sha256(value).hexdigest().encode()),
    ]


def _size(key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> int:
    return len(key or b"") + len(value or b"") + sum(len(name) + len(content) + 8 for name, content in headers)
