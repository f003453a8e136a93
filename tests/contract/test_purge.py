"""`refract purge` on both stores, strict mode on and off: old tombstones leave, and nothing else does."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.backfill.leases import Leases
from pipeline.backfill.ledger import Ledger
from pipeline.backfill.outcome import Counts, Outcome
from pipeline.backfill.work import Work
from pipeline.binding import Task
from pipeline.cli.exits import ExitCode
from pipeline.cli.main import invoke
from pipeline.context import Context
from pipeline.errors import ConfigError, EnvironmentFault, TransientError
from pipeline.records.files.listing import FilePart
from pipeline.records.record import Witness
from pipeline.session import Session
from pipeline.usecases.backfill import ledger_folder
from pipeline.usecases.purge import PurgedStore, PurgeReport, PurgeRequest, purge
from tests.broker import free_port
from tests.config_trees import tree
from tests.contract.store_backends import AnyStore, Backend, Row, delete, key_id, make_batch, put, stored
from tests.qdrant_server.faults import Fault
from tests.qdrant_server.process import QdrantServer

DAY_MS = 86_400_000
MONTH = PurgeRequest(30 * DAY_MS, execute=True)
Change = Callable[[AnyStore], None]


def dead(key: str | int, version: int, age_days: float) -> Row:
    """Returns a tombstone row of some age."""
    return (key, version, None, {"_deleted_at": round(time.time() * 1000 - age_days * DAY_MS)})


class Purged:
    """A pipeline of one task whose collection the backend holds, and brokers that answer as they are told."""

    def __init__(self, backend: Backend, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(folder)  # the ledger of a server's store lies in var/
        self.folder = folder
        own = backend.task("urgency")
        self.task = replace(own, name="urgency", config=own.config.model_copy(update={"collection": own.alias}))
        self.store = backend.connect()
        self.store.open([self.task])
        self.retention_ms: Mapping[str, int] = {"tickets": DAY_MS}
        self.witnesses: list[set[bytes]] = [set()]
        """Answers in their order; the last one again and again."""
        self.after_listing: Change = lambda _: None
        monkeypatch.setattr("pipeline.sources.client.admin.delete_retention_ms", lambda _: self.retention_ms)
        monkeypatch.setattr("pipeline.sources.group.witnesses.committed_witnesses", self._committed)
        monkeypatch.setattr(Context, "tasks", {"urgency": self.task})
        monkeypatch.setattr(Context, "open_store", lambda _: Watched(self.store, self))
        config = tree(pipeline="contract", store__path=str(folder / "own"), api__port=free_port())
        config["tasks"] = {"urgency": config["tasks"]["urgency"]}
        config["source"]["topics"]["tickets"]["tasks"] = ["urgency"]
        self.path = folder / "config.yaml"
        self.path.write_text(yaml.safe_dump(config))
        self.context = Context.open(self.path)

    def _committed(self, _: object) -> frozenset[bytes]:
        return frozenset(self.witnesses.pop(0) if len(self.witnesses) > 1 else self.witnesses[0])

    def write(self, *rows: Row) -> None:
        self.store.upsert(make_batch(list(rows), self.task))

    def purge(self, request: PurgeRequest = MONTH) -> PurgeReport:
        return purge(self.context, request, lambda *_: None)

    def left(self) -> set[bytes]:
        return set(stored(self.store, self.task))

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        with closing(Ledger(ledger_folder(self.context.config, None), [self.task], "tickets")) as ledger:
            yield ledger

    def note(self, key: str, *, done: bool) -> None:
        """Notes a fragment that stored a point of the key."""
        witness = Witness(key_id(key), 1, frozenset())
        with self.ledger() as ledger:
            ledger.note(Work(FilePart("/a.jsonl", 1, 1), ["urgency"], 0), Outcome(Counts(), 5, [], witness), done=done)


class Watched:
    """The backend's store, which the purge may close; something happens between the list and the removal."""

    def __init__(self, store: AnyStore, purged: Purged) -> None:
        self._store = store
        self._purged = purged

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def tombstones(self, *args: Any) -> Any:
        found = self._store.tombstones(*args)
        self._purged.after_listing(self._store)
        return found

    def close(self) -> None:
        """The test still reads it."""


