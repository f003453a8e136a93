"""One member, one topic: what is written comes out once, in order, and reading resumes where it was committed."""

import json

import pytest
from kafka import KafkaProducer

from pipeline.errors import Reason
from pipeline.records.record import Partition
from pipeline.sources.client.admin import PartitionLag, committed_lag
from tests.broker import Broker, unique
from tests.integration.members import Reader, positions, produce, source_config, texts
from tests.unit.compressed import RawName

pytestmark = pytest.mark.kafka


@pytest.fixture
def topic(broker: Broker) -> str:
    return broker.create_topic(unique("reading"), 2)


def test_records_come_decoded_and_in_order_per_partition(broker: Broker, topic: str) -> None:
    config = source_config(broker.bootstrap_servers, topic)
    produce(config, topic, texts(0, 300))
    with Reader(config) as reader:
        deliveries = reader.read(300)
    assert {delivery.record.key for delivery in deliveries if delivery.record} == {f"s:k{i}" for i in range(300)}
    for number in (0, 1):
        offsets = [offset for partition, offset in positions(deliveries) if partition == number]
        assert offsets == list(range(len(offsets)))


def test_a_second_reader_continues_at_the_commit_and_not_at_what_was_polled(broker: Broker) -> None:
    topic = broker.create_topic(unique("resume"))
    config = source_config(broker.bootstrap_servers, topic)
    produce(config, topic, texts(0, 100))
    with Reader(config) as reader:
        deliveries = reader.read(100)
        reader.finish(deliveries[:40])
        reader.finish(deliveries[50:])
        reader.commit()
        assert broker.committed(config.group_id) == {(topic, 0): 40}
    with Reader(config) as reader:
        assert positions(reader.read(60)) == [(0, offset) for offset in range(40, 100)]


def test_close_commits_what_was_finished_since_the_last_commit(broker: Broker) -> None:
    topic = broker.create_topic(unique("close"))
    config = source_config(broker.bootstrap_servers, topic)
    produce(config, topic, texts(0, 10))
    with Reader(config) as reader:
        reader.finish(reader.read(10))
    assert broker.committed(config.group_id) == {(topic, 0): 10}


def test_the_start_is_committed_before_anything_is_read(broker: Broker, topic: str) -> None:
    config = source_config(broker.bootstrap_servers, topic)
    with Reader(config) as reader:
        reader.poll_for(1.0)
        assert broker.committed(config.group_id) == {(topic, 0): 0, (topic, 1): 0}


def test_latest_skips_what_is_there_but_nothing_that_comes_before_the_first_commit(broker: Broker) -> None:
    topic = broker.create_topic(unique("latest"))
    config = source_config(broker.bootstrap_servers, topic, start_from="latest")
    produce(config, topic, texts(0, 10))
    with Reader(config) as reader:
        assert reader.poll_for(1.5) == []
        produce(config, topic, texts(10, 15))
        reader.read(5)  # nothing is finished, so a crash here would come before any other commit
    with Reader(config) as reader:
        assert positions(reader.read(5)) == [(0, offset) for offset in range(10, 15)]


def test_a_null_value_is_a_delete_and_a_bad_record_an_error_with_its_bytes(broker: Broker) -> None:
    topic = broker.create_topic(unique("kinds"))
    config = source_config(broker.bootstrap_servers, topic)
    produce(config, topic, [(b"k1", None), (b"k2", b"{broken"), *texts(3, 4)])
    with Reader(config) as reader:
        deleted, broken, good = reader.read(3)
    assert deleted.record is not None
    assert deleted.record.deleted
    assert deleted.record.key == "s:k1"
    assert broken.record is None
    assert (broken.error, broken.raw_key, broken.raw_value) == (Reason.INVALID_JSON, b"k2", b"{broken")
    assert good.record is not None
    assert good.record.text == "t3"


@pytest.mark.parametrize("codec", ["gzip", "lz4", "snappy", "zstd"])
def test_every_codec_is_read(broker: Broker, codec: str) -> None:
    topic = broker.create_topic(unique(codec))
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, compression_type=codec, linger_ms=50)
    for key, value in texts(0, 50):
        producer.send(topic, value=value, key=key)
    producer.close()
    with Reader(source_config(broker.bootstrap_servers, topic)) as reader:
        assert len(reader.read(50)) == 50


