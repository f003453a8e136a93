"""What only the embedded store promises: one owner, a register that survives crashes, upkeep beside the work."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.binding import Task
from pipeline.errors import EnvironmentFault, Reason, RecordError, RefractError, TransientError
from pipeline.stores.edge import MIN_FREE_BYTES, EdgeStore
from pipeline.stores.edge_directory import EdgeDirectory
from pipeline.stores.edge_errors import edge_errors
from pipeline.stores.edge_shard import EdgeShard
from tests.contract.store_backends import (
    PIPELINE,
    EdgeBackend,
    delete,
    key_id,
    make_batch,
    make_task,
    put,
    stored,
    unit,
)

WRITER = """
import sys
from pathlib import Path
from tests.contract.store_backends import EdgeBackend, delete, make_batch, make_task, put
backend = EdgeBackend(Path(sys.argv[1]))
store, tasks = backend.connect(), [make_task("one"), make_task("two")]
store.open(tasks)
for number in range(10_000):
    keys = range(number * 20, number * 20 + 20)
    store.upsert(make_batch([delete(key, 5) if key % 5 == 0 else put(key, 5) for key in keys], *tasks))
    if number % 7 == 0:
        store.flush()
    print(number, flush=True)
"""
"""Prints the number of each batch that is acknowledged, until it is killed."""


@pytest.fixture
def task() -> Task:
    return make_task("urgency")


def wait_until(condition: Callable[[], bool]) -> None:
    """Returns when the condition holds; gives up after some seconds."""
    waiting = threading.Event()
    for _ in range(500):
        if condition():
            return
        waiting.wait(0.01)
    raise AssertionError("the condition never held")


def test_a_second_owner_is_refused_and_told_the_pid_of_the_first(edge_backend: EdgeBackend, task: Task) -> None:
    store = edge_backend.connect()
    store.open([task])
    with pytest.raises(EnvironmentFault, match=f"pid {os.getpid()}"):
        EdgeStore(edge_backend.config, PIPELINE)
    store.close()
    edge_backend.connect().open([task])


def test_sharers_have_collections_of_their_own_and_leave_both_in_the_register(
    edge_backend: EdgeBackend, task: Task
) -> None:
    other = make_task("technical_issue")
    first, second = (EdgeStore(edge_backend.config, PIPELINE, shared=True) for _ in range(2))
    try:
        first.open([task])
        second.open([other])
        first.upsert(make_batch([put("T-1", 5)], task))
        second.upsert(make_batch([put("T-1", 6), delete("T-2", 6)], other))
        for taken in (lambda: second.open([task]), lambda: second.count(task.collection)):
            with pytest.raises(EnvironmentFault, match=f"{task.collection}.* in use .* pid {os.getpid()}"):
                taken()
        with pytest.raises(EnvironmentFault, match="in use"):
            EdgeStore(edge_backend.config, PIPELINE)
        first.close()
        with pytest.raises(EnvironmentFault, match="in use"):
            EdgeStore(edge_backend.config, PIPELINE)
        second.open([task])  # whoever had it is gone
        assert second.count(task.collection) == 1
    finally:
        first.close()
        second.close()
    whole = edge_backend.connect()
    whole.open([task, other])
    assert stored(whole, task) == {key_id("T-1"): (5, False)}
    assert stored(whole, other) == {key_id("T-1"): (6, False), key_id("T-2"): (6, True)}
    with pytest.raises(EnvironmentFault, match="in use"):
        EdgeStore(edge_backend.config, PIPELINE, shared=True)


def test_what_another_sharer_is_making_is_left_to_it(edge_backend: EdgeBackend, task: Task) -> None:
    other = EdgeDirectory(edge_backend.config.path, shared=True)
    unfinished = other.begin("another")
    store = EdgeStore(edge_backend.config, PIPELINE, shared=True)
    store.open([task])
    assert unfinished.is_dir()
    store.close()
    other.close()
    edge_backend.connect()
    assert not unfinished.exists()


def test_a_sharer_leaves_room_for_what_the_others_write(
    edge_backend: EdgeBackend, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (EdgeStore(edge_backend.config, PIPELINE, shared=True) for _ in range(2))
    first.open([task])
    second.open([make_task("technical_issue")])
    monkeypatch.setattr(EdgeDirectory, "free_bytes", 2 * MIN_FREE_BYTES - 1)
    with pytest.raises(TransientError, match="bytes are free on the disk"):
        second.upsert(make_batch([put("T-1", 1)], make_task("technical_issue")))
    first.close()
    second.close()


def test_every_acknowledged_write_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "edge"
    acknowledged = -1
    for round_number in range(3):
        process = subprocess.Popen(  # noqa: S603 - our own script
            [sys.executable, "-c", WRITER, str(path)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        for _ in range(15 + 10 * round_number):
            acknowledged = max(acknowledged, int(process.stdout.readline()))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    backend = EdgeBackend(path)
    store, tasks = backend.connect(), [make_task("one"), make_task("two")]
    store.open(tasks)
    expected = {key_id(key): (5, key % 5 == 0) for key in range(20 * (acknowledged + 1))}
    for task in tasks:
        found = stored(store, task)
        assert {key: found.get(key) for key in expected} == expected
        assert set(found.values()) == {(5, False), (5, True)}
    backend.close()


def test_a_crash_while_a_collection_is_made_leaves_nothing_behind(edge_backend: EdgeBackend, task: Task) -> None:
    edge_backend.connect().close()
    unfinished = edge_backend.config.path / "shards" / f".creating-{task.collection}"
    unfinished.mkdir()
    (unfinished / "rubbish").write_text("half a shard")
    store = edge_backend.connect()
    store.open([task])
    assert not unfinished.exists()
    assert store.count(task.collection) == 0


def test_a_crash_between_making_and_registering_a_collection_is_mended(edge_backend: EdgeBackend, task: Task) -> None:
    store = edge_backend.connect()
    store.open([task])
    store.close()
    (edge_backend.config.path / "collections.json").unlink()
    again = edge_backend.connect()
    again.open([task])
    again.upsert(make_batch([put("k", 1)], task))
    assert again.count(task.collection) == 1


def test_a_lost_register_never_makes_points_disappear_silently(edge_backend: EdgeBackend, task: Task) -> None:
    store = edge_backend.connect()
    store.open([task])
    store.upsert(make_batch([put("k", 1)], task))
    store.close()
    (edge_backend.config.path / "collections.json").unlink()
    with pytest.raises(EnvironmentFault, match="holds points, but the register"):
        edge_backend.connect().open([task])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a register"),
        ("[]", "is not a register"),
        ('{"format": 1}', "is not a register"),
        ('{"format": 99, "collections": {}, "aliases": {}}', "has format 99, this version of refract reads 1"),
    ],
)
def test_a_register_that_cannot_be_read_is_refused_and_kept(
    edge_backend: EdgeBackend, content: str, message: str
) -> None:
    edge_backend.connect().close()
    register = edge_backend.config.path / "collections.json"
    register.write_text(content)
    with pytest.raises(EnvironmentFault, match=message):
        edge_backend.connect()
    assert register.read_text() == content
    register.unlink()
    edge_backend.connect()


def test_a_collection_whose_folder_vanished_is_an_environment_fault(edge_backend: EdgeBackend, task: Task) -> None:
    store = edge_backend.connect()
    store.open([task])
    (edge_backend.config.path / "shards" / task.collection).rename(edge_backend.config.path / "away")
    with pytest.raises(EnvironmentFault, match="has vanished"):
        store.check()
    with pytest.raises(EnvironmentFault, match="flushing collection"):
        store.close()
    with pytest.raises(EnvironmentFault, match="has vanished"):
        edge_backend.connect().open([task])


def test_a_directory_that_cannot_be_made_is_an_environment_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="cannot be used"):
        EdgeBackend(tmp_path / "file" / "edge").connect()


def test_a_registered_collection_is_loaded_when_it_is_first_read(edge_backend: EdgeBackend, task: Task) -> None:
    store = edge_backend.connect()
    store.open([task])
    store.upsert(make_batch([put("k", 1)], task))
    store.close()
    again = edge_backend.connect()
    assert again.count(task.collection) == 1
    assert [hit.id for hit in again.search(task, unit(1.0), 5, ())] == [key_id("k")]


def test_upkeep_runs_after_writes_and_rests_otherwise(
    edge_backend: EdgeBackend, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[bool] = []
    rounds: list[bool] = []
    genuine = EdgeShard.optimize

    def counted(shard: EdgeShard) -> None:
        rounds.append(True)
        if shard._unoptimized:
            runs.append(True)
        genuine(shard)

    monkeypatch.setattr(EdgeShard, "optimize", counted)
    store = edge_backend.connect()
    store.open([task])
    wait_until(lambda: len(rounds) >= 3)
    resting = len(runs)
    store.upsert(make_batch([put("k", 1)], task))
    wait_until(lambda: len(runs) == resting + 1)
    rounds.clear()
    wait_until(lambda: len(rounds) >= 3)
    assert len(runs) == resting + 1


def test_upkeep_that_fails_is_logged_and_tried_again(
    edge_backend: EdgeBackend, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []

    def broken(_shard: EdgeShard) -> None:
        calls.append(True)
        raise TransientError("no space left")

    monkeypatch.setattr(EdgeShard, "optimize", broken)
    store = edge_backend.connect()
    store.open([task])
    wait_until(lambda: len(calls) >= 3)
    store.upsert(make_batch([put("k", 1)], task))


def test_purged_points_leave_the_disk_and_the_rest_stays(edge_backend: EdgeBackend, task: Task) -> None:
    store = edge_backend.connect()
    store.open([task])
    store.upsert(make_batch([delete(key, 1) if key < 1_500 else put(key, 1) for key in range(2_000)], task))
    assert store.purge_tombstones(task.collection, {key_id(key): 1 for key in range(2_000)}) == 1_500
    shard = store._shards[task.collection]  # type: ignore[union-attr]  # the embedded store
    wait_until(lambda: not shard._unoptimized)
    assert stored(store, task) == {key_id(key): (1, False) for key in range(1_500, 2_000)}


def test_a_disk_about_to_be_full_is_an_outage_that_ends_when_there_is_room(
    edge_backend: EdgeBackend, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = edge_backend.connect()
    store.open([task])
    store.upsert(make_batch([put("a", 1)], task))
    with monkeypatch.context() as full:
        full.setattr(EdgeDirectory, "free_bytes", MIN_FREE_BYTES - 1)
        with pytest.raises(TransientError, match="bytes are free on the disk"):
            store.upsert(make_batch([put("b", 1)], task))
        assert store.count(task.collection) == 1
    store.upsert(make_batch([put("b", 1)], task))
    assert store.count(task.collection) == 2


PanicException = type("PanicException", (BaseException,), {})


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (Exception("Service runtime error: No space left on device (os error 28)"), TransientError),
        (OSError(28, "No space left on device"), TransientError),
        (OSError(5, "Input/output error"), EnvironmentFault),
        (Exception("Service runtime error: anything else"), EnvironmentFault),
        (PanicException("boom"), EnvironmentFault),
        (RecordError(Reason.INVALID_TEXT), RecordError),
    ],
)
def test_what_edge_raises_becomes_one_of_our_classes(raised: BaseException, expected: type[RefractError]) -> None:
    with pytest.raises(expected), edge_errors("writing"):
        raise raised


@pytest.mark.parametrize("raised", [TypeError("a bug of ours"), KeyboardInterrupt()])
def test_what_is_no_failure_of_the_store_passes_unchanged(raised: BaseException) -> None:
    with pytest.raises(type(raised)), edge_errors("reading"):
        raise raised
