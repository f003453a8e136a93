"""A broker inside this process for the demo: librdkafka's mock cluster, which needs neither Java nor a network.

It keeps records in memory (5 MB or 100,000 batches per partition, then the oldest go) and ends with
the process, so it is for showing and for protocol tests, never for data.
"""

from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from pipeline.errors import ConfigError

API_VERSION = (2, 3)
"""What `source.api_version` must say: the mock does not answer the version probe of newer clients in full."""


class MockBroker:
    """A running mock cluster of one broker, from `start` or `with` until `close`.

    Topics are created by `create_topics`, or by the first client that asks for them. A group of several members may
    need a minute to settle: the mock refuses a follower's SyncGroup that comes after the leader's, which a broker
    answers (librdkafka 2, rdkafka_mock_cgrp.c), and the follower joins again until it is the first.
    """

    def __init__(self) -> None:
        self._client: Any = None
        self.bootstrap_servers = ""
        """host:port of the broker, once started."""

    def start(self) -> Self:
        """Starts the broker on a free port. Raises ConfigError when confluent-kafka is not installed."""
        try:
            from confluent_kafka import Producer  # noqa: PLC0415 - only the demo needs it
        except ImportError:
            raise ConfigError("the mock broker needs confluent-kafka: pip install 'refract[demo]'") from None
        self._client = Producer(
            {
                "test.mock.num.brokers": 1,
                "bootstrap.servers": "mock",
                "allow.auto.create.topics": True,
                "log_level": 0,
            }
        )
        metadata = self._client.list_topics(timeout=10)
        broker = next(iter(metadata.brokers.values()))
        self.bootstrap_servers = f"{broker.host}:{broker.port}"
        return self

    def create_topics(self, topics: Iterable[str]) -> None:
        """Creates the topics, with four partitions each: the mock's own number."""
        for topic in topics:
            self._client.list_topics(topic, timeout=10)

    def close(self) -> None:
        """Ends the broker and forgets its records."""
        self._client = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
