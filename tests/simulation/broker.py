"""A Kafka group and its clients on virtual time, as far as `KafkaSource` can see them."""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import kafka.errors as kafka_errors
from kafka import TopicPartition

from tests.simulation.chaos import Chaos

TOPIC = "tickets"
SESSION_S = 6.0
SLOWNESS = 3
"""Polls take longer than asked for: fewer of them make a run, and a busy machine does the same."""


class Message(NamedTuple):
    """What the client hands out."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Broker:
    """Logs, committed offsets, and who may read what. A partition has at most one owner.

    `on_commit` judges every offset the group accepts.
    """

    def __init__(self, chaos: Chaos, num_partitions: int, on_commit: Callable[[TopicPartition, int], None]) -> None:
        self.chaos = chaos
        self.logs: dict[TopicPartition, list[Message]] = {
            TopicPartition(TOPIC, number): [] for number in range(num_partitions)
        }
        self.committed: dict[TopicPartition, Any] = {}
        self.members: list[SimConsumer] = []
        self.owners: dict[TopicPartition, SimConsumer] = {}
        self.targets: dict[TopicPartition, SimConsumer] = {}
        self._on_commit = on_commit

    def append(self, message: Message) -> None:
        self.logs[TopicPartition(TOPIC, message.partition)].append(message)

    def rebalance(self) -> None:
        """Divides the partitions anew; owners let go when they next poll, or when their session ends."""
        members = list(self.members)
        self.chaos.random.shuffle(members)
        self.targets = {tp: members[tp.partition % len(members)] for tp in self.logs} if members else {}

    def join(self, member: "SimConsumer") -> None:
        member.seen_s = self.chaos.now
        self.members.append(member)
        self.rebalance()

    def drop(self, member: "SimConsumer") -> None:
        if member in self.members:
            self.members.remove(member)
            self.owners = {tp: owner for tp, owner in self.owners.items() if owner is not member}
            self.rebalance()

    def expire(self) -> None:
        for member in list(self.members):
            if self.chaos.now - member.seen_s > SESSION_S:
                self.chaos.note(f"session of {member.name} ends")
                self.drop(member)

    def accept(self, member: "SimConsumer", offsets: Mapping[TopicPartition, Any]) -> Exception | None:
        """Commits, or returns why not."""
        self.expire()
        data = {tp: offset for tp, offset in offsets.items() if tp in self.logs}
        refusal: Exception | None = None
        if member not in self.members:
            refusal = kafka_errors.UnknownMemberIdError()
        elif any(self.owners.get(tp) is not member for tp in data):
            refusal = kafka_errors.IllegalGenerationError()
        if refusal is not None:
            return refusal
        for tp, found in sorted(data.items(), key=lambda item: item[0]):
            self.chaos.note(f"{member.name} commits {tp.partition}:{found.offset}")
            self._on_commit(tp, found.offset)
        self.committed |= offsets
        return None

    def drained(self) -> bool:
        """Whether the group has committed the end of every partition."""
        return all(
            not log or (tp in self.committed and self.committed[tp].offset > log[-1].offset)
            for tp, log in self.logs.items()
        )


class _Assignment:
    """A consumer's positions as its client keeps them."""

    def __init__(self, positions: dict[TopicPartition, int]) -> None:
        self._positions = positions

    def get(self, place: TopicPartition) -> Any:
        return SimpleNamespace(position=SimpleNamespace(offset=self._positions.get(place, 0)))


