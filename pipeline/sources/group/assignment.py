"""Keeps the partitions of one consumer in step with the offset tracker: assigned, placed, committed, revoked."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import kafka.errors as kafka_errors
import structlog
from kafka import OffsetAndMetadata, TopicPartition

from pipeline import failpoints
from pipeline.clock import Clock
from pipeline.config.source import SourceConfig
from pipeline.errors import EnvironmentFault, RefractError
from pipeline.live.offsets import OffsetTracker, Watermark
from pipeline.live.witness import Confirm
from pipeline.records.record import Partition, Receipt
from pipeline.sources.client.errors import translate
from pipeline.sources.group.listener import Listener
from pipeline.sources.group.memory import TopicMemory
from pipeline.sources.group.positions import Committed, Mark, Start, Topic, begin, load_witness, resume
from pipeline.sources.group.settings import is_fenced

PLACE_TIMEOUT_MS = 5_000
"""Longest wait for one answer about a start position; a later poll asks again."""

JOIN_TIMEOUT_S = 0.5

COORDINATOR_GRACE_S = 5.0
"""Longest absence of the group's coordinator that is taken for a move to another broker, not for an outage."""

_NOT_OURS = (
    kafka_errors.CommitFailedError,
    kafka_errors.RebalanceInProgressError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.UnknownMemberIdError,
)
"""Commits refused because the group has moved on. Nothing is lost: the new owner reads these records again."""

log = structlog.get_logger(__name__)


