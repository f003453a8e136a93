"""Topics that are not what they were, and transactions that come to nothing: rows 17 to 20."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest
from kafka import KafkaProducer, OffsetAndMetadata, TopicPartition

from tests.e2e.harness import NUM_PARTITIONS, wait_until
from tests.e2e.oracle import VERSION_0
from tests.faults.harness import Rig
from tests.faults.results import fault_run

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

METADATA_AGE_S = 30.0
"""How late a member may notice that a topic has changed."""


@contextmanager
def admin(rig: Rig) -> Iterator[Any]:
    client = rig.ground.broker.admin()
    try:
        yield client
    finally:
        client.close()


def run_to_the_end(rig: Rig) -> None:
    """Runs a member until everything is finished, and lets it go in order."""
    with rig.worker() as member:
        rig.wait_finished()
        assert member.terminate() == 0, member.output()


def refusal(rig: Rig) -> str:
    """Runs a member that must refuse to read; returns what it says."""
    with rig.worker() as member:
        assert member.wait() == 1, member.output()
        return member.output()


def send_events(rig: Rig, count: int, message: str) -> None:
    for number in range(count):
        rig.journal.event(f"E-{number}", f"{message} {number}")
    rig.journal.settle()


def test_retention_removes_unread_records(rig: Rig) -> None:
    journal = rig.journal
    with fault_run(17) as run:
        rig.send(200)
        run_to_the_end(rig)
        rig.compare(run)
        committed = dict(rig.committed() or {})
        rig.send(200)
        kept = {place: end - 10 for place, end in journal.ends.items()}
        with admin(rig) as client:
            client.delete_records({TopicPartition(*place): offset for place, offset in kept.items()})
        told = refusal(rig)
        removed = [place for place, offset in kept.items() if committed[place] < offset]
        assert removed
        assert "at offset" in told
        assert "the oldest kept is" in told
        assert rig.committed() == committed, "nothing was passed over"
        rig.compare_without(run, lambda record: record.offset >= committed[record.topic, record.partition])

        # Said out loud, and gone from the topic for good; the rest is read once a person has moved the offsets. They
        # move forward, which `refract rewind` never does: that takes Kafka's own tool.
        offsets = {TopicPartition(*place): OffsetAndMetadata(offset, "", -1) for place, offset in kept.items()}
        with admin(rig) as client:
            client.alter_group_offsets(rig.config.source.group_id, offsets)
        rig.forget(
            lambda record: (
                committed[record.topic, record.partition] <= record.offset < kept[record.topic, record.partition]
            )
        )
        run.healed()
        with rig.worker():
            rig.wait_progress(run)
            rig.check(run)


def test_topic_is_recreated(rig: Rig) -> None:
    journal = rig.journal
    with fault_run(18) as run:
        send_events(rig, 60, "before")
        run_to_the_end(rig)
        rig.compare(run)
        with admin(rig) as client:
            client.delete_topics([journal.events])
            wait_until(lambda: journal.events not in client.list_topics(), "the topic is gone")
            topic = {"num_partitions": NUM_PARTITIONS, "replication_factor": 1}
            client.create_topics({journal.events: topic}, wait_for_metadata=True)
        told = refusal(rig)
        assert "generation to 1" in told
        rig.compare(run)

        journal.ends = {place: end for place, end in journal.ends.items() if place[0] != journal.events}
        rig.reconfigure(**{f"source__topics__{journal.events}__generation": 1})
        send_events(rig, 40, "after")  # lower offsets than before, and yet newer
        with rig.worker():
            rig.check(run)


def test_partitions_are_added(rig: Rig) -> None:
    with fault_run(19) as run, rig.worker() as member:
        member.wait_ready()
        keys = rig.send(200)
        rig.wait_finished()
        with admin(rig) as client:
            client.create_partitions({rig.journal.tickets: 2 * NUM_PARTITIONS})
        time.sleep(6)  # the journal's producer hears of them
        run.healed()
        for key in keys:
            rig.journal.ticket(key, 2)  # half of the keys move to another partition, before the member knows it
        rig.send(200)
        assert len({place for place in rig.journal.ends if place[0] == rig.journal.tickets}) == 2 * NUM_PARTITIONS
        wait_until(lambda: len(member.held) == 3 * NUM_PARTITIONS, "the new partitions are read")
        rig.wait_finished()
        run.recovered()
        run.within(METADATA_AGE_S + 10)
        rig.check(run)


def test_partitions_are_added_where_offsets_are_versions(rig: Rig) -> None:
    with fault_run(19, seed=1) as run, rig.worker() as member:
        member.wait_ready()
        send_events(rig, 60, "one")
        rig.wait_finished()
        with admin(rig) as client:
            client.create_partitions({rig.journal.events: 2 * NUM_PARTITIONS})
        assert member.wait() == 1, member.output()
        assert f"has {2 * NUM_PARTITIONS} partitions instead of {NUM_PARTITIONS}" in member.output()
        rig.compare(run)
        rig.reconfigure(**{f"source__topics__{rig.journal.events}__generation": 1})
        time.sleep(6)
        send_events(rig, 60, "two")
        with rig.worker():
            rig.check(run)


def send_ghosts(rig: Rig, producer: Any) -> None:
    """Puts a record into each partition that nobody must ever see."""
    for partition in range(NUM_PARTITIONS):
        ghost = {"id": f"ghost-{partition}", "title": "t", "body": "b", "updated_at": VERSION_0, "status": "open"}
        producer.send(rig.journal.tickets, key=b"ghost", value=orjson.dumps(ghost), partition=partition)
    producer.flush()


def test_aborted_and_open_transactions(rig: Rig) -> None:
    servers = rig.ground.broker.bootstrap_servers
    producer: Any = KafkaProducer(bootstrap_servers=servers, transactional_id=f"{rig.config.pipeline}-ghosts")
    try:
        producer.init_transactions()
        with fault_run(20) as run, rig.worker() as member:
            member.wait_ready()
            rig.send(100)
            producer.begin_transaction()
            send_ghosts(rig, producer)
            producer.abort_transaction()
            rig.send(100)
            rig.check(run)

            num_ended = 200 + 2 * NUM_PARTITIONS  # records, and of each partition a ghost and its transaction's marker
            wait_until(lambda: rig.num_committed() == num_ended, "the markers of the aborted one are behind the group")
            producer.begin_transaction()
            send_ghosts(rig, producer)
            before = rig.num_committed()
            rig.send(100)
            wait_until(lambda: member.state()["lag"] >= 100, "the lag shows what an open transaction holds back")
            time.sleep(2)
            assert rig.num_committed() == before, "nothing behind an open transaction is read"
            producer.abort_transaction()
            run.healed()
            rig.wait_progress(run)
            rig.check(run)
    finally:
        producer.close(timeout=2)
