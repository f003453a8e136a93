"""Credentials that change, collections that are dropped or set back, aliases that move: rows 29 to 31 and 48."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from qdrant_client import grpc as qdrant

from pipeline.binding import Task, bind_tasks
from pipeline.cli.exits import ExitCode
from pipeline.cli.main import invoke
from pipeline.config.load import load_config
from pipeline.engine.entry import identify, load_engine, load_tokenizer
from pipeline.errors import EnvironmentFault
from pipeline.interfaces import PointReader
from pipeline.records.batches import Float32
from pipeline.stores.open import open_store
from pipeline.stores.qdrant import QdrantStore
from tests.e2e.harness import wait_until
from tests.faults.harness import STORE_TIMEOUT_S, Ground, Rig, WorkerProcess
from tests.faults.results import FaultRun, fault_run

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

LACKS = "lacks what group"


@pytest.fixture(autouse=True)
def _healed(ground: Ground) -> Iterator[None]:
    yield
    ground.server.mend()
    ground.heal()


def ends_loudly(member: WorkerProcess, reason: str) -> str:
    """Returns what the member wrote; fails unless it ended by itself, with the reason as its last line."""
    assert member.wait() == 1
    last = member.output().splitlines()[-1]
    assert last.startswith("EnvironmentFault"), last
    assert reason in last, last
    return member.output()


def rewind_and_check(rig: Rig, run: FaultRun) -> None:
    """The way out that the message names; then everything is there again."""
    wait_until(lambda: invoke(["rewind", str(rig.path), "--to", "earliest", "--execute"]) == ExitCode.OK, "rewound")
    run.healed()
    with rig.worker(9):
        rig.wait_finished()
        run.recovered()
        rig.sampler.take()  # it has seen the loss, which is the fault itself
        rig.check(run)


def test_key_is_rotated(make_rig: Callable[..., Rig], ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = "the-old-key-4711", "the-new-key-4712"
    monkeypatch.setenv("STORE_KEY", old)
    url = f"http://{ground.qdrant.address}"
    store = {"type": "qdrant", "url": url, "timeout_s": STORE_TIMEOUT_S, "api_key": "${STORE_KEY}"}
    ground.server.restart("--api-key", old)
    try:
        rig = make_rig(store=store)
        with fault_run(29) as run, rig.worker() as member:
            rig.send(1_500)
            rig.wait_midstream()
            ground.server.restart("--api-key", new)
            written = ends_loudly(member, "the API key does not allow this")
            assert old not in written
            monkeypatch.setenv("STORE_KEY", new)
            locked_out = rig.store
            rig.store = rig.sampler._store = open_store(
                load_config(rig.path).store.model_copy(update={"url": ground.server.url}), rig.config.pipeline
            )
            run.healed()
            with rig.worker(1) as second:
                rig.wait_progress(run)
                rig.check(run)
                assert new not in second.output()
            locked_out.close()
    finally:
        ground.server.restart()


def drop(ground: Ground, collection: str) -> None:
    """Deletes a collection behind everybody's back."""
    with grpc.insecure_channel(ground.server.url.split("://")[1]) as channel:
        stub = qdrant.CollectionsStub(channel)  # type: ignore[no-untyped-call]  # generated code
        stub.Delete(qdrant.DeleteCollection(collection_name=collection))


def test_collection_is_dropped_under_the_pipeline(rig: Rig) -> None:
    task = rig.journal.tasks["urgency"]
    with fault_run(30) as run, rig.worker() as member:
        rig.send(1_500)
        rig.wait_midstream()
        drop(rig.ground, task.collection)
        ends_loudly(member, "does not exist")
        before = rig.committed()
        with rig.worker(1) as second:  # as Serve starts one again
            ends_loudly(second, LACKS)
        assert rig.committed() == before
        rewind_and_check(rig, run)


def test_collection_is_dropped_while_nobody_runs(rig: Rig) -> None:
    with fault_run(30, seed=1) as run:
        with rig.worker():
            rig.send(500)
            rig.wait_finished()
        drop(rig.ground, rig.journal.tasks["technical_issue"].collection)
        rig.send(500)
        before = rig.committed()
        with rig.worker(1) as second:
            ends_loudly(second, LACKS)
        assert rig.committed() == before
        rewind_and_check(rig, run)


def saved(ground: Ground) -> Path:
    """Returns a copy of everything the server has stored."""
    copy = ground.folder / "snapshot"
    shutil.rmtree(copy, ignore_errors=True)
    ground.server.stop()
    shutil.copytree(ground.server.path, copy)
    ground.server.start()
    return copy


def set_back(ground: Ground, copy: Path) -> None:
    """Puts an older state in the place of the present one."""
    ground.server.kill()
    shutil.rmtree(ground.server.path)
    shutil.copytree(copy, ground.server.path)
    ground.server.start()


