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
from pipeline.sources.client.broker_errors import GROUP_MOVED_ON, error_from_kafka
from pipeline.sources.group.consumer_internals import fetched_up_to, has_coordinator, is_fenced, topic_id
from pipeline.sources.group.memory import TopicMemory
from pipeline.sources.group.positions import Mark, Start
from pipeline.sources.group.starts import StartFinder

COORDINATOR_GRACE_S = 5.0
"""Longest absence of the group's coordinator that is taken for a move to another broker, not for an outage."""

log = structlog.get_logger(__name__)


class HeldPartitions:
    """The partitions one consumer holds. Implements `pipeline.sources.group.listener.PartitionKeeper`.

    A partition is *waiting* from its assignment until its start position is decided on the polling
    thread, and *placed* from then on. While it waits it is paused and stands at offset 0, so that the
    client neither fetches it nor decides on a position itself. Only placed partitions are delivered,
    known to the tracker and committed: records that the client fetched before a partition went and
    came back can never stand before the ones that are read again.
    """

    def __init__(
        self, consumer: Any, config: SourceConfig, tracker: OffsetTracker, confirm: Confirm, clock: Clock
    ) -> None:
        self._consumer = consumer
        self._config = config
        self._tracker = tracker
        self._confirm = confirm
        self._clock = clock
        self._memory = TopicMemory(consumer, config, clock)
        self._starts = StartFinder(consumer, config, self._memory)
        self._lock = threading.RLock()
        self._answered = False
        self._paused = False
        self._waiting: set[TopicPartition] = set()
        self._placed: dict[TopicPartition, Mark] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._commit_under_way: object | None = None
        self._coordinator_seen_s = clock()
        self._fault: RefractError | None = None
        """Set from the IO thread by a commit's answer, or by the store: the next poll raises it, and nothing more is
        committed."""

    @property
    def joined(self) -> bool:
        """Whether the group has said which partitions this member holds, possibly none, and all of them are read.

        Also False while the group's coordinator is away: the client itself then delivers nothing, and says nothing.
        """
        return self._answered and not self._waiting and self._coordinator_present()

    def _coordinator_present(self) -> bool:
        if has_coordinator(self._consumer):
            self._coordinator_seen_s = self._clock()
        return self._clock() - self._coordinator_seen_s < COORDINATOR_GRACE_S

    # -- polling thread

    def deliver(self, place: TopicPartition, records: Sequence[Any]) -> list[Receipt]:
        """Registers fetched records and returns their receipts; an empty list when the partition is not placed."""
        with self._lock:
            if place not in self._placed or not records:
                return []
            partition = Partition(*place)
            receipts = [self._tracker.add(partition, record.offset) for record in records]
            self._positions[place] = records[-1].offset + 1
            return receipts

    def pass_over(self) -> None:
        """Notes where reading goes on, once everything fetched is delivered.

        Behind the last record of a partition there may be what is never delivered: transaction markers, aborted
        records. Without this such a partition would seem to lag for ever.
        """
        with self._lock:
            for place, position in self._positions.items():
                self._positions[place] = max(position, fetched_up_to(self._consumer, place))
            self._tracker.pass_over({Partition(*place): position for place, position in self._positions.items()})

    def fetch_again(self, place: TopicPartition, offset: int) -> None:
        """Reads a placed partition again from an offset that was fetched and not delivered."""
        with self._lock:
            if place in self._placed:
                self._consumer.seek(place, offset)

    def set_paused(self, *, paused: bool) -> None:
        """Pauses or resumes every placed partition; waiting ones start in this state."""
        with self._lock:
            if paused == self._paused:
                return
            self._paused = paused
            change = self._consumer.pause if paused else self._consumer.resume
            for place in self._placed:
                with suppress(KeyError):  # gone this moment; its listener call follows
                    change(place)

    def place(self) -> None:
        """Decides where the waiting partitions start, commits first starts, and lets them be read.

        What cannot be answered now stays waiting for the next call.

        Raises:
            EnvironmentFault: an offset no longer means the same log, or a commit was refused for good.
            KafkaError: the client's errors, retriable or not.
        """
        if self._fault is not None:
            raise self._fault
        if self._config.group_instance_id and is_fenced(self._consumer):
            raise kafka_errors.FencedInstanceIdError
        with self._lock:
            waiting = sorted(self._waiting)
        if not waiting:
            return
        starts = self._starts.find(waiting)
        self._confirm_held(starts)
        offsets = self._starts.settle(starts)
        with self._lock:
            for place, offset in offsets.items():
                if place in self._waiting:
                    self._let_read(place, offset, starts[place])

    def commit(self) -> None:
        """Sends the durable watermarks that moved, unless an earlier commit is still without an answer."""
        with self._lock:
            self._check_topic_ids()
            self._memory.refresh()
            if self._commit_under_way is not None:
                return
            moved = self._tracker.durable()
            offsets = _with_marks(moved, self._placed)
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
            for place, position in self._positions.items():
                with suppress(KeyError, kafka_errors.IllegalStateError):
                    end = self._consumer.highwater(place)
                    if end is not None:
                        lag[Partition(*place)] = max(0, end - position)
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
            self._fault = fault
            raise

    def _let_read(self, place: TopicPartition, offset: int, start: Start) -> None:
        self._consumer.seek(place, offset)
        if not self._paused:
            self._consumer.resume(place)
        self._waiting.discard(place)
        self._placed[place] = start.mark
        self._positions[place] = offset
        self._tracker.assign(Partition(*place), offset, start.witness)
        log.info("A partition is read.", topic=place.topic, partition=place.partition, offset=offset)

    def _check_topic_ids(self) -> None:
        for place, mark in self._placed.items():
            if mark.is_of_another(topic_id(self._consumer, place.topic)):
                raise EnvironmentFault(
                    f"topic {place.topic!r} was deleted and created again while it was being read; start again to "
                    f"see what its offsets mean now"
                )

    # -- the client's IO thread

    def assigned(self, added: Iterable[TopicPartition]) -> None:
        """Lets new partitions wait."""
        with self._lock:
            for place in added:
                self._consumer.pause(place)
                self._consumer.seek(place, 0)
                self._waiting.add(place)
            self._answered = True

    def revoked(self, gone: Iterable[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        """Ends partitions and returns what may be committed for them, with witnesses for the next owner to ask for."""
        if self._fault is not None:
            self.lost(gone)
            return {}
        with self._lock:
            marks = dict(self._placed)
            return _with_marks(self._tracker.revoke(self._forget(gone)), marks)

    def lost(self, gone: Iterable[TopicPartition]) -> None:
        """Ends partitions that somebody else may own already: nothing is committed."""
        with self._lock:
            self._tracker.lose(self._forget(gone))

    def _commit_answered(self, token: object, watermarks: Mapping[Partition, Watermark], answer: Any) -> None:
        with self._lock:
            if self._commit_under_way is not token:
                return  # partitions changed meanwhile; what was committed is repeated or no longer ours
            self._commit_under_way = None
            if not isinstance(answer, Exception):
                self._tracker.committed({place: watermark.offset for place, watermark in watermarks.items()})
                failpoints.reach("after_commit")
                return
        if isinstance(answer, GROUP_MOVED_ON):
            log.info("A commit came too late for its generation and is dropped.", error=type(answer).__name__)
            return
        meaning = error_from_kafka(answer, "committing offsets", self._config)
        if isinstance(meaning, EnvironmentFault):
            self._fault = meaning
        else:
            log.warning("A commit failed and will be repeated.", error=type(answer).__name__)

    # -- both

    def _forget(self, gone: Iterable[TopicPartition]) -> list[Partition]:
        ended = []
        for place in gone:
            self._waiting.discard(place)
            self._positions.pop(place, None)
            if self._placed.pop(place, None) is not None:
                ended.append(Partition(*place))
        self._commit_under_way = None
        return ended


def _with_marks(
    watermarks: Mapping[Partition, Watermark], marks: Mapping[TopicPartition, Mark]
) -> dict[TopicPartition, OffsetAndMetadata]:
    """Returns the offsets to commit of the partitions that have a mark, with marks and witnesses."""
    offsets = {}
    for partition, watermark in watermarks.items():
        place = TopicPartition(*partition)
        if place in marks:
            offsets[place] = OffsetAndMetadata(watermark.offset, marks[place].dump(watermark.witness), -1)
    return offsets