class SimConsumer:
    """The part of KafkaConsumer that a source uses."""

    def __init__(self, broker: Broker, name: str) -> None:
        self.name = name
        self.seen_s = 0.0
        self._broker = broker
        self._chaos = broker.chaos
        self._coordinator = SimpleNamespace(rejoining=False, request_rejoin=lambda: None, coordinator_id=1)
        self._cluster = SimpleNamespace(topic_id=lambda _: "id-1", request_update=lambda: None)
        self._manager = SimpleNamespace(run=lambda *_: None, wait_for=_outcome)
        self._listener: Any = None
        self._assigned: set[TopicPartition] = set()
        self._paused: set[TopicPartition] = set()
        self._positions: dict[TopicPartition, int] = {}
        self._subscription = SimpleNamespace(assignment=_Assignment(self._positions))
        self._answers: list[tuple[Callable[..., None], Exception | None]] = []

    def subscribe(self, topics: list[str], listener: Any) -> None:
        assert topics == [TOPIC]
        self._listener = listener
        self._broker.join(self)

    def partitions_for_topic(self, topic: str) -> set[int]:
        return {tp.partition for tp in self._broker.logs} if topic == TOPIC else {0}

    def poll(self, timeout_ms: int) -> dict[TopicPartition, list[Message]]:
        self._chaos.pause(timeout_ms / 1000 * SLOWNESS)
        while self._answers and self._chaos.flip(0.8):
            callback, answer = self._answers.pop(0)
            callback({}, answer)
        if self._chaos.flip_fault("kafka", 0.02):
            raise kafka_errors.KafkaConnectionError("gone")
        self._heartbeat()
        fetched = {}
        for tp in sorted(self._assigned - self._paused):
            log, position = self._broker.logs[tp], self._positions[tp]
            start = bisect_left(log, position, key=lambda message: message.offset)
            records = log[start : start + self._chaos.random.randint(1, 6)]
            if records:
                fetched[tp] = records
                self._positions[tp] = records[-1].offset + 1
        return fetched

    def _heartbeat(self) -> None:
        self._broker.expire()
        if self not in self._broker.members:
            # A member that was thrown out may go on reading for a while before it hears of it.
            if not self._chaos.flip_fault("late notice", 0.5):
                gone, self._assigned = self._assigned, set()
                self._chaos.note(f"{self.name} loses {_numbers(gone)}")
                _run(self._listener.on_partitions_lost(gone))
                self._broker.join(self)
            return
        self.seen_s = self._chaos.now
        revoked = {tp for tp in self._assigned if self._broker.targets.get(tp) is not self}
        if revoked:
            self._chaos.note(f"{self.name} gives back {_numbers(revoked)}")
            _run(self._listener.on_partitions_revoked(revoked))
            self._release(revoked)
        free = {tp for tp, target in self._broker.targets.items() if target is self and tp not in self._broker.owners}
        self._broker.owners |= dict.fromkeys(free, self)
        self._assigned |= free
        if free:
            self._chaos.note(f"{self.name} is given {_numbers(free)}")
        _run(self._listener.on_partitions_assigned(free))

    def _release(self, partitions: set[TopicPartition]) -> None:
        self._assigned -= partitions
        for tp in partitions:
            if self._broker.owners.get(tp) is self:
                del self._broker.owners[tp]

    def pause(self, *places: TopicPartition) -> None:
        self._paused |= set(places)

    def resume(self, *places: TopicPartition) -> None:
        self._paused -= set(places)

    def seek(self, place: TopicPartition, offset: int) -> None:
        self._positions[place] = offset

    def committed(self, place: TopicPartition, **_settings: Any) -> Any:
        self._chaos.pause(0.05)
        if self._chaos.flip_fault("kafka", 0.03):
            raise kafka_errors.KafkaTimeoutError("slow")
        return self._broker.committed.get(place)

    def beginning_offsets(self, places: list[TopicPartition], **_settings: Any) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, 0)

    def commit(self, offsets: dict[TopicPartition, Any], **_settings: Any) -> None:
        refusal = self.commit_async(offsets)
        if refusal is not None:
            raise refusal

    def commit_async(
        self, offsets: dict[TopicPartition, Any], callback: Callable[..., None] | None = None
    ) -> Exception | None:
        self._chaos.pause(0.1)
        if self._chaos.flip_fault("kafka", 0.05):
            answer: Exception | None = kafka_errors.CoordinatorNotAvailableError()
        else:
            answer = self._broker.accept(self, offsets)
            if answer is None and self._chaos.flip_fault("kafka", 0.05):
                answer = kafka_errors.KafkaTimeoutError("the answer was lost")
        if callback is not None:
            self._answers.append((callback, answer))
        return answer

    def highwater(self, place: TopicPartition) -> int | None:
        log = self._broker.logs[place]
        return log[-1].offset + 1 if log else 0

    def close(self, **_settings: Any) -> None:
        gone = set(self._assigned)
        if self in self._broker.members:
            _run(self._listener.on_partitions_revoked(gone))
        else:
            _run(self._listener.on_partitions_lost(gone))
        self._release(gone)
        self._broker.drop(self)


def _numbers(partitions: set[TopicPartition]) -> list[int]:
    return sorted(tp.partition for tp in partitions)


async def _outcome(answer: Exception | None, _timeout_ms: int) -> None:
    if answer is not None:
        raise answer


def _run(coroutine: Any) -> None:
    """Runs a listener's coroutine: nothing in it ever waits for the event loop."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("the listener waits for something that the simulation does not know")
