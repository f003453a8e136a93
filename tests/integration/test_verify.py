"""`refract verify` and `refract repair` on a real broker: what is broken by hand is found, mended, and equal again."""

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import qdrant_edge as edge
import yaml

from pipeline.binding import Task
from pipeline.cli.exits import ExitCode
from pipeline.cli.main import invoke
from pipeline.context import Context
from pipeline.records.batches import PointBatch
from pipeline.records.record import point_id
from pipeline.sources.letters.letter_reader import read_dead_letters
from pipeline.stores.edge import EdgeStore
from tests.broker import Broker, free_port, unique
from tests.integration.members import Reader, produce

pytestmark = pytest.mark.kafka

PIPELINE = "verified"
NUM_KEYS = 200
DIMENSION = 64


class Pipeline:
    """A topic that was read to its end, and the store that `repair` fills from it."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        topic = broker.create_topic(unique("verify"), partitions=3)
        tree: dict[str, Any] = {
            "pipeline": PIPELINE,
            "source": {
                "bootstrap_servers": [broker.bootstrap_servers],
                "group_id": f"group-of-{topic}",
                "dead_letter_topic": f"{topic}-dead",
                "topics": {
                    topic: {"key": "id", "text": "{text}", "version": "at", "tasks": ["urgency", "topic"]},
                },
            },
            "models": {"hash": {"model": f"null:{DIMENSION}"}},
            "tasks": {"urgency": {"model": "hash", "instruction": "a"}, "topic": {"model": "hash", "instruction": "b"}},
            "store": {"type": "edge", "path": str(folder / "store")},
            "api": {"port": free_port()},
        }
        self.path = folder / "config.yaml"
        self.path.write_text(yaml.safe_dump(tree))
        self.context = Context.open(self.path)
        self.config = self.context.config
        self.topic = topic

    def send(self, records: list[tuple[bytes | None, bytes | None]], *, commit: bool = True) -> None:
        produce(self.config.source, self.topic, records)
        if commit:
            with Reader(self.config.source) as reader:
                reader.finish(reader.read(len(records)))
                reader.commit()

    def tasks(self) -> dict[str, Task]:
        return self.context.tasks

    def store(self) -> EdgeStore:
        assert self.config.store.type == "edge"
        store = EdgeStore(self.config.store, PIPELINE)
        store.open(self.tasks().values())
        return store


def line(number: int, version: int, text: str | None = None) -> tuple[bytes, bytes]:
    value = {"id": f"k{number}", "at": version, "text": text or f"text {number} in version {version}"}
    return f"k{number}".encode(), json.dumps(value).encode()


def ids(made: Pipeline, *numbers: int) -> list[bytes]:
    return [point_id(PIPELINE, made.topic, f"s:k{number}") for number in numbers]


@pytest.fixture
def pipeline(tmp_path: Path, broker: Broker, capfd: pytest.CaptureFixture[str]) -> Pipeline:
    """Two versions of every key and a bad record; the store filled by a repair, which misses everything."""
    made = Pipeline(tmp_path, broker)
    records: list[tuple[bytes | None, bytes | None]] = [line(n, 1) for n in range(NUM_KEYS)]
    made.send([*records, *(line(n, 2) for n in range(NUM_KEYS)), (b"bad", b"{")])
    assert invoke(["repair", str(made.path), "--sample", "0"]) == ExitCode.OK
    capfd.readouterr()
    return made


def verify(made: Pipeline, capfd: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, Any]]:
    code = invoke(["verify", str(made.path), "--json", "--wait", "0", *options])
    out = capfd.readouterr()
    return code, json.loads(out.out) if out.out else {"error": out.err}


def broken(made: Pipeline) -> None:
    """Ten points deleted, ten stale, ten extra, five with another task's vectors, five with damaged ones."""
    tasks = made.tasks()
    urgency, topic = tasks["urgency"], tasks["topic"]
    store = made.store()
    try:
        shard = store._shard(urgency.collection)._shard
        shard.update(edge.UpdateOperation.delete_points([UUID(bytes=raw) for raw in ids(made, *range(10))]))
        foreign = store.retrieve(topic.collection, ids(made, *range(20, 25)), with_vectors=True)
        damaged = store.retrieve(urgency.collection, ids(made, *range(25, 30)), with_vectors=True)
        old = store.retrieve(urgency.collection, ids(made, *range(10, 20)), with_vectors=True)
        points = [
            edge.Point(UUID(bytes=point.id), np.asarray(rows, np.float32).tolist(), dict(payload))
            for found, change, version in ((foreign, 1, 2), (damaged, -1, 2), (old, 1, 1))
            for point in found
            if point.vector is not None
            for rows in [np.concatenate([point.vector[:32], point.vector[32:] * change])]
            for payload in [{**point.payload, "_version": version, "_state": "live"}]
        ]
        shard.update(edge.UpdateOperation.upsert_points(points))
        raw = np.arange(160, dtype=np.uint8).reshape(10, 16)
        rows = np.ones((10, DIMENSION), np.float32)
        store.upsert(
            PointBatch(raw, np.full(10, 3), np.zeros(10, np.bool_), [{} for _ in raw], {urgency.collection: rows})
        )
    finally:
        store.close()