class Assignment:
    """The partitions one consumer holds.

    A partition is *waiting* from its assignment until its start position is decided on the polling
    thread, and *placed* from then on. While it waits it is paused and stands at offset 0, so that the
    client neither fetches it nor decides on a position itself. Only placed partitions are delivered,
    known to the tracker and committed: records that the client fetched before a partition went and
    came back can never stand before the ones that are read again.
    """

    def __init__(
        self,
        consumer: Any,
        config: SourceConfig,
        tracker: OffsetTracker,
        confirm: Confirm,
        *,
        paused: bool,
        clock: Clock,
    ) -> None:
        self.listener = Listener(self)
        self.fault: RefractError | None = None
        """Set from the IO thread by a commit's answer, or by the store: the next poll raises it, and nothing more is
        committed."""
        self._consumer = consumer
        self._config = config
        self._tracker = tracker
        self._confirm = confirm
        self._paused = paused
        self._lock = threading.RLock()
        self._answered = False
        self._waiting: set[TopicPartition] = set()
        self._placed: dict[TopicPartition, Mark] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._commit_under_way: object | None = None
        self._clock = clock
        self._coordinator_seen_s = clock()
        self._memory = TopicMemory(consumer, config, clock)
        self._remembered: Mapping[str, Mark] = {}

    @property
    def joined(self) -> bool:
        """Whether the group has said which partitions this member holds, possibly none, and all of them are read.

        False, too, while the group's coordinator is away: the client itself then delivers nothing, and says nothing.
        """
        return self._answered and not self._waiting and self._coordinator_present()

    def _coordinator_present(self) -> bool:
        # The attribute and not `coordinator()`, which changes the client's state from a foreign thread.
        if self._consumer._coordinator.coordinator_id is not None:  # noqa: SLF001 - there is no public way to ask
            self._coordinator_seen_s = self._clock()
        return self._clock() - self._coordinator_seen_s < COORDINATOR_GRACE_S

    # -- polling thread

    def deliver(self, topic_partition: TopicPartition, records: Sequence[Any]) -> list[Receipt]:
        """Registers fetched records and returns their receipts; an empty list when the partition is not placed."""
        with self._lock:
            if topic_partition not in self._placed:
                return []
            partition = Partition(*topic_partition)
            receipts = [self._tracker.add(partition, record.offset) for record in records]
            self._positions[topic_partition] = records[-1].offset + 1
            return receipts

    def set_paused(self, *, paused: bool) -> None:
        """Pauses or resumes every placed partition; those that wait are started in this state."""
        with self._lock:
            if paused == self._paused:
                return
            self._paused = paused
            change = self._consumer.pause if paused else self._consumer.resume
            for topic_partition in self._placed:
                with suppress(KeyError):  # gone this moment; its listener call follows
                    change(topic_partition)

    def keep_joining(self, timeout_s: float) -> float:
        """Makes the next poll go on with a join that the last one left under way, and returns its time-out.

        kafka-python 3.0.12 forgets such a join when changed partitions had caused it: the answer is
        never taken up, heartbeats stay off, and `poll` returns nothing for ever. And an answer that
        comes between two polls is thrown away and asked for again, so these polls are not short.
        """
        coordinator = self._consumer._coordinator  # noqa: SLF001 - there is no public way to ask
        if not coordinator.rejoining:
            return timeout_s
        coordinator.request_rejoin()
        return max(timeout_s, JOIN_TIMEOUT_S)

    def refresh_metadata(self) -> None:
        """Returns when the client has heard of the topics' present ids and partitions. Raises KafkaError.

        `KafkaConsumer.topics()` does the same in public, but without a limit: it waits for ever when
        the last broker goes in between.
        """
        manager = self._consumer._manager  # noqa: SLF001 - see above
        manager.run(manager.wait_for, self._consumer._cluster.request_update(), PLACE_TIMEOUT_MS)  # noqa: SLF001

    def place(self) -> None:
        """Decides where the waiting partitions start, commits first starts, and lets them be read.

        What cannot be answered now stays waiting for the next call.

        Raises:
            EnvironmentFault: an offset no longer means the same log, or a commit was refused for good.
            KafkaError: the client's errors, retriable or not.
        """
        if self.fault is not None:
            raise self.fault
        if self._config.group_instance_id and is_fenced(self._consumer):
            raise kafka_errors.FencedInstanceIdError
        with self._lock:
            waiting = sorted(self._waiting)
        if not waiting:
            return
        self.refresh_metadata()  # without it a recreated topic, or one with more partitions, looks the same
        self._remembered = self._memory.load()
        siblings: dict[str, list[Committed]] = {}
        starts = {topic_partition: self._start(topic_partition, siblings) for topic_partition in waiting}
        self._confirm_held(starts)
        offsets = {topic_partition: self._offset(topic_partition, start) for topic_partition, start in starts.items()}
        first = {
            topic_partition: OffsetAndMetadata(offsets[topic_partition], start.mark.dump(), -1)
            for topic_partition, start in starts.items()
            if start.is_first
        }
        if first:
            # Reading from the end before this is committed would lose what a crash leaves behind.
            try:
                self._consumer.commit(first, timeout_ms=PLACE_TIMEOUT_MS)
            except _NOT_OURS:
                return
        self._memory.save({topic_partition.topic: start.mark for topic_partition, start in starts.items()})
        with self._lock:
            for topic_partition, start in starts.items():
                if topic_partition in self._waiting:
                    self._let_read(topic_partition, offsets[topic_partition], start)

    def commit(self) -> None:
        """Sends the durable watermarks that moved, unless an earlier commit is still without an answer."""
        with self._lock:
            self._check_topic_ids()
            self._memory.refresh()
            if self._commit_under_way is not None:
                return
            moved = self._tracker.durable()
            offsets = self._with_marks(moved, self._placed)
            if not offsets:
                return
            token = self._commit_under_way = object()

        def answered(_offsets: Any, answer: Any) -> None:
            self._commit_answered(token, moved, answer)

        self._consumer.commit_async(offsets, callback=answered)

    def lag(self) -> Mapping[Partition, int]:
        """Returns end minus position per placed partition, where a fetch has told the end."""
        lag = {}
        with self._lock:
            for topic_partition, position in self._positions.items():
                with suppress(KeyError, kafka_errors.IllegalStateError):
                    end = self._consumer.highwater(topic_partition)
                    if end is not None:
                        lag[Partition(*topic_partition)] = max(0, end - position)
        return lag

    def end(self) -> None:
        """Forgets everything after the consumer was closed."""
        self._forget(list(self._placed) + list(self._waiting))
        self._tracker.lose(self._tracker.held())

    def _confirm_held(self, starts: Mapping[TopicPartition, Start]) -> None:
        """Asks the store for what the committed offsets of these starts stand for."""
        witnesses = {(Partition(*place), start.witness) for place, start in starts.items() if start.witness is not None}
        try:
            if witnesses:
                self._confirm(witnesses)
        except EnvironmentFault as fault:
            self.fault = fault
            raise

    # -- the client's IO thread

    def assigned(self, added: Iterable[TopicPartition]) -> None:
        """Lets new partitions wait."""
        with self._lock:
            for topic_partition in added:
                self._consumer.pause(topic_partition)
                self._consumer.seek(topic_partition, 0)
                self._waiting.add(topic_partition)

    def revoked(self, gone: Iterable[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        """Ends partitions and returns what may be committed for them, with witnesses for the next owner to ask for."""
        if self.fault is not None:
            self.lost(gone)
            return {}
        with self._lock:
            marks = dict(self._placed)
            return self._with_marks(self._tracker.revoke(self._forget(gone)), marks)

    def lost(self, gone: Iterable[TopicPartition]) -> None:
        """Ends partitions that somebody else may own already: nothing is committed."""
        with self._lock:
            self._tracker.lose(self._forget(gone))

    # -- both

    def _forget(self, gone: Iterable[TopicPartition]) -> list[Partition]:
        ended = []
        for topic_partition in gone:
            self._waiting.discard(topic_partition)
            self._positions.pop(topic_partition, None)
            if self._placed.pop(topic_partition, None) is not None:
                ended.append(Partition(*topic_partition))
        self._commit_under_way = None
        return ended

    @staticmethod
    def _with_marks(
        watermarks: Mapping[Partition, Watermark], marks: Mapping[TopicPartition, Mark]
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        return {
            TopicPartition(*place): OffsetAndMetadata(
                watermark.offset, marks[TopicPartition(*place)].dump(watermark.witness), -1
            )
            for place, watermark in watermarks.items()
            if TopicPartition(*place) in marks
        }

    def _commit_answered(self, token: object, watermarks: Mapping[Partition, Watermark], answer: Any) -> None:
        with self._lock:
            if self._commit_under_way is not token:
                return  # partitions changed meanwhile; what was committed is repeated or no longer ours
            self._commit_under_way = None
            if not isinstance(answer, Exception):
                self._tracker.committed({place: watermark.offset for place, watermark in watermarks.items()})
                failpoints.reach("after_commit")
                return
        if isinstance(answer, _NOT_OURS):
            log.info("A commit came too late for its generation and is dropped.", error=type(answer).__name__)
            return
        meaning = translate(answer, "committing offsets", self._config)
        if isinstance(meaning, EnvironmentFault):
            self.fault = meaning
        else:
            log.warning("A commit failed and will be repeated.", error=type(answer).__name__)

    def _check_topic_ids(self) -> None:
        for topic_partition, mark in self._placed.items():
            if mark.is_of_another(self._topic_id(topic_partition.topic)):
                raise EnvironmentFault(
                    f"topic {topic_partition.topic!r} was deleted and created again while it was being read; "
                    f"start again to see what its offsets mean now"
                )

    def _topic_id(self, topic: str) -> str:
        # The consumer's own view of the cluster; only the admin client, over connections of its own, has it in public.
        topic_id = self._consumer._cluster.topic_id(topic)  # noqa: SLF001
        return str(topic_id) if topic_id is not None else ""

    def _start(self, topic_partition: TopicPartition, siblings: dict[str, list[Committed]]) -> Start:
        topic, number = topic_partition
        partition = Partition(topic, number)
        config = self._config.topics[topic]
        numbers = self._consumer.partitions_for_topic(topic) | {number}
        facts = Topic(self._topic_id(topic), len(numbers))
        committed = self._committed(topic_partition)
        if committed is not None:
            return resume(partition, config, committed, facts)
        if topic not in siblings:
            answers = [self._committed(TopicPartition(topic, other)) for other in sorted(numbers)]
            siblings[topic] = [answer for answer in answers if answer is not None]
        return begin(partition, config, self._config.start_from, siblings[topic], self._remembered.get(topic), facts)

    def _committed(self, topic_partition: TopicPartition) -> Committed | None:
        found = self._consumer.committed(topic_partition, metadata=True, timeout_ms=PLACE_TIMEOUT_MS)
        return found and Committed(found.offset, Mark.load(found.metadata), load_witness(found.metadata))

    def _offset(self, topic_partition: TopicPartition, start: Start) -> int:
        if start.offset is not None:
            return start.offset
        ask = self._consumer.end_offsets if start.at_end else self._consumer.beginning_offsets
        return int(ask([topic_partition], timeout_ms=PLACE_TIMEOUT_MS)[topic_partition])

    def _let_read(self, topic_partition: TopicPartition, offset: int, start: Start) -> None:
        self._consumer.seek(topic_partition, offset)
        if not self._paused:
            self._consumer.resume(topic_partition)
        self._waiting.discard(topic_partition)
        self._placed[topic_partition] = start.mark
        self._positions[topic_partition] = offset
        self._tracker.assign(Partition(*topic_partition), offset, start.witness)
        log.info(
            "A partition is read.", topic=topic_partition.topic, partition=topic_partition.partition, offset=offset
        )
