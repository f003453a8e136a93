"""What kafka-python's consumer knows but has no public way to say. kafka-python 3.0.

Every use of a private part of a consumer is in this module; tests/unit/test_private_parts.py names each of them and
fails when an installed version lacks one.
"""

from collections.abc import Mapping
from typing import Any

from kafka import OffsetAndMetadata, TopicPartition
from kafka.coordinator.base import MemberState

JOIN_TIMEOUT_S = 0.5


def refresh_metadata(consumer: Any, timeout_ms: int) -> None:
    """Returns when the client has heard of the topics' present ids and partitions. Raises KafkaError.

    `KafkaConsumer.topics()` does the same in public, but without a limit: it waits for ever when
    the last broker goes in between.
    """
    manager = consumer._manager
    manager.run(manager.wait_for, consumer._cluster.request_update(), timeout_ms)


def topic_id(consumer: Any, topic: str) -> str:
    """Returns the topic's id as this consumer last heard it; empty where the broker is too old to tell.

    Only the admin client has it in public, over connections of its own.
    """
    found = consumer._cluster.topic_id(topic)
    return "" if found is None else str(found)


def fetched_up_to(consumer: Any, place: TopicPartition) -> int:
    """Returns the offset that the client asks for next, past whatever it does not deliver; 0 where it has none.

    `KafkaConsumer.position()` says the same in public, but may ask the brokers first.
    """
    state = consumer._subscription.assignment.get(place)
    return 0 if state is None or state.position is None else int(state.position.offset)


def has_coordinator(consumer: Any) -> bool:
    """Whether the consumer knows its group's coordinator.

    Reads the attribute: the method `coordinator()` changes the client's state, from a foreign thread here.
    """
    return consumer._coordinator.coordinator_id is not None


def keep_joining(consumer: Any, timeout_s: float) -> float:
    """Makes the next poll continue a join that the last one left under way, and returns the timeout for that poll.

    kafka-python 3.0.12 forgets such a join when changed partitions had caused it: the answer is
    never taken up, heartbeats stay off, and `poll` returns nothing for ever. An answer that comes
    between two polls is thrown away and asked for again, so these polls are not short.
    """
    coordinator = consumer._coordinator
    if not coordinator.rejoining:
        return timeout_s
    coordinator.request_rejoin()
    return max(timeout_s, JOIN_TIMEOUT_S)


def is_fenced(consumer: Any) -> bool:
    """Whether another process has taken this member's group_instance_id.

    A heartbeat tells the client so; it then stops its heartbeats, says nothing, and reads on until
    a commit fails, which without new records never happens. In a stable group only a join stops them, too.
    """
    coordinator = consumer._coordinator
    with coordinator._lock:
        stopped = not coordinator._heartbeat_enabled and not coordinator.rejoining
        return stopped and coordinator.state is MemberState.STABLE


async def commit_on_io_thread(
    consumer: Any, offsets: Mapping[TopicPartition, OffsetAndMetadata], timeout_ms: int
) -> None:
    """Commits from a coroutine of the client's own IO thread, where its blocking `commit` would wait for itself.

    Heartbeats continue meanwhile. Raises KafkaError.
    """
    await consumer._manager.wait_for(consumer.commit_async(offsets), timeout_ms)
