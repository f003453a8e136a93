"""Reads topics outside any group: consumers that are assigned partitions by hand and commit nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import kafka.errors as kafka_errors
from kafka import KafkaConsumer

from pipeline.config.source import SourceConfig
from pipeline.sources.client.broker_errors import error_from_kafka
from pipeline.sources.client.connection import client_settings, connect

READ_TIMEOUT_MS = 15_000
"""Longest silence of the broker before reading is given up."""


@contextmanager
def open_reader(config: SourceConfig, role: str, doing: str, **own: Any) -> Iterator[Any]:
    """Connects a consumer without a group, and turns the client's errors inside into those of `pipeline.errors`.

    Args:
        config: Where the topics are.
        role: Ends the client id, see `client_settings`.
        doing: What failed, for messages: "reading the dead-letter topic".
        own: Settings of this reader besides the common ones.

    Raises TransientError, EnvironmentFault.
    """
    settings = {
        **client_settings(config, role),
        "group_id": None,
        "auto_offset_reset": "earliest",
        "isolation_level": "read_committed",
        "enable_auto_commit": False,
        "metrics_enabled": False,
        **own,
    }
    consumer = connect(KafkaConsumer, settings, config)
    try:
        yield consumer
    except kafka_errors.KafkaError as error:
        raise error_from_kafka(error, doing, config) from error
    finally:
        consumer.close()


def silence() -> kafka_errors.KafkaError:
    """Returns the error of a poll that brought nothing although there is more."""
    return kafka_errors.KafkaTimeoutError(f"no answer for {READ_TIMEOUT_MS} ms")
