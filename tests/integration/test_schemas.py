"""Avro and Protobuf on a real broker: live, as a range of a backfill, in verify, and as letters, all read the same."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.backfill.inputs import list_inputs
from pipeline.backfill.rows import FragmentReader
from pipeline.cli.exits import ExitCode
from pipeline.cli.main import invoke
from pipeline.config.load import load_config
from pipeline.errors import Reason, TransientError
from pipeline.records.record import Delivery
from pipeline.sources.letters.dead_letters import KafkaDeadLetters
from tests.broker import Broker, free_port, unique
from tests.integration.members import Reader, produce, wait_until
from tests.registry import Registry, serve_registry
from tests.unit.formats.messages import avro_record, proto_message, protobuf_record

pytestmark = pytest.mark.kafka

NUM_KEYS = 30
OLD: dict[str, Any] = {
    "type": "record",
    "name": "Ticket",
    "fields": [{"name": "id", "type": "long"}, {"name": "text", "type": "string"}],
}
NEW = {**OLD, "fields": [*OLD["fields"], {"name": "team", "type": ["null", "string"], "default": None}]}
PROTO = 'syntax = "proto3"; message Ticket { int64 id = 1; string text = 2;%s }'
KEY = {"type": "record", "name": "Key", "fields": [{"name": "id", "type": "long"}]}


def avro(registry: Registry, number: int) -> bytes | None:
    """The first half of them older than the field `team`."""
    if number < NUM_KEYS // 2:
        return avro_record(registry, json.dumps(OLD), {"id": number, "text": f"text {number}"}).value
    return avro_record(registry, json.dumps(NEW), {"id": number, "text": f"text {number}", "team": "blue"}).value


def protobuf(registry: Registry, number: int) -> bytes | None:
    if number < NUM_KEYS // 2:
        old = proto_message("Ticket", ticket=PROTO % "")
        return protobuf_record(registry, old(id=number, text=f"text {number}")).value
    new = proto_message("Ticket", ticket=PROTO % " string team = 3;")
    return protobuf_record(registry, new(id=number, text=f"text {number}", team="blue")).value


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with serve_registry() as running:
        yield running


@pytest.mark.parametrize(("encoding", "write"), [("avro", avro), ("protobuf", protobuf)])
def test_every_way_to_a_record_reads_its_schema(
    encoding: str,
    write: Callable[[Registry, int], bytes | None],
    broker: Broker,
    registry: Registry,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    topic = broker.create_topic(unique(encoding), partitions=2)
    tree: dict[str, Any] = {
        "pipeline": "schemas",
        "source": {
            "bootstrap_servers": [broker.bootstrap_servers],
            "group_id": f"group-of-{topic}",
            "schema_registry": {"url": registry.url},
            "dead_letter_topic": f"{topic}-dead",
            "topics": {
                topic: {
                    "key": "id",
                    "key_type": "integer",
                    "text": "{text}",
                    "payload": ["team"],
                    "generation": 1,
                    "format": encoding,
                    "kafka_key": "avro",
                    "tasks": ["one"],
                }
            },
        },
        "models": {"hash": {"model": "null:8"}},
        "tasks": {"one": {"model": "hash"}},
        "store": {"type": "edge", "path": str(tmp_path / "store")},
        "api": {"port": free_port()},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    config = load_config(path)
    unknown = b"\x00\x7f\xff\xff\xff" + b"\x00\x02"
    records = [(keyed(registry, number), write(registry, number)) for number in range(NUM_KEYS)]
    records += [(keyed(registry, 3), None), (None, unknown), (None, b'{"id":1}')]
    produce(config.source, topic, records)

    with Reader(config.source) as reader:
        registry.away = (503, {})
        with pytest.raises(TransientError, match="schema registry"):
            wait_until(lambda: reader.source.poll(0.05))
        assert reader.tracker.unfinished() == {}
        registry.away = None
        deliveries: list[Delivery] = []

        def all_there() -> bool:
            try:
                deliveries.extend(reader.source.poll(0.05))
            except TransientError:  # it rests a moment after an outage
                return False
            return len(deliveries) >= len(records)

        wait_until(all_there)
        reader.finish(deliveries)
        reader.commit()
        with closing(KafkaDeadLetters(config.source, "schemas")) as letters:
            letters.send([each.dead_letter(each.error, each.detail) for each in deliveries if each.error is not None])
    live = {outcome(each) for each in deliveries}
    assert len(live) == len(deliveries) == len(records)
    assert {each.error for each in deliveries} == {None, Reason.UNKNOWN_SCHEMA, Reason.WRONG_FORMAT}
    assert {each.record.payload.get("team") for each in deliveries if each.record} == {None, "blue"}

    reader_of_ranges = FragmentReader(config, topic)
    ranges = list_inputs([f"kafka://{topic}"], config).fragments
    assert {outcome(each) for part in ranges for each in reader_of_ranges.deliveries(part)} == live

    assert invoke(["repair", str(path)]) == ExitCode.OK
    capfd.readouterr()
    assert invoke(["verify", str(path), "--json", "--wait", "0", "--sample", "all"]) == ExitCode.OK
    report = json.loads(capfd.readouterr().out)
    assert (report["equal"], report["dead_letters"]) == (True, {"unknown_schema": 1, "wrong_format": 1})
    assert report["tasks"]["one"]["tombstones"] == 1

    assert invoke(["dlq", "list", str(path), "--json", "--values"]) == ExitCode.OK
    listed = json.loads(capfd.readouterr().out)
    assert {(each["reason"], each["value"]) for each in listed} == {
        ("unknown_schema", f"hex:{unknown.hex()}"),
        ("wrong_format", '{"id":1}'),
    }
    assert invoke(["dlq", "replay", str(path), "--dry-run", "--json"]) == ExitCode.FAILED
    replayed = capfd.readouterr()
    assert replayed.out, replayed.err
    assert json.loads(replayed.out)["refused_again"] == {"unknown_schema": 1, "wrong_format": 1}


def keyed(registry: Registry, number: int) -> bytes | None:
    return avro_record(registry, json.dumps(KEY), {"id": number}, key=True).key


def outcome(delivery: Delivery) -> tuple[Any, ...]:
    found = delivery.record
    return (
        delivery.position.partition,
        delivery.position.offset,
        delivery.error,
        found and (found.key, found.version, found.text, json.dumps(found.payload, sort_keys=True)),
    )
