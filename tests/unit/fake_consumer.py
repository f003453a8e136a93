"""A group with consumers that fail to order, for tests of the source."""

from collections import deque
from collections.abc import Callable, Collection
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from kafka import TopicPartition

from pipeline.config.pipeline import LimitsConfig
from pipeline.config.source import SourceConfig
from pipeline.live.offsets import OffsetTracker
from pipeline.records.decode import Decoders
from pipeline.records.record import Partition, Witness
from pipeline.sources.group.kafka_source import KafkaSource
from pipeline.sources.group.member import GroupMember

PLACE = TopicPartition("t", 0)


class Message(NamedTuple):
    topic: str
    partition: int
    offset: int
    timestamp: int = 1
    key: bytes = b"k"
    value: bytes = b'{"id":"a","text":"x"}'
    headers: tuple[tuple[str, bytes], ...] = ()


def messages(*offsets: int) -> dict[TopicPartition, list[Message]]:
    return {PLACE: [Message("t", 0, offset) for offset in offsets]}


class FakeConsumer:
    """The part of KafkaConsumer that a source uses. Each poll takes the next step of its script."""

    def __init__(self, group: "Group", script: deque[Any]) -> None:
        self._group = group
        self._script = script
        self._coordinator = SimpleNamespace(rejoining=False, request_rejoin=lambda: None, coordinator_id=1)
        self._cluster = SimpleNamespace(topic_id=lambda _: "id-1", request_update=lambda: None)
        self._manager = SimpleNamespace(run=lambda *_: None, wait_for=_awaited)
        self.listener: Any = None
        self.paused: set[TopicPartition] = set()
        self.position = -1
        """Where it was told to read on."""
        self.at = SimpleNamespace(position=SimpleNamespace(offset=0))
        self._subscription = SimpleNamespace(assignment={PLACE: self.at})
        self.closed = False
        self.answers: list[tuple[Callable[..., None], Any]] = []
        self.placing: deque[Exception] = group.placing

    def subscribe(self, topics: list[str], listener: Any) -> None:
        assert topics == ["t"]
        self.listener = listener

    def partitions_for_topic(self, _topic: str) -> set[int]:
        return {0}

    def poll(self, timeout_ms: int) -> dict[TopicPartition, list[Message]]:
        assert timeout_ms == 100
        while self.answers:
            callback, answer = self.answers.pop()
            callback({}, answer)
        step = self._script.popleft() if self._script else {}
        if isinstance(step, Exception):
            raise step
        fetched = (step(self) or {}) if callable(step) else {} if PLACE in self.paused else step
        for records in fetched.values():
            self.at.position.offset = records[-1].offset + 1
        return fetched

    def pause(self, *places: TopicPartition) -> None:
        self.paused |= set(places)

    def resume(self, *places: TopicPartition) -> None:
        self.paused -= set(places)

    def seek(self, _place: TopicPartition, offset: int) -> None:
        self.position = self.at.position.offset = offset

    def committed(self, place: TopicPartition, *, metadata: bool, timeout_ms: int) -> Any:
        assert metadata
        assert timeout_ms
        if self.placing:
            raise self.placing.popleft()
        return self._group.committed.get(place)

    def beginning_offsets(self, places: list[TopicPartition], timeout_ms: int) -> dict[TopicPartition, int]:
        assert timeout_ms
        return dict.fromkeys(places, 0)

    def commit(self, offsets: dict[TopicPartition, Any], timeout_ms: int) -> None:
        assert timeout_ms
        self._group.committed |= offsets

    def commit_async(self, offsets: dict[TopicPartition, Any], callback: Callable[..., None] | None = None) -> None:
        answer = self._group.refuse.popleft() if self._group.refuse else None
        if answer is None:
            self._group.committed |= offsets
        if callback is not None:
            self.answers.append((callback, answer))

    def highwater(self, _place: TopicPartition) -> int | None:
        return 10

    def close(self, *, autocommit: bool, timeout_ms: int) -> None:
        assert not autocommit
        assert timeout_ms
        self.closed = True
        _run(self.listener.on_partitions_revoked({PLACE}))


async def _awaited(_future: object, timeout_ms: int) -> None:
    assert timeout_ms


def _run(coroutine: Any) -> None:
    with pytest.raises(StopIteration):
        coroutine.send(None)


def assign(consumer: FakeConsumer) -> None:
    _run(consumer.listener.on_partitions_assigned({PLACE}))


def revoke(consumer: FakeConsumer) -> None:
    _run(consumer.listener.on_partitions_revoked({PLACE}))


def lose(consumer: FakeConsumer) -> None:
    _run(consumer.listener.on_partitions_lost({PLACE}))


class Group:
    """The broker's side: commits, the scripts of the consumers to come, and a source to drive."""

    def __init__(self, *scripts: list[Any]) -> None:
        self.committed: dict[TopicPartition, Any] = {}
        self.refuse: deque[Exception] = deque()
        self.placing: deque[Exception] = deque()
        self.consumers: list[FakeConsumer] = []
        self._scripts = deque(scripts)
        self.now = 0.0
        self.tracker = OffsetTracker()
        config = SourceConfig.model_validate(
            {
                "bootstrap_servers": ["b:1"],
                "group_id": "g",
                "topics": {"t": {"key": "id", "text": "{text}", "tasks": ["a"]}},
                "dead_letter_topic": "dead",
            }
        )
        self.source = KafkaSource(
            GroupMember(config, make_consumer=self._make_consumer),
            Decoders(config, LimitsConfig()),
            self.tracker,
            confirm=self._confirm,
            clock=lambda: self.now,
        )
        self.asked: list[set[tuple[Partition, Witness]]] = []
        """Witnesses the source has asked for."""
        self.store_says: deque[Exception] = deque()

    def _confirm(self, witnesses: Collection[tuple[Partition, Witness]]) -> None:
        self.asked.append(set(witnesses))
        if self.store_says:
            raise self.store_says.popleft()

    def _make_consumer(self, **settings: Any) -> FakeConsumer:
        assert settings["enable_auto_commit"] is False
        assert settings["auto_offset_reset"] == "none"
        assert settings["isolation_level"] == "read_committed"
        self.consumers.append(FakeConsumer(self, deque(self._scripts.popleft() if self._scripts else [])))
        return self.consumers[-1]

    def poll(self, times: int = 1, *, durable: bool = True) -> list[int]:
        """Offsets delivered by so many polls; all are finished at once, and the store is flushed."""
        offsets = []
        for _ in range(times):
            deliveries = self.source.poll(0.1)
            self.tracker.finish(delivery.receipt for delivery in deliveries)
            if durable:
                self.secure()
            offsets += [delivery.position.offset for delivery in deliveries]
        return offsets

    def secure(self) -> None:
        """What a worker does once the store is flushed."""
        self.tracker.secure(self.tracker.advance())

    def commit(self) -> None:
        self.secure()
        self.source.commit()

    @property
    def offset(self) -> int:
        return int(self.committed[PLACE].offset)
