"""How the group's consumers are set up: every setting that decides whether a record can be lost."""

from typing import Any

from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.base import MemberState

from pipeline.config.source import SourceConfig
from pipeline.sources.client.connection import client_settings

METADATA_MAX_AGE_MS = 30_000
"""How late a new partition, or a recreated topic, may be noticed. Kafka's default is five minutes."""

_MAX_FETCHES_HELD = 2
"""Fetched data the client may hold, in units of max_partition_fetch_bytes."""


def consumer_settings(config: SourceConfig, instance: int) -> dict[str, Any]:
    """Returns the arguments of the KafkaConsumer of ingestor number `instance`."""
    return {
        **client_settings(config, f"ingestor-{instance}"),
        "group_id": config.group_id,
        "group_instance_id": f"{config.group_instance_id}-{instance}" if config.group_instance_id else None,
        "partition_assignment_strategy": (CooperativeStickyAssignor,),
        "session_timeout_ms": config.session_timeout_ms,
        "heartbeat_interval_ms": config.heartbeat_interval_ms,
        "max_poll_interval_ms": config.max_poll_interval_ms,
        "max_poll_records": config.max_poll_records,
        "max_partition_fetch_bytes": config.max_partition_fetch_bytes,
        "fetch_max_bytes": _MAX_FETCHES_HELD * config.max_partition_fetch_bytes,
        "metadata_max_age_ms": METADATA_MAX_AGE_MS,
        # Offsets are committed by us, as explicit watermarks; what was polled is not what is stored.
        "enable_auto_commit": False,
        # Any other word than earliest or latest makes the client raise where an offset is gone,
        # instead of skipping records with a log line.
        "auto_offset_reset": "none",
        "isolation_level": "read_committed",
        "check_crcs": True,
        "metrics_enabled": False,
    }


def is_fenced(consumer: Any) -> bool:
    """Whether another process has taken this member's group_instance_id.

    The client is told so by a heartbeat; it then stops its heartbeats, says nothing, and reads on until
    a commit fails, which without new records is never. In a stable group only a join stops them, too.
    """
    coordinator = consumer._coordinator  # noqa: SLF001 - there is no public way to ask
    with coordinator._lock:  # noqa: SLF001 - a join that ends meanwhile would look the same
        stopped = not coordinator._heartbeat_enabled and not coordinator.rejoining  # noqa: SLF001
        return stopped and coordinator.state is MemberState.STABLE
