"""`refract verify` and `refract repair` beside a pipeline that runs and records that arrive.

The store is a server, so that both may read it at once. What is broken by hand is found, all of it and
nothing else, and mended; at the end the journal, which knows nothing of either verb, agrees.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from qdrant_client import grpc as qdrant
from qdrant_client.conversions.conversion import json_to_value

from pipeline.binding import Task
from pipeline.cli.exits import ExitCode
from pipeline.errors import Reason
from pipeline.interfaces import StoredPoint
from pipeline.records.batches import Float32
from pipeline.records.record import point_id, uuid_text
from pipeline.stores.qdrant import QdrantStore
from tests.broker import Broker
from tests.e2e.harness import PATIENCE_S, CommandApp, end, journal_of, start_python, write_config
from tests.qdrant_server.process import QdrantServer

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.kafka, pytest.mark.ray]

NUM_KEYS = 300
STREAM_INTERVAL_S = 0.01
DAMAGE = {"missing": 10, "stale": 10, "extra": 10, "wrong_vector": 10}


@dataclass(slots=True)
class Live:
    """A running pipeline, the keys that rest in it, and records that keep arriving beside them."""

    app: CommandApp
    store: QdrantStore
    server: Any
    """The server's own stub, which writes past every guard."""
    num_streamed: int = 0

    @property
    def task(self) -> Task:
        return self.app.journal.tasks["urgency"]

    def stream(self) -> None:
        """Sends one more record: every third time a new key, else a newer version of one sent before."""
        number, self.num_streamed = self.num_streamed, self.num_streamed + 1
        self.app.journal.ticket(f"S-{number if number % 3 == 0 else number % 30}", number + 2)

    def run(self, verb: str, *options: str) -> tuple[int, dict[str, Any]]:
        """Runs a verb as a process, with records arriving until it ends; returns its exit code and its report."""
        log = self.app.path.with_name(f"{verb}-{time.time_ns()}.json")
        finished = self.app.num_committed()
        process = start_python("-m", "pipeline.cli", verb, str(self.app.path), "--sample", "all", *options, log=log)
        deadline_s = time.monotonic() + PATIENCE_S
        try:
            while process.poll() is None and time.monotonic() < deadline_s:
                self.stream()
                time.sleep(STREAM_INTERVAL_S)
        finally:
            end(process)
        assert self.app.num_committed() > finished, "the pipeline stood still meanwhile"
        text = log.read_text()
        return process.returncode, json.loads(text[text.index("{") :]) if "--json" in options else {"text": text}

    def write(self, points: Mapping[bytes, tuple[Float32, Mapping[str, Any]]]) -> None:
        """Puts points into the task's collection, whatever is there."""
        self.server.Upsert(
            qdrant.UpsertPoints(
                collection_name=self.task.collection,
                wait=True,
                points=[
                    qdrant.PointStruct(
                        id=qdrant.PointId(uuid=uuid_text(raw)),
                        vectors=qdrant.Vectors(vector=qdrant.Vector(dense=qdrant.DenseVector(data=row))),
                        payload={name: json_to_value(value) for name, value in payload.items()},
                    )
                    for raw, (row, payload) in points.items()
                ],
            )
        )

    def read(self, raw_ids: list[bytes], task: str = "urgency") -> list[StoredPoint]:
        return self.store.retrieve(self.app.journal.tasks[task].collection, raw_ids, with_vectors=True)

    def remove(self, raw_ids: list[bytes]) -> None:
        ids = qdrant.PointsIdsList(ids=[qdrant.PointId(uuid=uuid_text(raw)) for raw in raw_ids])
        self.server.Delete(
            qdrant.DeletePoints(
                collection_name=self.task.collection, wait=True, points=qdrant.PointsSelector(points=ids)
            )
        )


def ids(live: Live, *numbers: int) -> list[bytes]:
    return [point_id(live.app.config.pipeline, live.app.journal.tickets, f"s:T-{number}") for number in numbers]