def faults(report: dict[str, Any], task: str = "urgency") -> dict[str, int]:
    kinds = ("missing", "stale", "extra", "wrong_state", "tombstone_missing", "wrong_vector", "pending")
    return {kind: report["tasks"][task][kind] for kind in kinds if report["tasks"][task][kind]}


def test_what_is_broken_is_found_and_mended(pipeline: Pipeline, capfd: pytest.CaptureFixture[str]) -> None:
    code, report = verify(pipeline, capfd, "--sample", "all")
    assert (code, report["equal"], report["dead_letters"]) == (ExitCode.OK, True, {"invalid_json": 1})
    assert report["dead_letters_missing"] == 0
    assert report["tasks"]["urgency"]["vectors_checked"] == NUM_KEYS

    broken(pipeline)
    code, report = verify(pipeline, capfd, "--sample", "all", "--limit", "3")
    assert code == ExitCode.FAILED
    assert faults(report) == {"missing": 10, "stale": 10, "extra": 10, "wrong_vector": 10}
    assert faults(report, "topic") == {}
    assert len(report["tasks"]["urgency"]["examples"]) == 12

    assert invoke(["repair", str(pipeline.path), "--sample", "all"]) == ExitCode.FAILED
    capfd.readouterr()
    code, report = verify(pipeline, capfd, "--sample", "all")
    assert faults(report) == {"extra": 10}

    assert invoke(["repair", str(pipeline.path), "--sample", "all", "--delete-extras", "--yes"]) == ExitCode.OK
    capfd.readouterr()
    code, report = verify(pipeline, capfd, "--sample", "all")
    assert (code, report["equal"]) == (ExitCode.OK, True)


def test_a_bad_record_that_is_in_no_dead_letter_is_lost_until_repair_writes_it(
    pipeline: Pipeline, capfd: pytest.CaptureFixture[str]
) -> None:
    pipeline.send([(b"worse", b"[")])
    capfd.readouterr()  # the reader's own log
    code, report = verify(pipeline, capfd)
    assert (code, report["dead_letters"], report["dead_letters_missing"]) == (ExitCode.FAILED, {"invalid_json": 2}, 1)
    assert [place.rpartition(":")[0].rpartition(":")[0] for place in report["missing_letters"]] == [pipeline.topic]
    assert invoke(["repair", str(pipeline.path), "--json"]) == ExitCode.OK
    assert json.loads(capfd.readouterr().out)["letters_written"] == 1
    assert {letter.value for letter in read_dead_letters(pipeline.config.source)} == {b"{", b"["}
    code, report = verify(pipeline, capfd)
    assert (code, report["equal"], report["dead_letters_missing"]) == (ExitCode.OK, True, 0)


def test_records_the_group_has_not_committed_are_pending(pipeline: Pipeline, capfd: pytest.CaptureFixture[str]) -> None:
    pipeline.send([line(1, 3), line(NUM_KEYS, 1)], commit=False)
    code, report = verify(pipeline, capfd)
    assert (code, faults(report)) == (ExitCode.FAILED, {"pending": 2})


def test_a_file_is_compared_as_its_topic(pipeline: Pipeline, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\n".join(line(n, 2)[1] for n in range(NUM_KEYS)))
    assert verify(pipeline, capfd, "--input", str(file))[0] == ExitCode.OK
    file.write_bytes(b"\n".join(line(n, 2)[1] for n in range(1, NUM_KEYS + 1)))
    code, report = verify(pipeline, capfd, "--input", str(file))
    assert (code, faults(report)) == (ExitCode.FAILED, {"missing": 1})
    # Its record is in the topic, of which the file says nothing.
    assert report["tasks"]["topic"]["elsewhere"] == 1


@pytest.mark.parametrize("options", [["--sample", "some"], ["--key", "id"]])
def test_wrong_options_are_a_configuration_fault(
    pipeline: Pipeline, capfd: pytest.CaptureFixture[str], options: list[str]
) -> None:
    code, report = verify(pipeline, capfd, *options)
    assert code == ExitCode.CONFIG
    assert options[0] in report["error"]
