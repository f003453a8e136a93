"""One member of the consumer group: every setting that decides whether a record can be lost."""

import hashlib
from collections.abc import Callable
from typing import Any

from kafka import KafkaConsumer
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

from pipeline.config.source import SourceConfig
from pipeline.sources.client.connection import client_settings, connect

METADATA_MAX_AGE_MS = 30_000
"""How late a new partition, or a recreated topic, may be noticed. Kafka's default is five minutes."""

_MAX_FETCHES_HELD = 2
"""Fetched data the client may hold, in units of max_partition_fetch_bytes."""


class GroupMember:
    """One ingestor in the configured group. `name` tells it from the others, see `member_name`."""

    def __init__(
        self, config: SourceConfig, name: str = "0", make_consumer: Callable[..., Any] = KafkaConsumer
    ) -> None:
        """Prepares the settings of its consumers. Raises ConfigError for unusable certificate files."""
        self.config = config
        self._make_consumer = make_consumer
        self._settings = _consumer_settings(config, name)

    def connect(self) -> Any:
        """Returns a new consumer, not subscribed yet. Raises TransientError, EnvironmentFault."""
        return connect(self._make_consumer, self._settings, self.config)


def member_name(rank: int | None, replica: str, cluster: str | None) -> str:
    """Returns what tells an ingestor from every other one of its group, and stays the same when it is restarted.

    Args:
        rank: Its number in the app; without one its name is unique and lasts only as long as the process.
        replica: A unique name of the process.
        cluster: The Ray cluster's name, where it has one (KubeRay names it). During a rolling upgrade the old and
            the new cluster run beside each other with equal ranks, and must not fence each other.
    """
    number = f"replica-{hashlib.sha256(replica.encode()).hexdigest()[:12]}" if rank is None else str(rank)
    return f"{hashlib.sha256(cluster.encode()).hexdigest()[:8]}-{number}" if cluster else number


def _consumer_settings(config: SourceConfig, name: str) -> dict[str, Any]:
    static_id = config.group_instance_id
    return {
        **client_settings(config, f"ingestor-{name}"),
        "group_id": config.group_id,
        "group_instance_id": f"{static_id}-{name}" if static_id else None,
        "partition_assignment_strategy": (CooperativeStickyAssignor,),
        "session_timeout_ms": config.session_timeout_ms,
        "heartbeat_interval_ms": config.heartbeat_interval_ms,
        "max_poll_interval_ms": config.max_poll_interval_ms,
        "max_poll_records": config.max_poll_records,
        "max_partition_fetch_bytes": config.max_partition_fetch_bytes,
        "fetch_max_bytes": _MAX_FETCHES_HELD * config.max_partition_fetch_bytes,
        "metadata_max_age_ms": METADATA_MAX_AGE_MS,
        # Offsets are committed here, as explicit watermarks; what was polled is not what is stored.
        "enable_auto_commit": False,
        # Any word other than earliest and latest makes the client raise where an offset is gone,
        # instead of skipping records with a log line.
        "auto_offset_reset": "none",
        "isolation_level": "read_committed",
        "check_crcs": True,
        "metrics_enabled": False,
    }
