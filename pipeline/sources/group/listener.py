"""The group's decisions as they reach one consumer, on the client's IO thread."""

from typing import TYPE_CHECKING

import kafka.errors as kafka_errors
import structlog
from kafka import AsyncConsumerRebalanceListener, TopicPartition

if TYPE_CHECKING:
    from pipeline.sources.group.assignment import Assignment

REVOKE_TIMEOUT_MS = 5_000
"""Longest wait for the last commit of revoked partitions; a broker that is away must not hold up a shutdown."""

log = structlog.get_logger(__name__)


class Listener(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python ships no types
    """Passes the group's decisions on. Awaits its commit, so that heartbeats go on meanwhile."""

    def __init__(self, assignment: "Assignment") -> None:
        self._assignment = assignment

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Lets new partitions wait for the polling thread."""
        self._assignment.assigned(assigned)
        self._assignment._answered = True  # noqa: SLF001 - one class in two halves

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Ends partitions and commits what is durable of them."""
        offsets = self._assignment.revoked(revoked)
        if not offsets:
            return
        consumer = self._assignment._consumer  # noqa: SLF001 - the two are one
        try:
            await consumer._manager.wait_for(consumer.commit_async(offsets), REVOKE_TIMEOUT_MS)  # noqa: SLF001
        except kafka_errors.KafkaError as error:
            log.warning(
                "The last commit of revoked partitions failed; their new owner repeats some records.",
                error=type(error).__name__,
                num_partitions=len(offsets),
            )

    async def on_partitions_lost(self, lost: set[TopicPartition]) -> None:
        """Ends partitions without a commit."""
        log.warning("Partitions were lost to other members.", num_partitions=len(lost))
        self._assignment.lost(lost)
