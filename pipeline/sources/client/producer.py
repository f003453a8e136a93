"""Sends records to source topics: what `refract produce` and the demo write with."""

import threading
from typing import Any, Self

import kafka.errors as kafka_errors
from kafka import KafkaProducer

from pipeline.config.source import SourceConfig
from pipeline.errors import ConfigError, RefractError, TransientError
from pipeline.records.record import Headers
from pipeline.sources.client.broker_errors import error_from_kafka
from pipeline.sources.client.connection import client_settings, connect

MAX_UNACKNOWLEDGED = 20_000
"""Records on their way. The client bounds no memory itself; at this bound `send` waits."""

DELIVERY_TIMEOUT_MS = 60_000
MAX_REQUEST_BYTES = 16_777_216


class RecordProducer:
    """Writes records in order per key, each once (idempotent), compressed with lz4.

    Delivery errors come out of the next `send` or of `flush`. Thread-safe.
    """

    def __init__(self, config: SourceConfig) -> None:
        """Connects. Raises TransientError when no broker answers, EnvironmentFault when they refuse."""
        self._config = config
        self._room = threading.BoundedSemaphore(MAX_UNACKNOWLEDGED)
        self._failure: RefractError | None = None
        settings = {
            **client_settings(config, "producer"),
            "acks": "all",
            "enable_idempotence": True,
            "compression_type": "lz4",
            "linger_ms": 5,
            "batch_size": 65_536,
            "max_request_size": MAX_REQUEST_BYTES,
            "delivery_timeout_ms": DELIVERY_TIMEOUT_MS,
            "metrics_enabled": False,
        }
        self._producer = connect(KafkaProducer, settings, config)

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        partition: int | None = None,
    ) -> None:
        """Queues one record; a null value deletes its key. Without `partition` the key decides where it goes.

        Raises:
            TransientError: an earlier record was not delivered, or the queue does not move.
            ConfigError: the record can never be sent (too large; neither key nor value).
            EnvironmentFault: the brokers refuse for good.
        """
        self._check()
        if not self._room.acquire(timeout=DELIVERY_TIMEOUT_MS / 1000):
            raise TransientError(f"{MAX_UNACKNOWLEDGED} records wait for an acknowledgement that does not come")
        try:
            future = self._producer.send(topic, value=value, key=key, headers=list(headers), partition=partition)
        except (kafka_errors.MessageSizeTooLargeError, ValueError, TypeError) as error:
            self._room.release()
            raise ConfigError(f"a record for topic {topic!r} cannot be sent: {error}") from error
        except kafka_errors.KafkaError as error:
            self._room.release()
            raise error_from_kafka(error, f"sending to {topic!r}", self._config) from error
        future.add_callback(self._delivered)
        future.add_errback(self._failed, topic)

    def flush(self) -> None:
        """Returns when every record is acknowledged. Raises like `send`."""
        try:
            self._producer.flush(timeout=DELIVERY_TIMEOUT_MS / 1000)
        except kafka_errors.KafkaError as error:
            raise error_from_kafka(error, "flushing", self._config) from error
        self._check()

    def close(self) -> None:
        """Frees the producer; records since the last `flush` may be lost."""
        self._producer.close(timeout=5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _delivered(self, _metadata: Any) -> None:
        self._room.release()

    def _failed(self, topic: str, error: Exception) -> None:
        self._failure = self._failure or error_from_kafka(error, f"sending to {topic!r}", self._config)
        self._room.release()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