@pytest.fixture
def live(folder: Path, broker: Broker) -> Iterator[Live]:
    """Two versions of every key and two dead letters, all of it stored."""
    server = QdrantServer(folder / "server").start()
    try:
        path = write_config(folder, broker, "verify-live", store={"type": "qdrant", "url": server.url})
        with (
            journal_of(path) as journal,
            CommandApp(path, broker, journal) as app,
            closing(QdrantStore(app.config.store, app.config.pipeline)) as store,  # type: ignore[arg-type]
            grpc.insecure_channel(server.url.split("://")[1]) as channel,
        ):
            for version in (1, 2):
                for number in range(NUM_KEYS):
                    journal.ticket(f"T-{number}", version, f"text {number} in version {version}")
            journal.ticket("T-gone", 3, deleted=True)
            for _ in range(2):
                journal.poison(Reason.INVALID_JSON, b"{")
            app.wait_finished()
            stub = qdrant.PointsStub(channel)  # type: ignore[no-untyped-call]  # generated code
            yield Live(app, store, stub)
    finally:
        server.stop()


def damage(live: Live) -> list[bytes]:
    """Breaks or adds 40 points of one task; returns the ids of the extra ones.

    Ten are deleted, ten stale, ten extra; five have the vectors that another instruction gives, and five have
    damaged ones. The extra ones claim to come from a record that exists.
    """
    journal = live.app.journal
    live.remove(ids(live, *range(10)))
    raw_ids = ids(live, *range(10, 20))
    texts = [f"Ticket T-{number}\n\ntext {number} in version 1" for number in range(10, 20)]
    old = zip(live.read(raw_ids), journal.vectors("urgency", texts), strict=True)
    points = {point.id: (row, {**point.payload, "_version": point.version - 1, "_state": "live"}) for point, row in old}
    for point in live.read(ids(live, *range(20, 25)), "technical_issue"):
        points[point.id] = (_vector(point), {**point.payload, "_version": point.version, "_state": "live"})
    for point in live.read(ids(live, *range(25, 30))):
        row = _vector(point) * np.where(np.arange(live.task.dimension) % 2, 1, -1)
        points[point.id] = (row, {**point.payload, "_version": point.version, "_state": "live"})
    extra = [point_id(live.app.config.pipeline, journal.tickets, f"s:nobody's {number}") for number in range(10)]
    row = journal.vectors("urgency", ["nobody sent this"])[0]
    source = f"{journal.tickets}:0:0"
    points |= {raw: (row, {"_version": 7, "_state": "live", "_source": source}) for raw in extra}
    live.write(points)
    return extra


def faults(report: Mapping[str, Any], task: str) -> dict[str, int]:
    kinds = ("missing", "stale", "extra", "wrong_state", "tombstone_missing", "wrong_vector", "pending")
    return {kind: report["tasks"][task][kind] for kind in kinds if report["tasks"][task][kind]}


def _vector(point: StoredPoint) -> Float32:
    assert point.vector is not None
    return point.vector


def test_what_is_broken_is_found_and_mended_while_records_arrive(live: Live) -> None:
    code, report = live.run("verify", "--json")
    assert (code, report["equal"]) == (ExitCode.OK, True), report
    assert report["tasks"]["urgency"]["tombstones"] == 1
    assert (report["dead_letters"], report["dead_letters_missing"]) == ({"invalid_json": 2}, 0)

    extra = damage(live)
    code, report = live.run("verify", "--json", "--limit", "100")
    assert code == ExitCode.FAILED
    assert {task: faults(report, task) for task in report["tasks"]} == {
        "urgency": DAMAGE,
        "technical_issue": {},
        "audit": {},
    }
    named = {example["id"] for example in report["tasks"]["urgency"]["examples"]}
    assert named == {uuid_text(raw) for raw in [*ids(live, *range(30)), *extra]}

    code, report = live.run("repair", "--json", "--delete-extras", "--yes")
    assert code == ExitCode.OK, report
    assert report["repaired"]["urgency"] == {"written": 30, "deleted": 10, "left": 0}

    code, report = live.run("verify", "--json")
    assert (code, report["equal"]) == (ExitCode.OK, True), report

    live.app.wait_finished()
    assert live.num_streamed > 100
    assert live.store.purge_tombstones(live.task.collection, dict.fromkeys(extra, 7)) == 10
    assert live.app.journal.store_differences(live.store) == []
