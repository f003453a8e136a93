"""Re-reads records: moves the consumer group's offsets back, for a new task or a lost collection."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.context import Context


@dataclass(frozen=True, slots=True)
class RewoundPartition:
    """One partition's offset before and after."""

    topic: str
    partition: int
    committed: int
    target: int
    """At most `committed`."""
    records: int
    """Records to re-read, at most."""


@dataclass(frozen=True, slots=True)
class RewindReport:
    """What a rewind does, or would do."""

    partitions: Sequence[RewoundPartition]
    """Those of which the group has committed an offset."""
    embeddings: int
    """At most so many are computed again: one per record and task."""
    members: int
    """Members of the group; they must be stopped before offsets are moved."""
    executed: bool

    @property
    def records(self) -> int:
        """Records to re-read, at most."""
        return sum(partition.records for partition in self.partitions)


def rewind(context: Context, since_ms: int | None, topic: str | None = None, *, execute: bool = False) -> RewindReport:
    """Moves the committed offsets of the stopped group back to a time; never forward.

    Args:
        context: The pipeline.
        since_ms: Unix milliseconds of the earliest record to re-read; None for everything that is retained.
        topic: The source topic; None for all.
        execute: Moves the offsets; otherwise only reports what would be moved.

    Raises:
        ConfigError: a topic does not exist, or the group has members.
        TransientError, EnvironmentFault: see `pipeline.errors`.
    """
    from pipeline.sources.group import rewinding  # Kafka

    source = context.config.source
    topics = list(source.topics) if topic is None else [context.config.topic_named(topic)]
    moves = rewinding.plan_rewind(source, topics, since_ms)
    members = rewinding.members_of(source)
    executed = execute and bool(moves)
    if executed:
        rewinding.rewind(source, moves)
    return RewindReport(
        [
            RewoundPartition(place.topic, place.number, move.committed, move.target, move.num_offsets)
            for place, move in moves.items()
        ],
        sum(move.num_offsets * len(source.topics[place.topic].tasks) for place, move in moves.items()),
        members,
        executed,
    )
