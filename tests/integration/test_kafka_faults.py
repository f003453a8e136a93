"""What a source does when the broker, the log or the topic is not what it was."""

import time
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition

from pipeline.config.source import SourceConfig
from pipeline.errors import EnvironmentFault, TransientError
from pipeline.sources.client import connection
from pipeline.sources.group import member as consumer
from tests.broker import Broker, free_port, unique
from tests.integration.members import Reader, positions, produce, source_config, texts, wait_until

pytestmark = pytest.mark.kafka


def fault_of(reader: Reader, timeout_s: float = 20.0) -> EnvironmentFault:
    """Polls and commits until a person is called."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            reader.finish(reader.source.poll(0.1))
            reader.source.commit()
        except EnvironmentFault as fault:
            with pytest.raises(EnvironmentFault):  # and it stays so
                reader.source.poll(0.1)
            return fault
        except TransientError:
            time.sleep(0.1)
    raise AssertionError(f"no fault within {timeout_s} s")


def read_and_commit(config: SourceConfig, count: int) -> None:
    with Reader(config) as reader:
        reader.finish(reader.read(count))


def recreate(broker: Broker, topic: str, partitions: int = 1) -> None:
    admin = broker.admin()
    try:
        admin.delete_topics([topic])
        wait_until(lambda: topic not in admin.list_topics())
        admin.create_topics({topic: {"num_partitions": partitions, "replication_factor": 1}}, wait_for_metadata=True)
    finally:
        admin.close()


def remove_records(broker: Broker, topic: str, before: int) -> None:
    admin = broker.admin()
    try:
        admin.delete_records({TopicPartition(topic, 0): before})
    finally:
        admin.close()


def test_offsets_that_retention_removed_stop_the_source_and_are_named(broker: Broker) -> None:
    topic = broker.create_topic(unique("retention"))
    config = source_config(broker.bootstrap_servers, topic)
    produce(config, topic, texts(0, 10))
    read_and_commit(config, 10)
    produce(config, topic, texts(10, 50))
    remove_records(broker, topic, 30)
    with Reader(config) as reader:
        fault = str(fault_of(reader))
    assert f"{topic}[0] at offset 10" in fault
    assert "oldest kept is 30" in fault


def test_retention_before_the_first_commit_is_noticed_too(broker: Broker) -> None:
    topic = broker.create_topic(unique("retention-first"))
    config = source_config(broker.bootstrap_servers, topic)
    produce(config, topic, texts(0, 10))
    with Reader(config) as reader:
        reader.read(10)  # read, and nothing finished
    remove_records(broker, topic, 5)
    with Reader(config) as reader:
        assert f"{topic}[0] at offset 0" in str(fault_of(reader))


def test_a_recreated_topic_is_refused_until_the_generation_is_raised(broker: Broker) -> None:
    topic = broker.create_topic(unique("recreated"))
    config = source_config(broker.bootstrap_servers, topic)
    produce(config, topic, texts(0, 5))
    read_and_commit(config, 5)
    recreate(broker, topic)
    produce(config, topic, texts(0, 8))
    with Reader(config) as reader:
        fault = str(fault_of(reader))
    assert f"source.topics.{topic}.generation to 1" in fault
    raised = source_config(broker.bootstrap_servers, topic, topic_changes={"generation": 1})
    with Reader(raised) as reader:
        deliveries = reader.read(8)
        assert positions(deliveries)[0] == (0, 0)
        assert all(delivery.record and delivery.record.version >> 40 == 1 for delivery in deliveries)
        reader.finish(deliveries)
    with Reader(config) as reader:
        assert "set it back to 1 or higher" in str(fault_of(reader))


def test_a_recreated_topic_with_versions_of_its_own_is_read_from_its_beginning(broker: Broker) -> None:
    topic = broker.create_topic(unique("recreated-versions"))
    config = source_config(broker.bootstrap_servers, topic, topic_changes={"version": "v", "text": "{id}"})
    record = (b"k", b'{"id": "k", "v": 1}')
    produce(config, topic, [record] * 5)
    read_and_commit(config, 5)
    recreate(broker, topic)
    produce(config, topic, [record] * 8)
    with Reader(config) as reader:
        assert positions(reader.read(8)) == [(0, offset) for offset in range(8)]


def test_a_topic_recreated_while_it_is_read_stops_the_source(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer, "METADATA_MAX_AGE_MS", 300)
    topic = broker.create_topic(unique("recreated-live"))
    config = source_config(broker.bootstrap_servers, topic)
    produce(config, topic, texts(0, 5))
    with Reader(config) as reader:
        reader.finish(reader.read(5))
        reader.commit()
        recreate(broker, topic)
        produce(config, topic, texts(0, 20))
        assert "created again" in str(fault_of(reader))


def test_added_partitions_are_refused_where_offsets_are_the_versions(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "METADATA_MAX_AGE_MS", 300)
    topic = broker.create_topic(unique("repartitioned"))
    config = source_config(broker.bootstrap_servers, topic)
    produce(config, topic, texts(0, 5))
    with Reader(config) as reader:
        reader.finish(reader.read(5))
        reader.commit()
        admin = broker.admin()
        admin.create_partitions({topic: 2})
        admin.close()
        assert "has 2 partitions instead of 1" in str(fault_of(reader))
    raised = source_config(broker.bootstrap_servers, topic, topic_changes={"generation": 1})
    with Reader(raised) as reader:
        reader.poll_for(1.0)
        assert len(reader.tracker.held()) == 2


def test_a_member_whose_broker_went_away_is_not_ready_until_it_is_back(own_broker: Broker) -> None:
    topic = own_broker.create_topic(unique("away"))
    config = source_config(own_broker.bootstrap_servers, topic)
    with Reader(config) as reader:

        def polled_and_joined() -> bool:
            try:
                reader.source.poll(0.1)
            except TransientError:
                time.sleep(0.05)
            return reader.source.joined()

        wait_until(polled_and_joined)
        own_broker.kill()
        try:
            wait_until(lambda: not polled_and_joined(), 30)
        finally:
            own_broker.start()
        wait_until(polled_and_joined, 60)


def test_reading_goes_on_after_the_broker_was_killed_and_came_back(own_broker: Broker) -> None:
    topic = own_broker.create_topic(unique("killed"))
    config = source_config(own_broker.bootstrap_servers, topic)
    produce(config, topic, texts(0, 50))
    with Reader(config) as reader:
        reader.finish(reader.read(50))
        reader.commit()
        own_broker.kill()
        polls = 0
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            polls += 1
            try:
                assert list(reader.source.poll(0.1)) == []
            except TransientError:
                time.sleep(0.05)
            reader.source.commit()
        assert polls < 40  # no spinning while it is away
        own_broker.start()
        produce(config, topic, texts(50, 60))
        came: list[tuple[int, int]] = []

        def all_there() -> bool:
            try:
                came.extend(positions(reader.source.poll(0.1)))
            except TransientError:
                return False
            return len(set(came)) >= 10

        wait_until(all_there, 30)
        assert set(came) == {(0, offset) for offset in range(50, 60)}


def test_a_broker_that_does_not_answer_holds_no_call_for_long(own_broker: Broker) -> None:
    topic = own_broker.create_topic(unique("frozen"))
    config = source_config(own_broker.bootstrap_servers, topic)
    produce(config, topic, texts(0, 10))
    with Reader(config) as reader:
        reader.finish(reader.read(10))
        own_broker.freeze()
        try:
            slowest = 0.0
            until = time.monotonic() + 3.0
            while time.monotonic() < until:
                start = time.monotonic()
                try:
                    reader.source.poll(0.1)
                    reader.source.commit()
                except TransientError:
                    time.sleep(0.05)
                slowest = max(slowest, time.monotonic() - start)
            assert slowest < 1.0
        finally:
            own_broker.thaw()
        # Whether its session is over or not, what was finished gets committed or read again.
        wait_until(lambda: _poll_and_commit(reader) or own_broker.committed(config.group_id) == {(topic, 0): 10}, 30)


def _poll_and_commit(reader: Reader) -> bool:
    try:
        reader.finish(reader.source.poll(0.1))
        reader.source.commit()
    except TransientError:
        time.sleep(0.05)
    return False


def test_a_damaged_batch_stops_the_source_after_a_few_new_consumers(own_broker: Broker) -> None:
    topic = own_broker.create_topic(unique("damaged"))
    config = source_config(own_broker.bootstrap_servers, topic)
    produce(config, topic, texts(0, 3))
    produce(config, topic, texts(3, 6))
    own_broker.stop()
    segment = own_broker.directory / "data" / f"{topic}-0" / f"{0:020}.log"
    content = bytearray(segment.read_bytes())
    content[-10] ^= 0xFF
    segment.write_bytes(content)
    own_broker.start()
    made: list[Any] = []

    def make_consumer(**settings: Any) -> Any:
        made.append(KafkaConsumer(**settings))
        return made[-1]

    with Reader(config, make_consumer=make_consumer) as reader:
        fault = str(fault_of(reader, 60))
        assert "CorruptRecordError" in fault
        assert f"partition={0}" in fault or "offset 3" in fault
        # Nothing behind the damage was passed over, and what stands before it is safe.
        assert own_broker.committed(config.group_id) == {(topic, 0): 3}
    assert len(made) == 4


def test_an_unreachable_broker_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "BOOTSTRAP_TIMEOUT_MS", 300)
    with (
        Reader(source_config(f"127.0.0.1:{free_port()}", "t")) as reader,
        pytest.raises(TransientError, match=r"127\.0\.0\.1"),
    ):
        reader.source.poll(0.1)


def test_a_session_timeout_that_the_broker_refuses_is_named(broker: Broker) -> None:
    topic = broker.create_topic(unique("session"))
    config = source_config(broker.bootstrap_servers, topic).model_copy(update={"session_timeout_ms": 3_600_000})
    with Reader(config) as reader:
        assert "InvalidSessionTimeout" in str(fault_of(reader))
