"""What `refract check`, `produce` and `status` ask of a cluster."""

import os

import pytest

from pipeline.errors import ConfigError, TransientError
from pipeline.records.record import Partition
from pipeline.sources.client import admin, connection
from pipeline.sources.client.admin import committed_lag, create_topics, inspect_cluster
from pipeline.sources.client.producer import RecordProducer
from tests.broker import Broker, free_port, unique
from tests.integration.members import Reader, produce, source_config, texts

pytestmark = pytest.mark.kafka


def test_inspect_tells_the_facts_of_a_cluster_that_is_ready(broker: Broker) -> None:
    topic = broker.create_topic(unique("facts"), 3)
    config = source_config(broker.bootstrap_servers, topic)
    facts = inspect_cluster(config)
    assert (facts["brokers"], facts["topics"], facts["dead_letter_topic"]) == (1, {topic: 3}, "will be created")
    assert facts["version"].startswith("4.")
    broker.create_topic(config.dead_letter_topic)
    assert inspect_cluster(config)["dead_letter_topic"] == "exists, 1 partition"


def test_inspect_names_a_missing_topic_and_the_nearest_one(broker: Broker) -> None:
    topic = broker.create_topic(unique("missing"))
    config = source_config(broker.bootstrap_servers, topic[:-1] + "x")
    with pytest.raises(ConfigError, match=f"Did you mean '{topic}'"):
        inspect_cluster(config)


def test_inspect_refuses_a_compacted_dead_letter_topic(broker: Broker) -> None:
    topic = broker.create_topic(unique("compacted"))
    config = source_config(broker.bootstrap_servers, topic)
    broker.create_topic(config.dead_letter_topic, configs={"cleanup.policy": "compact"})
    with pytest.raises(ConfigError, match="compacted"):
        inspect_cluster(config)


def test_inspect_names_a_missing_codec(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "find_spec", lambda module: None if module == "zstandard" else object())
    with pytest.raises(ConfigError, match="zstd is not installed"):
        inspect_cluster(source_config(broker.bootstrap_servers, "t"))


def test_inspect_without_a_broker_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "BOOTSTRAP_TIMEOUT_MS", 300)
    with pytest.raises(TransientError):
        inspect_cluster(source_config(f"127.0.0.1:{free_port()}", "t"))


def test_topics_are_created_once_and_kept_when_they_exist(broker: Broker) -> None:
    topic = unique("created")
    config = source_config(broker.bootstrap_servers, topic)
    create_topics(config, 3)
    create_topics(config, 5)
    assert inspect_cluster(config)["topics"] == {topic: 3}


def test_lag_counts_from_the_commit_or_from_the_beginning(broker: Broker) -> None:
    topic = broker.create_topic(unique("lag"))
    config = source_config(broker.bootstrap_servers, topic)
    produce(config, topic, texts(0, 10))
    lag = committed_lag(config)[Partition(topic, 0)]
    assert (lag.committed, lag.lag) == (None, 10)
    with Reader(config) as reader:
        reader.finish(reader.read(10)[:4])
    lag = committed_lag(config)[Partition(topic, 0)]
    assert (lag.committed, lag.lag) == (4, 6)


def test_a_record_that_can_never_be_sent_is_refused_at_once(broker: Broker) -> None:
    topic = broker.create_topic(unique("refused"))
    with RecordProducer(source_config(broker.bootstrap_servers, topic)) as producer:
        with pytest.raises(ConfigError, match="cannot be sent"):
            producer.send(topic, None, None)
        with pytest.raises(ConfigError, match="cannot be sent"):
            producer.send(topic, b"k", b"x" * 20_000_000)


def test_a_delivery_that_fails_comes_out_of_the_flush(broker: Broker) -> None:
    topic = broker.create_topic(unique("undelivered"), configs={"max.message.bytes": "1000"})
    with RecordProducer(source_config(broker.bootstrap_servers, topic)) as producer:
        producer.send(topic, b"k", os.urandom(5_000))
        with pytest.raises(TransientError, match="MessageSizeTooLarge"):
            producer.flush()
