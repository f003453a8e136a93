"""Verify, repair and backfill agree: 200 records of a topic beside 1,000 rows of files, on both stores."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.compare.report import TaskReport
from pipeline.errors import ConfigError
from pipeline.records.decode import Decoders
from pipeline.records.record import Position, Record
from pipeline.session import Session
from pipeline.usecases.compare import DeleteExtras
from pipeline.usecases.compared_sources import CompareRequest
from tests.broker import free_port
from tests.config_trees import tree
from tests.contract.store_backends import QdrantBackend
from tests.qdrant_server.faults import Fault
from tests.qdrant_server.process import QdrantServer
from tests.unit.comparing import FakeRange

NUM_RECORDS, NUM_ROWS = 200, 1_000


class Agreement:
    """A pipeline whose topic is a list of records; the group has read all of them."""

    def __init__(self, folder: Path, store: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(folder)  # the ledger beside a server's store lies in var/
        config = tree(store=store, pipeline=f"agreement-{folder.name}", api__port=free_port())
        topic = {"key": "id", "text": "{body}", "version": "at", "tasks": ["urgency", "technical_issue"]}
        config["source"]["topics"] = {"tickets": topic}
        for name, task in config["tasks"].items():
            task["collection"] = f"{name}-{folder.name}"
        self.refract = Session.of(config)
        self.folder = folder
        self.records = [self.record(offset, f"T-{offset}", 5) for offset in range(NUM_RECORDS)]
        monkeypatch.setattr("pipeline.sources.ranges.TopicRange", lambda *_: FakeRange(list(self.records)))
        assert self.refract.repair(CompareRequest("kafka://tickets", sample=0)).complete
        for name, first in (("a", 0), ("b", 500)):
            rows = [{"id": f"F-{number}", "at": 5, "body": f"row {number}"} for number in range(first, first + 500)]
            self.path(name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        self.backfill()

    def record(self, offset: int, key: str, version: int) -> Record:
        config = self.refract.config
        value = {"id": key, "at": version, "body": f"text {key}"}
        decoder = Decoders(config.source, config.limits).of("tickets")
        return decoder.decode(key.encode(), json.dumps(value).encode(), Position("tickets", 0, offset, 0), ())

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.jsonl"

    def backfill(self) -> Any:
        return self.refract.backfill([str(self.path("a")), str(self.path("b"))], executor="local")

    def compare(self, *inputs: str) -> tuple[bool, TaskReport]:
        report = self.refract.verify(CompareRequest(inputs, sample=20, wait_s=0))
        return report.equal, report.tasks["urgency"]

    def repair(self, *inputs: str, force: bool = False) -> Any:
        return self.refract.repair(CompareRequest(inputs, sample=0, wait_s=0), extras=DeleteExtras(force=force))

    def count(self, task: str = "urgency") -> int:
        store = self.refract.context.open_store()
        try:
            return store.count(self.refract.tasks[task].collection)
        finally:
            store.close()


@pytest.fixture
def qdrant(qdrant_server: QdrantServer) -> Iterator[QdrantBackend]:
    backend = QdrantBackend(qdrant_server.url)
    yield backend
    qdrant_server.faults.clear()
    backend.close()


@pytest.fixture(params=["edge", "qdrant"])
def agreed(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Agreement:
    if request.param == "edge":
        return Agreement(tmp_path, {"type": "edge", "path": str(tmp_path / "store")}, monkeypatch)
    backend: QdrantBackend = request.getfixturevalue("qdrant")
    return Agreement(tmp_path, {"type": "qdrant", "url": backend.config.url}, monkeypatch)


def test_topics_and_what_was_backfilled_are_compared_together_and_nothing_is_extra(agreed: Agreement) -> None:
    equal, task = agreed.compare()
    assert (equal, task.keys, task.points) == (True, NUM_RECORDS + NUM_ROWS, NUM_RECORDS + NUM_ROWS)
    assert (task.extra, task.elsewhere, task.not_compared, task.vectors_checked) == (0, 0, {}, 20)

    equal, task = agreed.compare("kafka://tickets")
    assert (equal, task.extra, task.elsewhere) == (True, 0, NUM_ROWS)
    assert task.not_compared == {str(agreed.path("a")): 500, str(agreed.path("b")): 500}

    equal, task = agreed.compare(str(agreed.path("a")), "kafka://tickets")
    assert (equal, task.extra, task.elsewhere, task.keys) == (True, 0, 500, 700)
    assert task.not_compared == {str(agreed.path("b")): 500}

    equal, task = agreed.compare(str(agreed.path("a")), str(agreed.path("b")))
    assert (equal, task.extra, task.elsewhere, task.keys) == (True, 0, NUM_RECORDS, NUM_ROWS)
    assert task.not_compared == {"kafka://tickets": NUM_RECORDS}


def test_a_repair_deletes_what_all_sources_prove_absent_and_nothing_else(agreed: Agreement) -> None:
    for inputs in ((), ("kafka://tickets",), (str(agreed.path("a")),)):
        assert agreed.repair(*inputs).complete
    assert agreed.count() == NUM_RECORDS + NUM_ROWS

    # Its offset is still in the topic's range, but the record is gone.
    agreed.records[7] = agreed.record(7, "T-8", 5)
    equal, task = agreed.compare("kafka://tickets")
    assert (equal, task.extra) == (False, 1)
    with pytest.raises(ConfigError, match=r"1 of 1,200 points are extra, but .*not compared: .*a\.jsonl, .*b\.jsonl"):
        agreed.repair("kafka://tickets")
    assert agreed.count() == NUM_RECORDS + NUM_ROWS

    # A file that the ledger names and that is gone could hold the record, too.
    agreed.path("b").rename(agreed.folder / "moved.jsonl")
    assert str(agreed.path("b")) in agreed.refract.verify(CompareRequest(sample=0, wait_s=0)).unread
    with pytest.raises(ConfigError, match=r"not compared: .*b\.jsonl"):
        agreed.repair()
    (agreed.folder / "moved.jsonl").rename(agreed.path("b"))

    report = agreed.repair()
    assert (report.complete, report.repaired["urgency"].deleted) == (True, 1)
    assert agreed.count() == NUM_RECORDS + NUM_ROWS - 1
    assert agreed.compare()[0]


def test_a_point_of_nobody_known_keeps_extras_from_being_deleted(agreed: Agreement) -> None:
    other = agreed.path("other")
    other.write_text(json.dumps({"id": "X-1", "at": 5, "body": "from elsewhere"}) + "\n")
    assert agreed.refract.repair(CompareRequest(other, sample=0)).complete
    agreed.records[7] = agreed.record(7, "T-8", 5)
    equal, task = agreed.compare()
    assert (equal, task.extra, task.elsewhere) == (False, 1, 1)
    [(name, number)] = task.not_compared.items()
    assert (name.partition("@")[0], number) == ("other.jsonl", 1)
    with pytest.raises(ConfigError, match=r"not compared: other\.jsonl@"):
        agreed.repair()
    assert agreed.repair(force=True).repaired["urgency"].deleted == 1


def test_a_file_counts_for_the_tasks_it_was_backfilled_for(agreed: Agreement) -> None:
    from pipeline.usecases.backfill import BackfillRequest  # noqa: PLC0415 - one test needs it

    agreed.path("c").write_text(json.dumps({"id": "C-1", "at": 5, "body": "for one task"}) + "\n")
    request = BackfillRequest([str(agreed.path("c"))], tasks=["urgency"])
    assert agreed.refract.backfill(request, executor="local").written == 1
    report = agreed.refract.verify(CompareRequest(sample=0, wait_s=0))
    assert report.equal
    assert {name: task.keys for name, task in report.tasks.items()} == {"urgency": 1_201, "technical_issue": 1_200}


def test_the_newest_of_a_key_counts_whichever_source_has_it(agreed: Agreement) -> None:
    agreed.records += [agreed.record(NUM_RECORDS, "F-3", 6), agreed.record(NUM_RECORDS + 1, "F-4", 4)]
    equal, task = agreed.compare()
    assert (equal, task.stale, task.keys) == (False, 1, NUM_RECORDS + NUM_ROWS)
    assert [example["record"] for example in task.examples] == [f"tickets:0:{NUM_RECORDS}"]
    assert agreed.repair().repaired["urgency"].written == 1
    assert agreed.compare()[0]
    # Without its record the row of the file is older than what is stored: no fault, and never extra.
    del agreed.records[NUM_RECORDS:]
    agreed.records += [agreed.record(NUM_RECORDS, "T-1", 4)]
    equal, task = agreed.compare()
    assert (equal, task.extra, task.newer) == (True, 0, 1)


def test_a_row_that_is_missing_is_named_by_file_and_row(agreed: Agreement) -> None:
    with agreed.path("b").open("a") as file:
        file.write(json.dumps({"id": "F-new", "at": 5, "body": "later"}) + "\n")
    equal, task = agreed.compare()
    assert (equal, task.missing) == (False, 1)
    assert [example["record"] for example in task.examples] == [f"{agreed.path('b')}:500"]


def test_what_the_store_has_lost_is_backfilled_again(agreed: Agreement, request: pytest.FixtureRequest) -> None:
    assert agreed.backfill().fragments_skipped == 2
    if agreed.refract.config.store.type == "edge":
        (agreed.folder / "store").rename(agreed.folder / "lost")
    else:
        for own in agreed.refract.tasks.values():
            request.getfixturevalue("qdrant").drop(own.collection)
    report = agreed.backfill()
    assert (report.fragments_done, report.fragments_skipped, report.written) == (2, 0, 2 * NUM_ROWS)
    equal, task = agreed.compare()
    assert (equal, task.missing) == (False, NUM_RECORDS)
    assert agreed.repair().complete
    assert agreed.compare()[0]


def test_a_store_that_blips_is_ridden_out(
    qdrant: QdrantBackend, qdrant_server: QdrantServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.live.retry.FIRST_WAIT_S", 0.01)
    agreed = Agreement(tmp_path, {"type": "qdrant", "url": qdrant.config.url}, monkeypatch)
    agreed.records[7] = agreed.record(7, "T-new", 5)
    blips = [
        Fault(f"{method}", times=2, code="UNAVAILABLE", detail="Socket closed")
        for method in ("Points/Scroll", "Points/Get", "Points/Count", "Points/Upsert", "Collections/List")
    ]
    qdrant_server.faults.set(*blips)
    equal, task = agreed.compare()
    assert (equal, task.missing, task.extra) == (False, 1, 1)
    qdrant_server.faults.set(*(Fault(one.method, times=2, code="UNAVAILABLE") for one in blips))
    report = agreed.repair()
    assert (report.complete, report.repaired["urgency"].written, report.repaired["urgency"].deleted) == (True, 1, 1)
    qdrant_server.faults.clear()
    assert agreed.compare()[0]