def test_aborted_transactions_are_not_delivered_and_open_ones_wait(broker: Broker) -> None:
    topic = broker.create_topic(unique("transactions"))
    config = source_config(broker.bootstrap_servers, topic)
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, transactional_id=topic)
    producer.init_transactions()

    def write(first: int, last: int) -> None:
        producer.begin_transaction()
        for key, value in texts(first, last):
            producer.send(topic, value=value, key=key)
        producer.flush()

    write(0, 5)
    producer.abort_transaction()
    write(5, 8)
    producer.commit_transaction()
    write(8, 10)
    with Reader(config) as reader:
        deliveries = reader.read(3)
        assert reader.poll_for(0.5) == []
        producer.commit_transaction()
        deliveries += reader.read(2)
        reader.finish(deliveries)
        reader.poll_for(0.5)
        reader.finish([])
        reader.commit()
        assert reader.source.lag() == {Partition(topic, 0): 0}
    producer.close()
    assert [delivery.record.text for delivery in deliveries if delivery.record] == ["t5", "t6", "t7", "t8", "t9"]
    # Offsets have gaps where the markers stand, and one stands behind the last record: it is no lag, either.
    end = deliveries[-1].position.offset + 2
    assert committed_lag(config) == {Partition(topic, 0): PartitionLag(committed=end, end=end, begin=0)}


def test_lag_is_known_from_the_fetches_and_from_the_brokers(broker: Broker) -> None:
    topic = broker.create_topic(unique("lag"))
    config = source_config(broker.bootstrap_servers, topic, max_poll_records=10)
    produce(config, topic, texts(0, 30))
    with Reader(config) as reader:
        deliveries = reader.read(10)
        assert reader.source.lag() == {Partition(topic, 0): 20}
        reader.finish(deliveries)
        reader.source.set_paused(paused=True)
        reader.commit()
        assert committed_lag(config) == {Partition(topic, 0): PartitionLag(committed=10, end=30, begin=0)}
        assert committed_lag(config)[Partition(topic, 0)].lag == 20


def test_a_topic_of_aborted_records_only_has_no_lag(broker: Broker) -> None:
    topic = broker.create_topic(unique("aborted"))
    config = source_config(broker.bootstrap_servers, topic)
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, transactional_id=topic)
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(topic, value=b"{}", key=b"k")
    producer.flush()
    producer.abort_transaction()
    producer.close()
    with Reader(config) as reader:
        assert reader.poll_for(1.0) == []
        reader.finish([])
        reader.commit()
        assert reader.source.lag() == {Partition(topic, 0): 0}
    assert committed_lag(config)[Partition(topic, 0)].lag == 0


def test_a_header_name_that_is_not_utf8_costs_one_record(broker: Broker) -> None:
    topic = broker.create_topic(unique("names"))
    config = source_config(broker.bootstrap_servers, topic)
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, linger_ms=200)
    (_, value), *_ = texts(0, 1)
    for name in ("plain", RawName(b"caf\xe9"), "plain"):
        producer.send(topic, value=value, headers=[(name, b"1")])
    producer.close()
    with Reader(config) as reader:
        assert [delivery.error for delivery in reader.read(3)] == [None, Reason.INVALID_HEADER, None]


def test_headers_and_kafka_timestamps_reach_the_payload(broker: Broker) -> None:
    topic = broker.create_topic(unique("headers"))
    config = source_config(
        broker.bootstrap_servers, topic, topic_changes={"payload_headers": ["tenant"], "payload_timestamp": True}
    )
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers)
    value = json.dumps({"id": "a", "text": "t"}).encode()
    producer.send(topic, value=value, headers=[("tenant", b"blue"), ("other", b"\xff")], timestamp_ms=1_700_000_000_000)
    producer.close()
    with Reader(config) as reader:
        (delivery,) = reader.read(1)
    assert delivery.record is not None
    assert delivery.record.payload == {
        "tenant": "blue",
        "timestamp_ms": 1_700_000_000_000,
        "_key": "s:a",
        "_source": f"{topic}:0:0",
    }
