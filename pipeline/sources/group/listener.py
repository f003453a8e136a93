"""The group's decisions as they reach one consumer, on the client's IO thread."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Protocol

import kafka.errors as kafka_errors
import structlog
from kafka import AsyncConsumerRebalanceListener, OffsetAndMetadata, TopicPartition

Offsets = Mapping[TopicPartition, OffsetAndMetadata]

log = structlog.get_logger(__name__)


class PartitionKeeper(Protocol):
    """Who keeps the partitions, and is told of every change. Called on the client's IO thread: never waits."""

    def assigned(self, added: Iterable[TopicPartition]) -> None:
        """Takes new partitions, possibly none: the group has answered."""

    def revoked(self, gone: Iterable[TopicPartition]) -> Offsets:
        """Ends partitions and returns what may be committed for them."""

    def lost(self, gone: Iterable[TopicPartition]) -> None:
        """Ends partitions that somebody else may own already."""


class Listener(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python ships no types
    """Tells the keeper what the group decides, and commits the last offsets of what is revoked."""

    def __init__(self, keeper: PartitionKeeper, commit: Callable[[Offsets], Awaitable[None]]) -> None:
        """Takes who is told, and how offsets are committed: awaited, within a limit; raises KafkaError."""
        self._keeper = keeper
        self._commit = commit

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Hands new partitions over."""
        self._keeper.assigned(assigned)

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Ends partitions and commits what is durable of them."""
        offsets = self._keeper.revoked(revoked)
        if not offsets:
            return
        try:
            await self._commit(offsets)
        except kafka_errors.KafkaError as error:
            log.warning(
                "The last commit of revoked partitions failed; their new owner repeats some records.",
                error=type(error).__name__,
                num_partitions=len(offsets),
            )

    async def on_partitions_lost(self, lost: set[TopicPartition]) -> None:
        """Ends partitions without a commit."""
        log.warning("Partitions were lost to other members.", num_partitions=len(lost))
        self._keeper.lost(lost)
