"""Moves the committed offsets of a stopped group back, to re-read records. Never forward: that would lose some."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import kafka.errors as kafka_errors
from kafka import OffsetAndMetadata, OffsetSpec, TopicPartition

from pipeline.config.source import SourceConfig
from pipeline.errors import ConfigError
from pipeline.records.record import Partition
from pipeline.sources.client.admin import group_offsets, open_admin, partition_offsets, partitions_of
from pipeline.sources.group.positions import without_witness

_STOPPED = frozenset({"Empty", "Dead"})


@dataclass(frozen=True, slots=True)
class Move:
    """One partition's offset before and after."""

    committed: int
    target: int
    """At most `committed`."""
    metadata: str
    """What the group wrote beside the offset (see `pipeline.sources.group.positions`) stays, except the witness: the
    records from here on fill the store again."""

    @property
    def num_offsets(self) -> int:
        """Offsets to re-read: an upper bound of the records, which are fewer in compacted or transactional topics."""
        return self.committed - self.target


def plan_rewind(config: SourceConfig, topics: Sequence[str], since_ms: int | None) -> dict[Partition, Move]:
    """Returns the move of every partition of the topics that the group has committed an offset of.

    Args:
        config: Where the group is.
        topics: Source topics to move.
        since_ms: Unix milliseconds of the earliest record to read again (Kafka's record timestamps); None for
            the beginning of what is kept.

    Raises:
        ConfigError: a topic does not exist.
        TransientError, EnvironmentFault: see `pipeline.errors`.
    """
    with open_admin(config, "looking up offsets") as admin:
        partitions = partitions_of(admin, topics)
        committed = group_offsets(admin, config.group_id, partitions)
        begins = partition_offsets(admin, partitions, OffsetSpec.EARLIEST)
        found = begins if since_ms is None else partition_offsets(admin, partitions, since_ms)
    moves = {}
    for place in partitions:
        known = committed.get(place)
        if known is None or known.offset < 0:
            continue
        # Kafka answers -1 where every record is older: there is nothing to re-read.
        target = known.offset if found[place] < 0 else max(min(found[place], known.offset), begins[place])
        moves[Partition(*place)] = Move(known.offset, min(target, known.offset), without_witness(known.metadata or ""))
    return moves


def rewind(config: SourceConfig, moves: Mapping[Partition, Move]) -> None:
    """Commits the targets of a plan, also of partitions that stay where they are: they lose their witness.

    Raises:
        ConfigError: the group has members; stop them first.
        TransientError, EnvironmentFault: see `pipeline.errors`.
    """
    offsets = {
        TopicPartition(partition.topic, partition.number): OffsetAndMetadata(move.target, move.metadata, -1)
        for partition, move in moves.items()
    }
    with open_admin(config, f"moving the offsets of group {config.group_id!r}") as admin:
        if members := _members(admin, config.group_id):
            raise ConfigError(_explain_running(config.group_id, f"{members} members"))
        # The brokers refuse it too, should a member have joined in between.
        for place, error in admin.alter_group_offsets(config.group_id, offsets).items():
            if error is kafka_errors.UnknownMemberIdError:
                raise ConfigError(_explain_running(config.group_id, "members"))
            if error is not kafka_errors.NoError:
                raise error(f"{place.topic}[{place.partition}]")


def members_of(config: SourceConfig) -> int:
    """Returns the members of the group; 0 when it is stopped. Raises TransientError, EnvironmentFault."""
    with open_admin(config, f"looking at group {config.group_id!r}") as admin:
        return _members(admin, config.group_id)


def _members(admin: Any, group: str) -> int:
    described = admin.describe_groups([group])[group]
    return 0 if described["group_state"] in _STOPPED else max(len(described["members"]), 1)


def _explain_running(group: str, members: str) -> str:
    return (
        f"source.group_id: group {group!r} has {members}; stop the pipeline first. A killed member counts until its "
        "session_timeout_ms is over"
    )
