"""Reads topics as one member of a Kafka consumer group (kafka-python, classic protocol, cooperative-sticky)."""

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import kafka.errors as kafka_errors
import structlog

from pipeline.clock import Clock
from pipeline.errors import EnvironmentFault, RecordError, RefractError, TransientError
from pipeline.live.offsets import OffsetTracker
from pipeline.live.witness import Confirm
from pipeline.records.decode import Decoders, record_bytes
from pipeline.records.record import Delivery, Partition, Position, Receipt, Record
from pipeline.sources.client.broker_errors import error_from_kafka
from pipeline.sources.group.consumer_internals import commit_on_io_thread, keep_joining, refresh_metadata
from pipeline.sources.group.held_partitions import HeldPartitions
from pipeline.sources.group.listener import Listener
from pipeline.sources.group.member import GroupMember
from pipeline.sources.group.starts import PLACE_TIMEOUT_MS

MAX_REBUILDS = 3
"""Times the consumer is rebuilt for the same error before a person is called."""

REBUILD_WINDOW_S = 300.0
"""Errors further apart than this count as different ones."""

CLOSE_TIMEOUT_S = 10.0

JUDGED_RECORDS = 1_000
"""Records of a topic after which a path of its configuration that none of them had is told."""

REVOKE_TIMEOUT_MS = 5_000
"""Longest wait for the last commit of revoked partitions; a broker that is away must not hold up a shutdown."""

_LOST_POSITION = (
    kafka_errors.OffsetOutOfRangeError,
    kafka_errors.NoOffsetForPartitionError,
    kafka_errors.LogTruncationError,
)

_REJOINS = (kafka_errors.InvalidRequestError,)
"""A member joined while the leader was dividing the partitions: the client has already asked for the next join."""

_Decoded = tuple[Position, Record | RecordError]
"""A record's place, and what its bytes mean or why they mean nothing."""

log = structlog.get_logger(__name__)


