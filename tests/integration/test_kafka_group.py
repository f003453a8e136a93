"""Several members: partitions move without a gap, and who has lost one commits nothing for it."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.source import SourceConfig
from pipeline.errors import EnvironmentFault
from pipeline.records.record import Partition
from pipeline.sources.group import member as consumer_module
from tests.broker import Broker, unique
from tests.integration.members import Member, Reader, positions, produce, source_config, texts, wait_until

pytestmark = pytest.mark.kafka


@pytest.fixture(autouse=True)
def _fresh_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer_module, "METADATA_MAX_AGE_MS", 300)


def everything(*members: Member) -> set[tuple[int, int]]:
    return {position for member in members for position in positions(member.deliveries)}


def test_members_share_partitions_and_nothing_is_missed_while_they_come_and_go(broker: Broker) -> None:
    topic = broker.create_topic(unique("share"), 4)
    config = source_config(broker.bootstrap_servers, topic)
    produce(config, topic, texts(0, 400))
    with Member(config, 0) as first:
        wait_until(lambda: len(first.deliveries) >= 400)
        with Member(config, 1) as second:
            wait_until(lambda: len(first.held) == len(second.held) == 2)
            produce(config, topic, texts(400, 800))
            wait_until(lambda: len(everything(first, second)) == 800)
            assert second.deliveries
        produce(config, topic, texts(800, 1_000))
        wait_until(lambda: len(everything(first, second)) == 1_000)
        wait_until(lambda: sum(broker.committed(config.group_id).values()) == 1_000)
    # Every member commits what it has finished before it lets go, so an orderly move repeats nothing.
    assert len(first.deliveries) + len(second.deliveries) == 1_000
    assert (first.failure, second.failure) == (None, None)


def test_a_revoked_partition_is_committed_up_to_what_was_finished_and_no_further(broker: Broker) -> None:
    topic = broker.create_topic(unique("revoke"), 2)
    config = source_config(broker.bootstrap_servers, topic)
    produce(config, topic, texts(0, 200))
    with Reader(config) as first:
        deliveries = first.read(200)
        for number in (0, 1):
            first.finish([delivery for delivery in deliveries if delivery.position.partition == number][:10])
        with Member(config, 1, hold=lambda _: True) as second:
            wait_until(lambda: first.source.poll(0.05) is not None and len(second.held) == 1)
            (moved,) = second.held
            wait_until(lambda: any(delivery.position.partition == moved.number for delivery in second.deliveries))
            assert broker.committed(config.group_id)[topic, moved.number] == 10
            assert positions(second.deliveries)[0] == (moved.number, 10)
            # What finishes after the revocation belongs to somebody else: it is heard, and ignored.
            late = [delivery for delivery in deliveries if delivery.position.partition == moved.number]
            first.finish(late)
            first.commit()
            assert not any(first.tracker.is_current(delivery.receipt) for delivery in late)
            assert broker.committed(config.group_id)[topic, moved.number] == 10


def test_a_partition_that_comes_back_starts_at_its_commit_with_a_new_epoch(broker: Broker) -> None:
    topic = broker.create_topic(unique("back"), 2)
    config = source_config(broker.bootstrap_servers, topic)
    produce(config, topic, texts(0, 200))
    with Reader(config) as first:
        deliveries = first.read(200)
        with Member(config, 1, hold=lambda _: True) as second:
            wait_until(lambda: first.source.poll(0.05) is not None and len(second.held) == 1)
            (moved,) = second.held
        again = first.read(sum(delivery.position.partition == moved.number for delivery in deliveries))
        assert {partition for partition, _ in positions(again)} == {moved.number}
        assert positions(again)[0][1] == 0
        first.finish([delivery for delivery in deliveries if delivery.position.partition == moved.number])
        first.commit()
        assert broker.committed(config.group_id)[topic, moved.number] == 0
        first.finish(again)
        first.commit()
        assert broker.committed(config.group_id)[topic, moved.number] == len(again)


def test_added_partitions_are_read_from_their_beginning_even_when_the_group_started_at_the_end(broker: Broker) -> None:
    topic = broker.create_topic(unique("added"), 1)
    config = source_config(
        broker.bootstrap_servers, topic, start_from="latest", topic_changes={"version": "v", "text": "{id}"}
    )
    with Member(config, 0) as first, Member(config, 1) as second:
        wait_until(lambda: len(first.held | second.held) == 1)
        admin = broker.admin()
        admin.create_partitions({topic: 3})
        admin.close()
        produce(config, topic, [(b"k%d" % i, b'{"id": "k%d", "v": 1}' % i) for i in range(60)])
        wait_until(lambda: len(everything(first, second)) == 60)
        assert first.held | second.held == {Partition(topic, number) for number in range(3)}


def test_a_join_that_outlasts_a_poll_is_seen_through(broker: Broker) -> None:
    """Polls of a millisecond end between the two steps of a join, which is when the client forgets it."""
    topic = broker.create_topic(unique("join"), 1)
    config = source_config(broker.bootstrap_servers, topic, topic_changes={"version": "v", "text": "{id}"})
    with Reader(config) as reader:
        reader.poll_for(0.5)
        admin = broker.admin()
        admin.create_partitions({topic: 3})
        admin.close()

        def all_held() -> bool:
            reader.source.poll(0.001)
            return len(reader.tracker.held()) == 3

        wait_until(all_held, 10)


def test_a_paused_source_stays_in_the_group_and_new_partitions_start_paused(broker: Broker) -> None:
    topic = broker.create_topic(unique("paused"), 2)
    config = source_config(broker.bootstrap_servers, topic)
    produce(config, topic, texts(0, 50))
    with Reader(config) as reader:
        reader.source.set_paused(paused=True)
        assert reader.poll_for(2.0 + config.session_timeout_ms / 1000) == []
        assert len(reader.tracker.held()) == 2
        reader.source.set_paused(paused=False)
        deliveries = reader.read(50)
        assert len(set(positions(deliveries))) == 50
        reader.source.set_paused(paused=True)
        produce(config, topic, texts(50, 60))
        assert reader.poll_for(0.5) == []
        reader.source.set_paused(paused=False)
        assert len(reader.read(10)) == 10


def test_an_idle_source_costs_hardly_any_cpu(broker: Broker) -> None:
    topic = broker.create_topic(unique("idle"), 4)
    with Reader(source_config(broker.bootstrap_servers, topic)) as reader:
        reader.poll_for(1.0)
        before, until = time.process_time(), time.monotonic() + 3.0
        while time.monotonic() < until:
            reader.source.poll(0.2)
            reader.source.commit()
        assert (time.process_time() - before) / 3.0 < 0.1


def test_a_static_member_that_restarts_gets_its_partitions_back_without_a_rebalance(broker: Broker) -> None:
    topic = broker.create_topic(unique("static"), 4)
    config = source_config(broker.bootstrap_servers, topic, group_instance_id="ingestor")
    produce(config, topic, texts(0, 40))
    with Member(config, 0) as other:
        with Member(config, 1) as restarted:
            wait_until(lambda: len(other.held) == len(restarted.held) == 2)
            held = restarted.held
        with Member(config, 1) as restarted:
            wait_until(lambda: len(restarted.held) == 2)
            assert restarted.held == held
            assert len(other.held) == 2


def test_a_second_member_with_the_same_instance_id_stops_the_first_one_loudly(broker: Broker) -> None:
    topic = broker.create_topic(unique("fenced"), 1)
    config = source_config(broker.bootstrap_servers, topic, group_instance_id="ingestor")
    with Member(config, 0) as first:
        wait_until(lambda: len(first.held) == 1)
        with Member(config, 0) as second:
            wait_until(lambda: len(second.held) == 1)
            produce(config, topic, texts(0, 5))
            wait_until(lambda: first.failure is not None)
    assert isinstance(first.failure, EnvironmentFault)
    assert "group_instance_id" in str(first.failure)


def test_an_idle_member_whose_instance_id_is_taken_stops_loudly_too(broker: Broker) -> None:
    topic = broker.create_topic(unique("fenced-idle"), 1)
    config = source_config(broker.bootstrap_servers, topic, group_instance_id="ingestor")
    with Member(config, 0) as first:
        wait_until(lambda: len(first.held) == 1)
        with Member(config, 0) as second:
            wait_until(lambda: first.failure is not None)
            assert second.failure is None
    assert isinstance(first.failure, EnvironmentFault)
    assert "group_instance_id" in str(first.failure)


@pytest.fixture
def stalled(broker: Broker, tmp_path: Path) -> Iterator[tuple[SourceConfig, Path, Any]]:
    """A member in a process of its own that holds both partitions of a topic."""
    topic = broker.create_topic(unique("stalled"), 2)
    config = source_config(broker.bootstrap_servers, topic, client_id="stalled-7")
    settings, journal = tmp_path / "config.json", tmp_path / "journal.jsonl"
    settings.write_text(config.model_dump_json())
    journal.touch()
    command = [sys.executable, "-m", "tests.integration.members", str(settings), str(journal)]
    process = subprocess.Popen(command, cwd=Path(__file__).parent.parent.parent)  # noqa: S603 - our own module
    yield config, journal, process
    process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait()


def last_held(journal: Path) -> list[int]:
    lines = journal.read_text().splitlines()
    return list(json.loads(lines[-1])["held"]) if lines else []


def test_a_member_that_sleeps_through_its_session_loses_its_partitions_and_commits_no_more_for_them(
    broker: Broker, stalled: tuple[SourceConfig, Path, Any]
) -> None:
    config, journal, process = stalled
    (topic,) = config.topics
    wait_until(lambda: last_held(journal) == [0, 1])
    produce(config, topic, texts(0, 20))
    wait_until(lambda: sum(broker.committed(config.group_id).values()) == 20)
    process.send_signal(signal.SIGSTOP)
    produce(config, topic, texts(20, 60))
    with Member(config, 1) as survivor:
        wait_until(lambda: len(survivor.held) == 2)
        wait_until(lambda: sum(broker.committed(config.group_id).values()) == 60)
        assert len(survivor.deliveries) == 40
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: len(survivor.held) == 1 and len(last_held(journal)) == 1)
        assert sum(broker.committed(config.group_id).values()) == 60
        produce(config, topic, texts(60, 80))
        wait_until(lambda: sum(broker.committed(config.group_id).values()) == 80)