@pytest.fixture
def purged(store_backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Purged:
    return Purged(store_backend, tmp_path, monkeypatch)


def test_a_dry_run_counts_and_a_purge_removes_old_tombstones_only(
    purged: Purged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """350 old ones: more than a page, and more than strict mode writes at once."""
    monkeypatch.setattr("pipeline.usecases.purge.PAGE_POINTS", 200)
    purged.write(*(put(f"live {n}", 1) for n in range(20)), *(dead(f"young {n}", 1, 29.9) for n in range(10)))
    purged.write(*(dead(f"old {n}", 1, 30.1) for n in range(350)))
    before = purged.left()
    found = purged.purge(PurgeRequest(30 * DAY_MS)).tasks["urgency"]
    assert (found.tombstones, found.due, found.witnesses, found.undated, found.purged) == (360, 350, 0, 0, 0)
    assert purged.left() == before

    report = purged.purge()
    assert (report.executed, report.tasks["urgency"].due, report.tasks["urgency"].purged) == (True, 350, 350)
    assert purged.left() == before - {key_id(f"old {n}") for n in range(350)}
    again = purged.purge().tasks["urgency"]
    assert (again.tombstones, again.due, again.purged) == (10, 0, 0)


def test_what_is_newer_by_then_survives(purged: Purged) -> None:
    purged.write(dead("gone", 5, 40), dead("revived", 5, 40), dead("again", 5, 40))

    def change(store: AnyStore) -> None:
        store.upsert(make_batch([put("revived", 6), delete("again", 7)], purged.task))

    purged.after_listing = change
    found = purged.purge().tasks["urgency"]
    assert (found.due, found.purged) == (3, 1)
    assert stored(purged.store, purged.task) == {key_id("revived"): (6, False), key_id("again"): (7, True)}


def test_a_witness_of_a_committed_offset_stays(purged: Purged) -> None:
    purged.write(dead("gone", 5, 40), dead("witness", 5, 40))
    purged.witnesses = [{key_id("witness")}]
    found = purged.purge().tasks["urgency"]
    assert (found.due, found.witnesses, found.purged) == (1, 1, 1)
    assert purged.left() == {key_id("witness")}


def test_a_tombstone_that_became_a_witness_meanwhile_is_put_back_as_it_was(purged: Purged) -> None:
    purged.write(dead("gone", 5, 40), dead("witness", 5, 40))
    [before] = purged.store.retrieve(purged.task.collection, [key_id("witness")])
    purged.witnesses = [set(), {key_id("witness")}]
    assert purged.purge().tasks["urgency"].purged == 1
    assert purged.store.retrieve(purged.task.collection, [key_id("witness")]) == [before]
    assert purged.left() == {key_id("witness")}


def test_a_point_that_stands_for_a_backfilled_fragment_stays(purged: Purged) -> None:
    """Else a second backfill would take its fragment for lost, and bring back what was deleted."""
    purged.write(dead("gone", 5, 40), dead("noted", 5, 40))
    purged.note("noted", done=True)
    assert purged.purge().tasks["urgency"].witnesses == 1
    assert purged.left() == {key_id("noted")}


def test_tombstones_of_earlier_versions_get_a_time_and_leave_later(purged: Purged, store_backend: Backend) -> None:
    raw = {"_version": 5, "_state": "deleted", "_key": "s:undated", "_source": "tickets:0:7"}
    store_backend.put_raw(purged.store, purged.task.collection, "undated", raw)
    assert purged.purge(PurgeRequest(30 * DAY_MS)).tasks["urgency"].undated == 1
    assert purged.purge().tasks["urgency"].purged == 0
    [point] = purged.store.tombstones(purged.task.collection, None, 9)
    assert point.deleted_ms == pytest.approx(time.time() * 1000, abs=60_000)
    assert (point.version, point.payload) == (5, {"_key": "s:undated", "_source": "tickets:0:7"})
    found = purged.purge().tasks["urgency"]
    assert (found.undated, found.due) == (0, 0)


# -- refusals, on the embedded store


@pytest.fixture
def local(edge_backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Purged:
    return Purged(edge_backend, tmp_path, monkeypatch)


@pytest.mark.parametrize("execute", [False, True])
def test_an_age_below_what_a_topic_keeps_delete_markers_for_is_refused(local: Purged, *, execute: bool) -> None:
    local.retention_ms = {"few": DAY_MS, "tickets": 40 * DAY_MS}
    local.write(dead("gone", 5, 50))
    with pytest.raises(ConfigError, match=r"30 days is below delete.retention.ms of topic 'tickets', 40 days"):
        local.purge(PurgeRequest(30 * DAY_MS, execute=execute))
    assert local.left() == {key_id("gone")}
    assert local.purge(PurgeRequest(40 * DAY_MS, execute=execute)).tasks["urgency"].due == 1


def test_without_brokers_nothing_is_purged(local: Purged, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: object) -> dict[str, int]:
        raise TransientError("no broker answers")

    monkeypatch.setattr("pipeline.sources.client.admin.delete_retention_ms", away)
    local.write(dead("gone", 5, 50))
    arguments = ["purge", str(local.path), "--older-than", "30d", "--execute", "--force"]
    assert invoke(arguments) == ExitCode.UNREACHABLE
    assert local.left() == {key_id("gone")}


def test_a_backfill_at_work_and_a_purge_keep_each_other_away(local: Purged) -> None:
    local.write(dead("gone", 5, 50))
    with local.ledger(), pytest.raises(EnvironmentFault, match="'urgency': another backfill works on it"):
        local.purge()
    assert local.left() == {key_id("gone")}
    folder = ledger_folder(local.context.config, None)
    with (
        closing(Leases(folder, [local.task], "purge")),
        pytest.raises(EnvironmentFault, match="'urgency': another purge works on it"),
        local.ledger(),
    ):
        pass


def test_a_backfill_that_was_interrupted_is_finished_first(local: Purged) -> None:
    local.write(dead("gone", 5, 50))
    local.note("other", done=False)
    [sentence] = local.purge(PurgeRequest(30 * DAY_MS)).fills
    assert "task 'urgency': a backfill has begun 1 fragments that are not finished" in sentence
    with pytest.raises(ConfigError, match=r"begun 1 fragments .*--force"):
        local.purge()
    assert local.left() == {key_id("gone")}
    assert local.purge(PurgeRequest(30 * DAY_MS, execute=True, force=True)).tasks["urgency"].purged == 1


def test_whatever_else_fills_collections_can_keep_a_purge_away(local: Purged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.usecases.fills.FILLS", (lambda _context, tasks: [f"{tasks[0].name} is migrated"],))
    with pytest.raises(ConfigError, match="urgency is migrated"):
        local.purge()


def test_an_embedded_store_that_the_app_holds_is_purged_through_the_app(
    local: Purged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.usecases.client.app_answers", lambda _: True)
    monkeypatch.setattr(Context, "open_store", lambda _: pytest.fail("the app holds it"))
    local.write(dead("gone", 5, 50))
    with pytest.raises(ConfigError, match="stop it first"):
        local.purge()

    @contextmanager
    def app_store(_config: object, _address: object = None) -> Iterator[PurgedStore]:
        yield local.store

    monkeypatch.setattr("actors.app_store.app_store", app_store)
    with Session.open(local.path) as refract:
        assert refract.purge(MONTH).tasks["urgency"].purged == 1
    local.write(dead("gone", 5, 50))
    assert invoke(["purge", str(local.path), "--older-than", "30d", "--execute"]) == ExitCode.OK
    assert local.left() == set()


def test_a_collection_that_does_not_exist_has_no_tombstones(local: Purged, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Task("urgency", local.task.config, local.task.dimension, "0" * 64)
    monkeypatch.setattr(Context, "tasks", {"urgency": other})
    assert local.purge().tasks["urgency"].tombstones == 0


def test_blips_of_the_server_are_ridden_out(
    qdrant_server: QdrantServer, qdrant_backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.live.retry.FIRST_WAIT_S", 0.01)
    purged = Purged(qdrant_backend, tmp_path, monkeypatch)
    purged.write(dead("gone", 5, 50), put("live", 5))
    methods = ("Collections/List", "Points/Scroll", "Points/Get", "Points/Upsert", "Points/Delete")
    qdrant_server.faults.set(*(Fault(method, times=2, code="UNAVAILABLE") for method in methods))
    hits = qdrant_server.faults.num_hits()
    assert purged.purge().tasks["urgency"].due == 1
    assert qdrant_server.faults.num_hits() == hits + 2 * len(methods)
    assert purged.left() == {key_id("live")}


def test_the_verb_shows_what_would_leave_and_does_it_when_told(
    local: Purged, capsys: pytest.CaptureFixture[str]
) -> None:
    local.write(dead("gone", 5, 50), put("live", 5))
    arguments = ["purge", str(local.path), "--older-than", "30d"]
    assert invoke(arguments) == ExitCode.OK
    shown = capsys.readouterr()
    assert "--execute does it" in shown.err
    assert local.left() == {key_id("gone"), key_id("live")}
    assert invoke([*arguments, "--execute", "--json"]) == ExitCode.OK
    report = json.loads(capsys.readouterr().out)
    assert (report["executed"], report["fills"], report["delete_retention_ms"]) == (True, [], {"tickets": DAY_MS})
    assert report["tasks"]["urgency"]["purged"] == 1
    assert local.left() == {key_id("live")}


@pytest.mark.parametrize("age", ["30", "30 days", "0d", "-1d", "1.5d", "d", "30y", "9999999d", ""])
def test_an_age_that_is_none_is_named(local: Purged, age: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["purge", str(local.path), f"--older-than={age}"]) == ExitCode.CONFIG
    assert f"--older-than: {age!r} is not a span of time" in capsys.readouterr().err