def test_older_state_is_restored_while_nobody_runs(rig: Rig) -> None:
    with fault_run(31) as run:
        with rig.worker():
            rig.send(500)
            rig.wait_finished()
        copy = saved(rig.ground)
        with rig.worker(1):
            rig.send(500)
            rig.wait_finished()
        set_back(rig.ground, copy)
        before = rig.committed()
        with rig.worker(2) as third:
            ends_loudly(third, LACKS)
        assert rig.committed() == before
        rewind_and_check(rig, run)


def test_older_state_is_restored_under_the_pipeline(rig: Rig) -> None:
    """The server was away for a moment, and is another one now: nothing more is committed."""
    with fault_run(31, seed=1) as run, rig.worker() as member:
        rig.send(500)
        rig.wait_finished()
        copy = saved(rig.ground)
        rig.send(500)
        rig.wait_finished()
        set_back(rig.ground, copy)
        before = rig.committed()
        rig.send(300)
        ends_loudly(member, LACKS)
        with rig.worker(1) as second:
            ends_loudly(second, LACKS)
        assert rig.committed() == before
        rewind_and_check(rig, run)


def test_same_state_is_restored_and_nobody_objects(rig: Rig) -> None:
    with fault_run(31, seed=2) as run, rig.worker() as member:
        rig.send(500)
        rig.wait_finished()
        copy = saved(rig.ground)
        set_back(rig.ground, copy)
        rig.send(500)
        run.healed()
        rig.wait_progress(run)
        rig.check(run)
        assert member.process.poll() is None


class Readers:
    """Threads that search one alias under one task, again and again."""

    def __init__(self, store: PointReader, task: Task, answers: dict[str, Float32]) -> None:
        self._store, self._task, self._expected = store, task, answers
        self.num_answers = self.num_refusals = 0
        self.wrong: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            for key, vector in self._expected.items():
                try:
                    hit = self._store.search(self._task, vector, 1, ())[0]
                except EnvironmentFault as error:
                    self.num_refusals += 1
                    if "points to collection" not in str(error):
                        self.wrong.append(str(error))
                    continue
                except Exception as error:  # noqa: BLE001 - whatever else it is, is wrong
                    self.wrong.append(f"{type(error).__name__}: {error}")
                    continue
                self.num_answers += 1
                # The null engine is exact: only the own collection has the very vector.
                if hit.payload["_key"] != f"s:{key}" or hit.score < 0.999:
                    self.wrong.append(f"{key}: {hit.payload['_key']} with {hit.score}")


def test_alias_moves_under_queries(rig: Rig) -> None:
    """Each answer comes from the collection of the asker's own instruction, or is refused; never a mixture."""
    with fault_run(48) as run:
        with rig.worker():
            keys = rig.send(400)
            rig.check(run)
        later = rig.path.with_stem("later")
        later.write_text(
            rig.path.read_text()
            .replace("How urgent is this", "Who is affected")
            .replace("group_id: row", "group_id: z")
        )
        with rig.worker(1, config=later) as second:
            second.wait_ready()
            new_task = _tasks(later)["urgency"]
            assert isinstance(rig.store, QdrantStore)
            wait_until(lambda: _count(rig.store, new_task.collection) == len(keys), "the new collection is filled")
        old_task = rig.journal.tasks["urgency"]
        old_rows, new_rows = _vectors(rig, keys[:20]), _vectors(rig, keys[:20], later)
        stores = [open_store(rig.store._config, rig.config.pipeline) for _ in range(2)]
        readers = [
            Readers(store, task, rows)
            for store, task, rows in zip(stores, (old_task, new_task), (old_rows, new_rows), strict=True)
        ]
        try:
            for _ in range(6):
                for task in (new_task, old_task):
                    rig.store.move_alias(task)
                    threading.Event().wait(1.3)
        finally:
            for reader, store in zip(readers, stores, strict=True):
                reader.close()
                store.close()
        for reader in readers:
            assert reader.wrong == []
            assert min(reader.num_answers, reader.num_refusals) > 20
        rig.compare(run)


def _tasks(path: Path) -> dict[str, Task]:
    config = load_config(path)
    return bind_tasks(config, {name: identify(model) for name, model in config.models.items()})


def _count(store: PointReader, collection: str) -> int:
    with suppress(EnvironmentFault):
        return store.count(collection)
    return 0


def _vectors(rig: Rig, keys: list[str], path: Path | None = None) -> dict[str, Float32]:
    """Returns the vectors of records, which are what the null engine makes of a query for them as well."""
    config = load_config(path or rig.path)
    model = config.models["hash"].model_copy(update={"overrides": {}})
    texts = [rig.journal.expected("urgency", key).text or "" for key in keys]
    tokens = load_tokenizer(model, config.tasks).encode(texts, ["urgency"])
    return dict(zip(keys, load_engine(model, config.tasks).embed(tokens)[0], strict=True))
