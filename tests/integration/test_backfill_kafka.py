"""Ranges of a topic as the input of a backfill: bounded by offset or time, and read as the live pipeline reads them."""

from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from kafka import KafkaProducer

from pipeline.backfill import kafka_ranges
from pipeline.backfill.inputs import list_inputs
from pipeline.backfill.rows import FragmentReader
from pipeline.config.load import load_config
from pipeline.config.pipeline import Config
from pipeline.errors import ConfigError
from pipeline.records.record import Delivery, offset_version
from tests.broker import Broker, unique

pytestmark = pytest.mark.kafka

NUM_RECORDS = 500
DAY_MS = 86_400_000
FIRST_MS = 1_767_225_600_000
"""2026-01-01T00:00:00Z; a record a day and partition."""


@pytest.fixture(scope="module")
def config(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Config:
    topic = broker.create_topic(unique("ranges"), partitions=2)
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers)
    for number in range(NUM_RECORDS):
        value = orjson.dumps({"text": f"text {number}"}) if number != 3 else b"{broken"
        producer.send(topic, key=b"K-%d" % number, value=value, partition=number % 2, timestamp_ms=_time(number // 2))
    producer.flush()
    producer.close()
    tree: dict[str, Any] = {
        "pipeline": "ranges",
        "source": {
            "bootstrap_servers": [broker.bootstrap_servers],
            "group_id": topic,
            "dead_letter_topic": f"{topic}-dead",
            "topics": {topic: {"text": "{text}", "generation": 1, "tasks": ["one"]}},
        },
        "models": {"null": {"model": "null:8"}},
        "tasks": {"one": {"model": "null"}},
        "store": {"type": "edge", "path": "store"},
    }
    path: Path = tmp_path_factory.mktemp("ranges") / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return load_config(path)


def _time(offset: int) -> int:
    return FIRST_MS + offset * DAY_MS


def read(config: Config, query: str) -> list[Delivery]:
    [topic] = config.source.topics
    return [
        delivery
        for fragment in list_inputs([f"kafka://{topic}{query}"], config).fragments
        for batch in FragmentReader(config, topic).batches(fragment)
        for delivery in batch
    ]


def offsets(deliveries: list[Delivery]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for delivery in deliveries:
        found.setdefault(delivery.position.partition, []).append(delivery.position.offset)
    return found


@pytest.mark.parametrize(
    ("query", "begin", "end"),
    [
        ("", 0, 250),
        ("?from=earliest&to=latest", 0, 250),
        ("?from=100", 100, 250),
        ("?from=100&to=120", 100, 120),
        ("?from=240&to=9000", 240, 250),
        ("?from=2026-01-11", 10, 250),
        ("?from=2026-01-11T00:00:01Z&to=2026-01-21", 11, 20),
        ("?from=2026-01-11T02:00:00%2B02:00&to=2026-01-12", 10, 11),
        ("?to=2050-01-01", 0, 250),
    ],
)
def test_a_range_holds_what_its_bounds_say(query: str, begin: int, end: int, config: Config) -> None:
    assert offsets(read(config, query)) == {partition: list(range(begin, end)) for partition in (0, 1)}


def test_records_are_those_of_the_live_pipeline(config: Config) -> None:
    found = {(d.position.partition, d.position.offset): d for d in read(config, "?from=0&to=3")}
    assert found[1, 1].error == "invalid_json"
    record = found[0, 2].record
    assert record is not None
    assert (record.key, record.text, record.version) == ("s:K-4", "text 4", offset_version(1, 2))
    assert str(record.payload["_source"]).endswith(":0:2")


def test_fragments_begin_alike_when_the_topic_has_grown(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_ranges, "RANGE_OFFSETS", 100)
    [topic] = config.source.topics
    shorter = list_inputs([f"kafka://{topic}?from=50&to=230"], config).fragments
    longer = list_inputs([f"kafka://{topic}?from=50"], config).fragments
    assert [(fragment.part, fragment.begin, fragment.size) for fragment in shorter] == [
        (partition, begin, size) for partition in (0, 1) for begin, size in ((50, 50), (100, 100), (200, 30))
    ]
    shared = {fragment.name for fragment in shorter} & {fragment.name for fragment in longer}
    assert len(shared) == 4
    begins = [batch[0].position.offset for batch in FragmentReader(config, topic).batches(shorter[1], 150)]
    assert begins == [150]


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("kafka://nothing", "no source topic"),
        ("kafka://{topic}?since=3", "'since' is neither `from` nor `to`"),
        ("kafka://{topic}?from=yesterday", "from='yesterday': expected an offset"),
    ],
)
def test_addresses_that_say_nothing_are_refused(uri: str, message: str, config: Config) -> None:
    [topic] = config.source.topics
    with pytest.raises(ConfigError, match=message):
        list_inputs([uri.format(topic=topic)], config)
