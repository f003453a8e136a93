"""What a source does when its client fails, on a client that fails to order."""

from typing import Any

import kafka.errors as kafka_errors
import pytest
from kafka import TopicPartition
from structlog.testing import capture_logs

from pipeline.errors import EnvironmentFault, TransientError
from pipeline.records.record import Partition, Position, Record
from pipeline.sources.group.kafka_source import JUDGED_RECORDS, MAX_REBUILDS, REBUILD_WINDOW_S
from tests.unit.fake_consumer import PLACE, FakeConsumer, Group, Message, assign, lose, messages, revoke

CORRUPT = kafka_errors.CorruptRecordError("batch at offset 5 failed crc check")


def test_a_consumer_that_failed_is_never_polled_again_and_a_new_one_goes_on_at_the_commit() -> None:
    group = Group([assign, messages(0, 1), CORRUPT, messages(9)], [assign, messages(2, 3)])
    assert group.poll(4) == [0, 1]
    assert group.consumers[0].closed
    assert group.offset == 2
    assert group.poll(2) == [2, 3]
    assert group.consumers[1].position == 2


@pytest.mark.parametrize("error", [CORRUPT, ValueError("bad varint"), kafka_errors.KafkaProtocolError("odd bytes")])
def test_the_same_failure_again_and_again_calls_a_person(error: Exception) -> None:
    group = Group(*[[assign, error] for _ in range(9)])
    group.poll(2 * MAX_REBUILDS)
    group.poll()
    with pytest.raises(EnvironmentFault, match=type(error).__name__):
        group.poll()
    assert len(group.consumers) == MAX_REBUILDS + 1
    with pytest.raises(EnvironmentFault):
        group.poll()
    assert len(group.consumers) == MAX_REBUILDS + 1


class Registry:
    """A format's schema registry that is away for the given records, by offset, once each."""

    def __init__(self, group: Group, *away: int) -> None:
        self.away = set(away)
        decoder = group.source._decoders.of("t")
        inner = decoder.decode

        def decode(key: bytes | None, value: bytes | None, position: Position, headers: Any) -> Record:
            if position.offset in self.away:
                self.away.discard(position.offset)
                raise TransientError("the schema registry does not answer")
            return inner(key, value, position, headers)

        decoder.decode = decode  # type: ignore[method-assign]


def test_an_outage_while_decoding_loses_no_record_and_leaves_no_receipt() -> None:
    group = Group([assign, messages(0, 1, 2), messages(1, 2), messages(2), messages(2)])
    Registry(group, 1, 2)
    assert group.poll(2) == [0]
    assert group.consumers[0].position == 1
    assert group.poll() == [1]
    assert group.consumers[0].position == 2
    assert group.poll() == [2]
    assert group.tracker.unfinished() == {}
    group.commit()
    assert group.offset == 3


def test_an_outage_while_decoding_the_first_record_is_told() -> None:
    group = Group([assign, messages(0, 1), messages(0, 1)])
    Registry(group, 0)
    group.poll()
    with pytest.raises(TransientError, match="registry"):
        group.poll()
    assert group.consumers[0].position == 0
    assert group.tracker.unfinished() == {}
    assert group.poll() == [0, 1]


def test_a_bug_while_decoding_leaves_no_consumer_that_would_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    group = Group([assign, messages(0), messages(1)], [assign, messages(1)])
    group.poll(2)
    group.commit()
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.sources.group.kafka_source.record_bytes", None)
        with pytest.raises(TypeError):
            group.poll()
    assert group.consumers[0].closed
    assert group.offset == 1
    assert group.poll(2) == [1]


def test_a_partition_that_ends_in_transaction_markers_does_not_lag_and_is_committed_to_its_end() -> None:
    def markers(consumer: FakeConsumer) -> None:
        consumer.at.position.offset = 10

    group = Group([assign, messages(5, 6), markers])
    group.poll(2)
    assert group.source.lag() == {Partition("t", 0): 3}
    group.poll()
    assert group.source.lag() == {Partition("t", 0): 0}
    group.commit()
    assert group.offset == 10


def test_markers_are_not_passed_over_before_the_records_below_them_are_finished() -> None:
    def markers(consumer: FakeConsumer) -> None:
        consumer.at.position.offset = 10

    group = Group([assign, messages(5), markers, {}])
    group.poll()
    [delivery] = group.source.poll(0.1)
    group.source.poll(0.1)
    group.commit()
    assert group.offset == 0
    group.tracker.finish([delivery.receipt])
    group.poll()
    group.commit()
    assert group.offset == 10


def test_failures_far_apart_are_not_the_same() -> None:
    group = Group(*[[assign, CORRUPT] for _ in range(9)])
    for _ in range(8):
        group.poll(2)
        group.now += REBUILD_WINDOW_S + 1
    assert len(group.consumers) == 8


@pytest.mark.parametrize("error", [kafka_errors.KafkaConnectionError("gone"), kafka_errors.InvalidRequestError()])
def test_an_outage_and_a_join_to_be_repeated_keep_the_consumer(error: Exception) -> None:
    group = Group([assign, error, messages(0)])
    group.poll()
    with pytest.raises(TransientError):
        group.poll()
    assert group.poll() == [0]
    assert len(group.consumers) == 1


@pytest.mark.parametrize(
    "error",
    [
        kafka_errors.TopicAuthorizationFailedError({"t"}),
        kafka_errors.FencedInstanceIdError(),
        kafka_errors.UnsupportedCodecError("zstd"),
        kafka_errors.OffsetOutOfRangeError({PLACE: 5}),
        kafka_errors.LogTruncationError({PLACE: None}),
    ],
)
def test_what_no_repetition_mends_is_final_and_frees_the_consumer(error: Exception) -> None:
    group = Group([assign, messages(0), error])
    group.poll(2)
    for _ in range(2):
        with pytest.raises(EnvironmentFault):
            group.poll()
    assert group.consumers[0].closed
    assert group.offset == 1


