"""`refract dlq replay`: letters become records again, at the version they had, however often."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.cli.exits import ExitCode
from pipeline.cli.main import invoke
from pipeline.config.pipeline import LimitsConfig
from pipeline.config.source import SourceConfig
from pipeline.errors import ConfigError, Reason
from pipeline.records.decode import Decoders
from pipeline.records.record import DeadLetter, Delivery, Position
from pipeline.sources.client.producer import RecordProducer
from pipeline.sources.letters.dead_letters import KafkaDeadLetters
from pipeline.sources.letters.replay import Fate, Replay, Survey, Wanted
from tests.broker import Broker, unique
from tests.config_trees import CONFIGS
from tests.integration.members import Reader, produce, source_config, texts

pytestmark = pytest.mark.kafka

WRITTEN_MS = 1_700_000_000_000
Letters = Callable[..., None]


@pytest.fixture
def config(broker: Broker) -> SourceConfig:
    return source_config(broker.bootstrap_servers, broker.create_topic(unique("replay"), partitions=2))


@pytest.fixture
def write(config: SourceConfig) -> Iterator[Letters]:
    """Writes letters about records of the source topic, as (partition, offset, value) each."""
    letters = KafkaDeadLetters(config, "tickets")

    def write(*records: tuple[int, int, bytes | None], reason: Reason = Reason.INVALID_EMBEDDING, **facts: Any) -> None:
        topic = next(iter(config.topics))
        letters.send(
            [
                DeadLetter(Position(topic, partition, offset, WRITTEN_MS), reason, b"k0", value, **facts)
                for partition, offset, value in records
            ]
        )

    yield write
    letters.close()


def replay(config: SourceConfig, *, into_compacted: bool = False, **wanted: Any) -> tuple[Survey, int]:
    found = Replay(config, Decoders(config, LimitsConfig()), Wanted(**wanted), into_compacted=into_compacted)
    survey = found.survey(lambda *_: None)
    return survey, found.send(survey.chosen, lambda *_: None)


def fates(survey: Survey) -> dict[str, int]:
    return {fate: survey.total(fate) for fate in Fate if survey.total(fate)}


def read(config: SourceConfig, count: int) -> list[Delivery]:
    with Reader(config) as reader:
        return sorted(reader.read(count), key=lambda delivery: delivery.position.offset)


VALUE = texts(0, 1)[0][1]


def test_a_replayed_record_is_what_it_was_and_not_newer(config: SourceConfig, write: Letters) -> None:
    topic = next(iter(config.topics))
    with RecordProducer(config) as producer:
        for value in (VALUE, VALUE):
            producer.send(topic, b"k0", value, partition=1)
        producer.flush()
    headers = [("tenant", b"blue"), ("none", None)]
    write((1, 0, VALUE), (1, 1, None), headers=headers)
    survey, num_sent = replay(config)
    assert (fates(survey), num_sent) == ({"replay": 2}, 2)
    first, newer, again, delete = read(config, 4)
    assert first.record
    assert newer.record
    assert again.record
    assert delete.record
    assert (again.position.partition, again.position.offset) == (1, 2)
    assert again.position.timestamp_ms > WRITTEN_MS  # else the topic's retention could drop it unread
    assert again.record.text == first.record.text
    assert again.record.version == first.record.version < newer.record.version
    assert delete.record.deleted
    assert delete.record.version == newer.record.version


def test_a_record_refused_again_and_again_stays_one_record(config: SourceConfig, write: Letters) -> None:
    with RecordProducer(config) as producer:
        producer.send(next(iter(config.topics)), b"k0", VALUE, partition=0)
        producer.flush()
    write((0, 0, VALUE))
    assert replay(config)[1] == 1
    _, again = read(config, 2)
    # It was refused again: a letter of the replay, beside the first one.
    letters = KafkaDeadLetters(config, "tickets")
    letters.send([DeadLetter(again.position, Reason.INVALID_EMBEDDING, b"k0", VALUE, _headers(config))])
    letters.close()
    survey, num_sent = replay(config)
    assert (survey.num_copies, num_sent) == (1, 1)
    versions = [found.record.version for found in read(config, 3) if found.record]
    assert versions == [0, 0, 0]


def _headers(config: SourceConfig) -> list[tuple[str, bytes | None]]:
    from kafka import KafkaConsumer, TopicPartition  # noqa: PLC0415 - the raw message, which sources do not show

    consumer = KafkaConsumer(bootstrap_servers=config.bootstrap_servers, auto_offset_reset="earliest")
    place = TopicPartition(next(iter(config.topics)), 0)
    consumer.assign([place])
    message = consumer.poll(timeout_ms=10_000)[place][-1]
    consumer.close()
    return list(message.headers)


def test_what_would_be_refused_again_is_not_sent(config: SourceConfig, write: Letters) -> None:
    write((0, 1, b"{broken"), (0, 2, VALUE), reason=Reason.INVALID_JSON)
    survey, num_sent = replay(config)
    assert fates(survey) == {"replay": 1, "refused_again": 1}
    assert survey.reasons_again == {"invalid_json": 1}
    assert num_sent == 1


def test_a_shortened_letter_is_fetched_from_its_topic_while_that_holds_the_same_record(
    config: SourceConfig, write: Letters
) -> None:
    topic = next(iter(config.topics))
    long = json.dumps({"id": "k0", "text": "long " * 200_000}).encode()
    produce(config, topic, [(b"k0", long)])
    partition = read(config, 1)[0].position.partition
    write((partition, 0, long), (partition, 900, long), (1 - partition, 0, long))
    survey, num_sent = replay(config)
    assert fates(survey) == {"replay": 1, "value_lost": 2}
    assert num_sent == 1
    first, again = read(config, 2)
    assert first.record
    assert again.record
    assert again.record.text == first.record.text
    assert again.record.version == 0


def test_letters_are_chosen_by_reason_time_and_limit(config: SourceConfig, write: Letters) -> None:
    write((0, 1, VALUE), (0, 2, VALUE), (0, 3, VALUE), reason=Reason.REFUSED_BY_STORE)
    write((0, 4, VALUE))
    assert fates(replay(config, reason="refused_by_store", limit=2)[0]) == {"replay": 2, "beyond_limit": 1}
    assert fates(replay(config, until_ms=WRITTEN_MS)[0]) == {}
    assert fates(replay(config, since_ms=WRITTEN_MS)[0]) == {"replay": 4}
    assert fates(replay(config, topic="other")[0]) == {}


def test_a_compacted_topic_would_lose_a_newer_record(broker: Broker) -> None:
    topic = broker.create_topic(unique("compacted"), configs={"cleanup.policy": "compact"})
    config = source_config(broker.bootstrap_servers, topic)
    letters = KafkaDeadLetters(config, "tickets")
    letters.send([DeadLetter(Position(topic, 0, 1, WRITTEN_MS), Reason.INVALID_EMBEDDING, b"k0", VALUE)])
    letters.close()
    assert fates(replay(config)[0]) == {"compacted": 1}
    assert replay(config, into_compacted=True)[1] == 1


def test_a_topic_that_is_gone_is_told(config: SourceConfig, write: Letters) -> None:
    write((0, 1, VALUE))
    other = config.model_copy(update={"topics": {"elsewhere": next(iter(config.topics.values()))}})
    assert fates(replay(other)[0]) == {"no_topic": 1}


def test_no_dead_letter_topic_is_a_config_error(config: SourceConfig) -> None:
    with pytest.raises(ConfigError, match="dead_letter_topic"):
        replay(config)


@pytest.fixture
def config_file(config: SourceConfig, tmp_path: Path) -> Path:
    tree: dict[str, Any] = yaml.safe_load((CONFIGS / "null.yaml").read_text(encoding="utf-8"))
    tasks = next(iter(tree["source"]["topics"].values()))["tasks"]
    settings = {"key": "id", "text": "{text}", "tasks": tasks}
    tree["source"]["topics"] = {next(iter(config.topics)): settings}
    tree["source"] |= {
        "bootstrap_servers": config.bootstrap_servers,
        "group_id": config.group_id,
        "dead_letter_topic": config.dead_letter_topic,
    }
    path = tmp_path / "replay.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def test_the_verb_shows_first_and_sends_only_without_dry_run(
    config: SourceConfig, config_file: Path, write: Letters, capsys: pytest.CaptureFixture[str]
) -> None:
    write((0, 1, VALUE), (1, 1, VALUE))
    assert invoke(["dlq", "replay", str(config_file), "--dry-run", "--json"]) == ExitCode.OK
    shown = json.loads(capsys.readouterr().out)
    (row,) = shown["letters"]
    assert (row["reason"], row["replay"], shown["replayed"], shown["dry_run"]) == ("invalid_embedding", 2, 0, True)
    write((0, 2, b"{broken"))
    assert invoke(["dlq", "replay", str(config_file)]) == ExitCode.FAILED  # one is not replayed
    shown = capsys.readouterr()
    assert "replayed 2" in shown.out
    assert "invalid_json 1" in shown.err
    assert len(read(config, 2)) == 2
