"""`refract rewind`: a stopped group's offsets go back, never forward, and keep what the group wrote beside them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.cli.exits import ExitCode
from pipeline.cli.main import invoke
from pipeline.config.source import SourceConfig
from pipeline.errors import ConfigError
from pipeline.records.record import Partition
from pipeline.sources.client.producer import RecordProducer
from pipeline.sources.group.rewinding import plan_rewind, rewind
from tests.broker import Broker, unique
from tests.config_trees import CONFIGS
from tests.integration.members import Reader, positions, produce, source_config, texts

pytestmark = pytest.mark.kafka

EARLY_MS, LATE_MS = 1_700_000_000_000, 1_700_000_100_000


@pytest.fixture
def read_group(broker: Broker) -> SourceConfig:
    """A group that has read and committed ten records, five of them early and five late."""
    topic = broker.create_topic(unique("rewind"))
    config = source_config(broker.bootstrap_servers, topic)
    with RecordProducer(config) as producer:
        for number, (key, value) in enumerate(texts(0, 10)):
            producer._producer.send(topic, value, key, timestamp_ms=EARLY_MS if number < 5 else LATE_MS)
        producer.flush()
    with Reader(config) as reader:
        reader.finish(reader.read(10))
    return config


def topic_of(config: SourceConfig) -> str:
    return next(iter(config.topics))


@pytest.mark.parametrize(("since_ms", "first"), [(None, 0), (EARLY_MS, 0), (LATE_MS, 5), (EARLY_MS + 1, 5)])
def test_records_from_a_time_on_are_read_again(read_group: SourceConfig, since_ms: int | None, first: int) -> None:
    moves = plan_rewind(read_group, [topic_of(read_group)], since_ms)
    assert [(move.committed, move.target) for move in moves.values()] == [(10, first)]
    rewind(read_group, moves)
    with Reader(read_group) as reader:
        assert positions(reader.read(10 - first)) == [(0, offset) for offset in range(first, 10)]


def test_what_the_group_remembers_of_the_topic_stays(read_group: SourceConfig) -> None:
    """Else a recreated topic would be read as if it were the old one."""
    before = plan_rewind(read_group, [topic_of(read_group)], None)
    rewind(read_group, before)
    (after,) = plan_rewind(read_group, [topic_of(read_group)], None).values()
    assert after.committed == 0
    assert after.metadata == next(iter(before.values())).metadata != ""


def test_offsets_never_move_forward(read_group: SourceConfig) -> None:
    rewind(read_group, plan_rewind(read_group, [topic_of(read_group)], None))
    (move,) = plan_rewind(read_group, [topic_of(read_group)], LATE_MS).values()
    assert (move.committed, move.target, move.num_offsets) == (0, 0, 0)


def test_a_time_after_the_last_record_moves_nothing(read_group: SourceConfig) -> None:
    (move,) = plan_rewind(read_group, [topic_of(read_group)], LATE_MS + 1).values()
    assert move.num_offsets == 0


def test_a_partition_that_was_never_committed_is_left_out(broker: Broker) -> None:
    topic = broker.create_topic(unique("unread"))
    config = source_config(broker.bootstrap_servers, topic)
    produce(config, topic, texts(0, 3))
    assert plan_rewind(config, [topic], None) == {}


def test_a_group_at_work_is_refused(read_group: SourceConfig) -> None:
    moves = plan_rewind(read_group, [topic_of(read_group)], None)
    with Reader(read_group) as reader:
        reader.poll_for(1.0)
        assert reader.source.joined()
        with pytest.raises(ConfigError, match="has 1 members; stop the pipeline first"):
            rewind(read_group, moves)
    (move,) = plan_rewind(read_group, [topic_of(read_group)], None).values()
    assert move.committed == 10


@pytest.fixture
def config_file(read_group: SourceConfig, tmp_path: Path) -> Path:
    tree: dict[str, Any] = yaml.safe_load((CONFIGS / "null.yaml").read_text(encoding="utf-8"))
    settings = next(iter(tree["source"]["topics"].values()))
    tree["source"]["topics"] = {topic_of(read_group): settings}
    tree["source"] |= {"bootstrap_servers": read_group.bootstrap_servers, "group_id": read_group.group_id}
    path = tmp_path / "rewind.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


@pytest.mark.parametrize("execute", [False, True])
def test_the_verb_shows_the_price_and_changes_nothing_until_told(
    config_file: Path, read_group: SourceConfig, capsys: pytest.CaptureFixture[str], *, execute: bool
) -> None:
    arguments = ["rewind", str(config_file), "--to", "earliest", "--json", *(["--execute"] if execute else [])]
    assert invoke(arguments) == ExitCode.OK
    answer = json.loads(capsys.readouterr().out)
    assert [(row["committed"], row["target"], row["records"]) for row in answer["partitions"]] == [(10, 0, 10)]
    assert answer["embeddings"] == 20  # two tasks
    assert answer["executed"] is execute
    place = Partition(topic_of(read_group), 0)
    assert plan_rewind(read_group, [place.topic], None)[place].committed == (0 if execute else 10)


def test_the_plan_says_what_stands_in_the_way_and_where_the_time_is_told(
    config_file: Path, read_group: SourceConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    with Reader(read_group) as reader:
        reader.poll_for(1.0)
        assert invoke(["rewind", str(config_file), "--to", "earliest"]) == ExitCode.OK
        shown = capsys.readouterr().err
        assert "once the group's 1 members are stopped" in shown
        assert f"refract plan {config_file} 'kafka://{topic_of(read_group)}?from=earliest'" in shown
        assert invoke(["rewind", str(config_file), "--to", "earliest", "--execute"]) == ExitCode.CONFIG


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "earlyest"], "Did you mean 'earliest'"),
        (["--to", "2026-13-01"], "neither earliest nor a time"),
        (["--to", "earliest", "--topic", "tickts"], "this file has no source topic 'tickts'. Did you mean 'tickets'?"),
    ],
)
def test_what_is_mistyped_is_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["rewind", str(CONFIGS / "null.yaml"), *arguments]) == ExitCode.CONFIG
    assert message in capsys.readouterr().err