class KafkaSource:
    """A member of the consumer group. Implements `pipeline.interfaces.Source`; see there for the contract.

    Values are taken as bytes and decoded here: an exception inside the client's own decoding leaves
    it spinning. For the same reason any error that the client does not call retriable ends this
    consumer, and the next poll builds a new one from the committed offsets; an error that comes back
    every time becomes an EnvironmentFault. A fault is final: every later poll raises it again.

    All methods but `close` are called from one thread. The rebalance listener runs on the client's
    IO thread, while this thread waits inside the client.
    """

    def __init__(
        self,
        member: GroupMember,
        decoders: Decoders,
        tracker: OffsetTracker,
        *,
        confirm: Confirm = lambda _: None,
        clock: Clock = time.monotonic,
    ) -> None:
        """Prepares the source; the first poll connects.

        Before a partition is read on from a committed offset, `confirm` is asked whether the store still
        holds the point that was committed with it.
        """
        self._member = member
        self._config = member.config
        self._decoders = decoders
        self._tracker = tracker
        self._confirm = confirm
        self._clock = clock
        self._consumer: Any = None
        self._held: HeldPartitions | None = None
        self._paused = False
        self._fault: RefractError | None = None
        self._failures: dict[str, list[float]] = {}
        self._num_decoded = Counter[str]()
        self._closed = threading.Event()

    def poll(self, timeout_s: float) -> Sequence[Delivery]:
        """Returns what has arrived. Raises TransientError while no broker answers, EnvironmentFault for good."""
        if self._fault is not None:
            raise self._fault
        try:
            held = self._connect()
            # Everything that may fail stands before the poll: what it returns is past the client's position.
            held.place()
            fetched = self._consumer.poll(timeout_ms=round(keep_joining(self._consumer, timeout_s) * 1000))
        except Exception as error:  # noqa: BLE001 - the client raises whatever bad bytes provoke in its readers
            self._recover(error)
            return []
        try:
            deliveries, outage = self._deliver(held, fetched)
            held.pass_over()
        except Exception:
            # Its position is past records that nobody has: this consumer must not read on.
            self._discard()
            raise
        for place, records in fetched.items():
            self._judge_paths(place.topic, len(records))
        if outage is not None and not deliveries:
            raise outage
        return deliveries

    def set_paused(self, *, paused: bool) -> None:
        """Stops or resumes fetching; partitions assigned later start in the same state."""
        self._paused = paused
        if self._held is not None:
            self._held.set_paused(paused=paused)

    def commit(self) -> None:
        """Sends the durable watermarks that moved, without waiting; what came of it is heard in later polls."""
        if self._held is None or self._fault is not None:
            return
        try:
            self._held.commit()
        except (kafka_errors.KafkaError, EnvironmentFault) as error:
            self._recover(error)

    def joined(self) -> bool:
        """Whether the group has given this member its partitions, and they are read."""
        return self._held is not None and self._held.joined

    def lag(self) -> Mapping[Partition, int]:
        """Returns the records not delivered yet per held partition, as of the last fetch that told."""
        return {} if self._held is None else self._held.lag()

    def close(self) -> None:
        """Commits what is durable, leaves the group and frees the sockets."""
        if not self._closed.is_set():
            self._closed.set()
            self._discard()

    def _connect(self) -> HeldPartitions:
        if self._closed.is_set():
            raise EnvironmentFault("the source is closed")
        if self._held is not None:
            return self._held
        consumer = self._consumer = self._member.connect()
        held = self._held = HeldPartitions(consumer, self._config, self._tracker, self._confirm, self._clock)
        held.set_paused(paused=self._paused)
        commit = partial(commit_on_io_thread, consumer, timeout_ms=REVOKE_TIMEOUT_MS)
        consumer.subscribe(topics=sorted(self._config.topics), listener=Listener(held, commit))
        # Otherwise it would join without partitions first, and then again.
        refresh_metadata(consumer, PLACE_TIMEOUT_MS)
        return held

    def _deliver(
        self, held: HeldPartitions, fetched: Mapping[Any, Sequence[Any]]
    ) -> tuple[list[Delivery], TransientError | None]:
        """Returns what was fetched, decoded, and an outage that kept some of it from being decoded.

        A record gets its receipt once it is decoded, so that an outage on the way there (a format's schema registry,
        say) leaves nothing behind that nobody finishes: from that record on the partition is fetched again.
        """
        deliveries: list[Delivery] = []
        outage: TransientError | None = None
        for place, records in fetched.items():
            decoded: list[_Decoded] = []
            try:
                for record in records:
                    decoded.append(self._decode(record))  # noqa: PERF401 - what is decoded before an outage is kept
            except TransientError as error:
                outage = error
                held.fetch_again(place, records[len(decoded)].offset)
            receipts = held.deliver(place, records[: len(decoded)])
            deliveries += map(_delivery, records, decoded, receipts)
        return deliveries, outage

    def _decode(self, record: Any) -> _Decoded:
        position = Position(record.topic, record.partition, record.offset, record.timestamp)
        try:
            decoder = self._decoders.of(record.topic)
            return position, decoder.decode(record.key, record.value, position, record.headers)
        except RecordError as error:
            return position, error

    def _judge_paths(self, topic: str, num_records: int) -> None:
        """Warns once of paths that no record had so far: a misspelt one makes payloads and texts poorer in silence."""
        before = self._num_decoded[topic]
        self._num_decoded[topic] += num_records
        if before < JUDGED_RECORDS <= before + num_records and (paths := self._decoders.of(topic).unresolved):
            log.warning(
                "Paths of the topic's configuration are in none of its records so far. Are they spelt right?",
                topic=topic,
                paths=list(paths),
                records=before + num_records,
            )

    def _recover(self, error: Exception) -> None:
        """Decides what an error of the client means; returns when the next poll may simply go on.

        Raises:
            TransientError: the brokers are away; the consumer stays and repeats by itself.
            EnvironmentFault: for good.
        """
        if isinstance(error, RefractError):
            raise self._note(error)
        if isinstance(error, _LOST_POSITION):
            fault = EnvironmentFault(self._explain_lost_position(error))
            self._discard()
            raise self._note(fault) from error
        meaning = error_from_kafka(error, "reading from Kafka", self._config)
        if isinstance(meaning, TransientError) and (getattr(error, "retriable", False) or isinstance(error, _REJOINS)):
            raise meaning from error
        if isinstance(meaning, EnvironmentFault) and isinstance(error, kafka_errors.KafkaError):
            self._discard()
            raise self._note(meaning) from error
        log.warning("The Kafka consumer failed and is rebuilt.", error=type(error).__name__, detail=str(error)[:200])
        self._discard()
        if self._repeats(error):
            raise self._note(
                EnvironmentFault(
                    f"reading from Kafka failed {MAX_REBUILDS + 1} times in the same place, each time with a new "
                    f"consumer: {type(error).__name__} ({str(error)[:200]}); the stored batch is damaged or in a "
                    f"format this client cannot read. Other clients may read it: copy its records to the end of the "
                    f"topic with one, then set the offset of group {self._config.group_id!r} past that batch on purpose"
                )
            ) from error

    def _repeats(self, error: Exception) -> bool:
        now = self._clock()
        times = self._failures.setdefault(f"{type(error).__name__} {error}", [])
        times[:] = [past for past in times if now - past < REBUILD_WINDOW_S] + [now]
        return len(times) > MAX_REBUILDS

    def _explain_lost_position(self, error: Exception) -> str:
        """Names the partitions whose next offset is gone, and what is there instead."""
        lost: dict[Any, Any] = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
        kept: Mapping[Any, int] = {}
        with suppress(kafka_errors.KafkaError):
            kept = self._consumer.beginning_offsets(list(lost), timeout_ms=5_000)
        places = ", ".join(
            f"{tp.topic}[{tp.partition}] at offset {offset}"
            + (f" (the oldest kept is {kept[tp]})" if tp in kept else "")
            for tp, offset in lost.items()
        )
        return (
            f"the next offset to read is not in the log: {places or str(error)[:300]}. Retention removed unread "
            f"records, or the topic was recreated or truncated. Those records are lost to this pipeline unless they "
            f"come again: backfill them, then set the offsets of group {self._config.group_id!r} on purpose"
        )

    def _note(self, error: RefractError) -> RefractError:
        if isinstance(error, EnvironmentFault):
            self._fault = error
        return error

    def _discard(self) -> None:
        """Closes the consumer: the listener commits what is durable, and its partitions end."""
        consumer, held = self._consumer, self._held
        self._consumer = self._held = None
        if consumer is None:
            return
        try:
            consumer.close(autocommit=False, timeout_ms=round(CLOSE_TIMEOUT_S * 1000))
        except Exception as error:  # noqa: BLE001 - a consumer that is broken may fail in any way
            log.warning("The Kafka consumer did not close cleanly.", error=type(error).__name__)
        if held is not None:
            held.end()


def _delivery(record: Any, decoded: _Decoded, receipt: Receipt) -> Delivery:
    """Returns a fetched record, or why it is none, as it is handed over."""
    position, found = decoded
    key, value, headers = record.key, record.value, record.headers
    num_bytes = record_bytes(key, value, headers)
    if isinstance(found, RecordError):
        return Delivery(receipt, position, num_bytes, None, found.reason, found.detail, key, value, headers)
    return Delivery(receipt, position, num_bytes, found, raw_key=key, raw_value=value, headers=headers)
