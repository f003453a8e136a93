"""What a consumer's rebalance listener tells the keeper of its partitions, and what it commits."""

import asyncio
from collections.abc import Iterable
from typing import Any

import kafka.errors as kafka_errors
from kafka import TopicPartition

from pipeline.sources.group.listener import Listener, Offsets

PLACES = {TopicPartition("t", 0), TopicPartition("t", 1)}


class Keeper:
    def __init__(self, offsets: Offsets) -> None:
        self.told: list[tuple[str, set[TopicPartition]]] = []
        self._offsets = offsets

    def assigned(self, added: Iterable[TopicPartition]) -> None:
        self.told.append(("assigned", set(added)))

    def revoked(self, gone: Iterable[TopicPartition]) -> Offsets:
        self.told.append(("revoked", set(gone)))
        return self._offsets

    def lost(self, gone: Iterable[TopicPartition]) -> None:
        self.told.append(("lost", set(gone)))


class Commits:
    def __init__(self, error: Exception | None = None) -> None:
        self.offsets: list[Any] = []
        self._error = error

    async def __call__(self, offsets: Offsets) -> None:
        self.offsets.append(offsets)
        if self._error:
            raise self._error


def test_what_is_revoked_is_committed_and_what_is_lost_is_not() -> None:
    keeper, commits = Keeper({TopicPartition("t", 0): "7"}), Commits()
    listener = Listener(keeper, commits)
    asyncio.run(listener.on_partitions_assigned(PLACES))
    asyncio.run(listener.on_partitions_lost(PLACES))
    assert commits.offsets == []
    asyncio.run(listener.on_partitions_revoked(PLACES))
    assert commits.offsets == [{TopicPartition("t", 0): "7"}]
    assert keeper.told == [("assigned", PLACES), ("lost", PLACES), ("revoked", PLACES)]


def test_nothing_is_asked_of_the_broker_where_nothing_is_durable() -> None:
    commits = Commits()
    asyncio.run(Listener(Keeper({}), commits).on_partitions_revoked(PLACES))
    assert commits.offsets == []


def test_a_last_commit_that_fails_does_not_hold_up_the_rebalance() -> None:
    keeper, commits = Keeper({TopicPartition("t", 0): "7"}), Commits(kafka_errors.KafkaTimeoutError("slow"))
    asyncio.run(Listener(keeper, commits).on_partitions_revoked(PLACES))
    assert len(commits.offsets) == 1