def test_nothing_is_fetched_before_its_start_is_decided_and_committed() -> None:
    group = Group([assign, messages(0, 1)])
    group.poll()
    assert group.consumers[0].paused == {PLACE}
    assert group.tracker.held() == frozenset()
    assert group.poll() == [0, 1]
    assert group.offset == 0
    assert group.tracker.held() == {Partition("t", 0)}


def test_a_start_that_cannot_be_asked_for_is_asked_for_again_and_no_record_is_lost_meanwhile() -> None:
    group = Group([assign, messages(0, 1)])
    group.placing.extend([kafka_errors.KafkaTimeoutError("slow")] * 2)
    group.poll()
    for _ in range(2):
        with pytest.raises(TransientError):
            group.poll()
    assert group.poll() == [0, 1]


def test_records_fetched_before_a_partition_went_and_came_back_are_not_delivered() -> None:
    def back_again(consumer: FakeConsumer) -> dict[TopicPartition, list[Message]]:
        revoke(consumer)
        assign(consumer)
        return messages(7, 8)  # of the assignment before

    group = Group([assign, messages(0), back_again, messages(1, 2)])
    assert group.poll(3) == [0]
    assert group.poll() == [1, 2]
    assert group.consumers[0].position == 1


def test_a_lost_partition_commits_nothing() -> None:
    group = Group([assign, messages(0, 1), lose, {}])
    assert group.poll(3) == [0, 1]
    group.source.commit()
    assert group.offset == 0
    assert group.tracker.held() == frozenset()


@pytest.mark.parametrize(
    "refusal",
    [
        kafka_errors.CommitFailedError("left"),
        kafka_errors.RebalanceInProgressError(),
        kafka_errors.IllegalGenerationError(),
        kafka_errors.UnknownMemberIdError(),
        kafka_errors.CoordinatorNotAvailableError(),
        kafka_errors.KafkaTimeoutError("slow"),
    ],
)
def test_a_commit_that_failed_is_sent_again_with_whatever_is_true_then(refusal: Exception) -> None:
    group = Group([assign, messages(0, 1), {}, messages(2), {}])
    group.refuse.append(refusal)
    group.poll(2)
    group.source.commit()
    assert group.offset == 0
    group.poll(2)
    group.source.commit()
    assert group.offset == 3


def test_a_commit_refused_for_good_stops_the_source() -> None:
    group = Group([assign, messages(0), {}, {}])
    group.refuse.append(kafka_errors.GroupAuthorizationFailedError("g"))
    group.poll(2)
    group.source.commit()
    group.poll()
    with pytest.raises(EnvironmentFault, match="READ on group 'g'"):
        group.poll()


def test_one_commit_at_a_time_and_only_what_moved() -> None:
    group = Group([assign, messages(0), {}, {}])
    sent: list[Any] = []
    group.poll(2)
    consumer = group.consumers[0]
    send = consumer.commit_async

    def counted(offsets: dict[TopicPartition, Any], callback: Any = None) -> Any:
        sent.append(offsets)
        return send(offsets, callback)

    consumer.commit_async = counted  # type: ignore[method-assign]
    group.source.commit()
    group.source.commit()
    assert len(sent) == 1
    group.poll()
    group.source.commit()
    assert len(sent) == 1


def test_a_recreated_topic_is_noticed_at_the_next_commit() -> None:
    group = Group([assign, messages(0)])
    group.poll(2)
    group.consumers[0]._cluster.topic_id = lambda _: "id-2"
    with pytest.raises(EnvironmentFault, match="created again"):
        group.source.commit()
    with pytest.raises(EnvironmentFault):
        group.poll()


def test_a_pause_holds_for_partitions_that_come_later() -> None:
    group = Group([assign, messages(0)], [])
    group.source.set_paused(paused=True)
    assert group.poll(2) == []
    assert group.tracker.held() == {Partition("t", 0)}
    assert group.consumers[0].paused == {PLACE}
    group.source.set_paused(paused=False)
    assert group.consumers[0].paused == set()


def test_lag_is_what_stands_before_the_end() -> None:
    group = Group([assign, messages(0, 1, 2)])
    assert group.source.lag() == {}
    group.poll(2)
    assert group.source.lag() == {Partition("t", 0): 7}


def test_closing_twice_is_safe_and_polling_a_closed_source_is_not() -> None:
    group = Group([assign, messages(0)])
    group.poll(2)
    group.source.close()
    group.source.close()
    assert group.offset == 1
    with pytest.raises(EnvironmentFault, match="closed"):
        group.poll()
    Group().source.close()


@pytest.mark.parametrize(("value", "told"), [(b'{"id": "a", "body": "x"}', 1), (b'{"id": "a", "text": "x"}', 0)])
def test_a_path_that_no_record_has_is_told_once(value: bytes, told: int) -> None:
    half = [Message("t", 0, offset, 0, value=value) for offset in range(JUDGED_RECORDS // 2)]
    with capture_logs() as logs:
        group = Group([assign, *[{PLACE: half}] * 4])
        group.poll(5)
    found = [line for line in logs if line["log_level"] == "warning"]
    assert len(found) == told
    assert all((line["topic"], line["paths"], line["records"]) == ("t", ["text"], JUDGED_RECORDS) for line in found)
