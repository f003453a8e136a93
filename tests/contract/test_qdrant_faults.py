"""What a Qdrant server's bad days turn into: every row of the error table, over a real connection."""

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from pipeline.binding import Task
from pipeline.errors import (
    BatchShapeError,
    EnvironmentFault,
    Reason,
    RecordError,
    RefractError,
    TransientError,
    UnknownOutcomeError,
)
from pipeline.stores.qdrant import QdrantStore
from tests.contract.store_backends import QdrantBackend, key_id, make_batch, put, stored, unit
from tests.qdrant_server.faults import Fault, FaultFile
from tests.qdrant_server.process import QdrantServer

UPSERT = "Points/Upsert"


@pytest.fixture
def faults(qdrant_server: QdrantServer) -> FaultFile:
    return qdrant_server.faults


@pytest.fixture
def task(qdrant_backend: QdrantBackend) -> Task:
    return qdrant_backend.task()


@pytest.fixture
def store(qdrant_backend: QdrantBackend, task: Task) -> QdrantStore:
    opened = qdrant_backend.connect()
    assert isinstance(opened, QdrantStore)
    opened.open([task])
    return opened


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[QdrantServer]:
    """A server this test may kill."""
    server = QdrantServer(tmp_path / "own").start()
    yield server
    server.stop()


Result = TypeVar("Result")


def repeated(call: Callable[[], Result]) -> Result:
    """Repeats a call through an outage, as the worker does."""
    waiting = threading.Event()
    for _ in range(100):
        try:
            return call()
        except TransientError:
            waiting.wait(0.1)
    raise AssertionError("the outage never ended")


def connected(server: QdrantServer, task: Task, **settings: float) -> QdrantStore:
    opened = QdrantBackend(server.url, **settings).connect()
    assert isinstance(opened, QdrantStore)
    opened.open([task])
    return opened


TABLE: list[tuple[str, str, type[RefractError]]] = [
    ("UNAUTHENTICATED", "Must provide an API key", EnvironmentFault),
    ("PERMISSION_DENIED", "Forbidden: write access is required", EnvironmentFault),
    ("NOT_FOUND", "Not found: Collection `x` doesn't exist!", EnvironmentFault),
    ("UNIMPLEMENTED", "", EnvironmentFault),
    ("DATA_LOSS", "Checksum mismatch", EnvironmentFault),
    ("INVALID_ARGUMENT", "Wrong input: Vector dimension error: expected dim: 5, got 4", EnvironmentFault),
    ("RESOURCE_EXHAUSTED", "Quota exceeded: disk usage", TransientError),
    ("UNAVAILABLE", "Shard 0 is not available", TransientError),
    ("UNAVAILABLE", "failed to connect to all addresses", TransientError),
    ("INTERNAL", "Service internal error: No space left on device (os error 28)", TransientError),
    ("INTERNAL", "Service internal error: anything", TransientError),
    ("FAILED_PRECONDITION", "Locked: write operations are disabled", TransientError),
    ("UNAVAILABLE", "Socket closed", UnknownOutcomeError),
    ("INTERNAL", "Received RST_STREAM with error code 2", UnknownOutcomeError),
    ("DEADLINE_EXCEEDED", "Timeout: update", UnknownOutcomeError),
    ("CANCELLED", "", UnknownOutcomeError),
    ("ABORTED", "", UnknownOutcomeError),
    ("UNKNOWN", "transport error", UnknownOutcomeError),
]


@pytest.mark.parametrize(("code", "detail", "expected"), TABLE)
def test_an_answer_belongs_to_one_class(
    store: QdrantStore, task: Task, faults: FaultFile, code: str, detail: str, expected: type[RefractError]
) -> None:
    faults.set(Fault(UPSERT, code=code, detail=detail))
    with pytest.raises(RefractError) as caught:
        store.upsert(make_batch([put("a", 1), put("b", 1)], task))
    assert type(caught.value) is expected
    assert task.collection in str(caught.value)
    store.upsert(make_batch([put("a", 1), put("b", 1)], task))
    assert len(stored(store, task)) == 2


SPLITTING = [
    ("INTERNAL", "failed to decode Protobuf message: recursion limit reached"),
    ("INVALID_ARGUMENT", "Wrong input: payload"),
    ("INVALID_ARGUMENT", "Bad request: Upsert limit exceeded 512 > 100"),
    (
        "RESOURCE_EXHAUSTED",
        "Rate limiting exceeded: request larger than rate limiter capacity, please try to split your request",
    ),
    ("RESOURCE_EXHAUSTED", "SERVER: Received message larger than max (5 vs. 4)"),
    ("OUT_OF_RANGE", "Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes"),
]


@pytest.mark.parametrize(("code", "detail"), SPLITTING)
def test_what_is_wrong_with_a_batch_is_split_and_with_one_point_final(
    store: QdrantStore, task: Task, faults: FaultFile, code: str, detail: str
) -> None:
    faults.set(Fault(UPSERT, times=2, code=code, detail=detail))
    with pytest.raises(BatchShapeError):
        store.upsert(make_batch([put("a", 1), put("b", 1)], task))
    with pytest.raises(RecordError) as caught:
        store.upsert(make_batch([put("a", 1)], task))
    assert caught.value.reason is Reason.REFUSED_BY_STORE


@pytest.mark.parametrize(("header", "pause_s"), [("3", 3.0), ("soon", None)])
def test_a_rate_limit_says_how_long_to_wait(
    store: QdrantStore, task: Task, faults: FaultFile, header: str, pause_s: float | None
) -> None:
    faults.set(
        Fault(UPSERT, code="RESOURCE_EXHAUSTED", detail="Rate limiting exceeded", trailing={"retry-after": header})
    )
    with pytest.raises(TransientError) as caught:
        store.upsert(make_batch([put("a", 1)], task))
    assert type(caught.value) is TransientError
    assert caught.value.retry_after_s == pause_s


@pytest.mark.parametrize("status", ["Acknowledged", "WaitTimeout", "ClockRejected", "UnknownUpdateStatus"])
def test_only_completed_is_success(store: QdrantStore, task: Task, faults: FaultFile, status: str) -> None:
    faults.set(Fault(UPSERT, status=status))
    with pytest.raises(UnknownOutcomeError, match=status):
        store.upsert(make_batch([put("a", 1)], task))


def test_a_lost_answer_is_an_unknown_outcome_and_repeating_changes_nothing(
    store: QdrantStore, task: Task, faults: FaultFile
) -> None:
    faults.set(Fault(UPSERT, code="UNAVAILABLE", detail="Socket closed", apply=True))
    batch = make_batch([put("a", 1), put("b", 1)], task)
    with pytest.raises(UnknownOutcomeError):
        store.upsert(batch)
    applied = stored(store, task)
    assert len(applied) == 2
    assert store.upsert(batch).stale == {task.collection: 0}
    assert stored(store, task) == applied


def test_a_server_that_dies_after_applying_is_an_unknown_outcome_and_keeps_the_write(
    own_server: QdrantServer, task: Task
) -> None:
    store = connected(own_server, task)
    own_server.faults.set(Fault(UPSERT, apply=True, exit=True))
    with pytest.raises(UnknownOutcomeError):
        store.upsert(make_batch([put("a", 1)], task))
    own_server.wait()
    with pytest.raises(TransientError):
        store.upsert(make_batch([put("b", 1)], task))
    own_server.faults.clear()
    own_server.start()
    assert repeated(lambda: stored(store, task)) == {key_id("a"): (1, False)}
    store.close()


def test_acknowledged_writes_survive_kill_9_of_the_server_in_a_loop(own_server: QdrantServer, task: Task) -> None:
    store = connected(own_server, task)
    for version in range(4):
        batch = make_batch([put(key, version) for key in range(60)], task)
        write = partial(store.upsert, batch)
        write()
        own_server.kill()
        with pytest.raises(TransientError):
            write()
        own_server.start()
        assert repeated(lambda: stored(store, task)) == {key_id(key): (version, False) for key in range(60)}
        assert repeated(write).stale == {task.collection: 0}
    store.close()


def test_a_server_that_hangs_is_an_unknown_outcome_within_the_timeout(own_server: QdrantServer, task: Task) -> None:
    store = connected(own_server, task, timeout_s=0.5)
    own_server.pause()
    started = time.monotonic()
    with pytest.raises(UnknownOutcomeError, match="DEADLINE_EXCEEDED"):
        store.upsert(make_batch([put("a", 1)], task))
    assert time.monotonic() - started < 5
    own_server.resume()
    assert repeated(lambda: store.upsert(make_batch([put("a", 1)], task)).stale) == {task.collection: 0}
    store.close()


def test_no_server_at_all_is_an_outage(tmp_path: Path, task: Task) -> None:
    server = QdrantServer(tmp_path / "gone").start()
    server.kill()
    store = QdrantBackend(server.url).connect()
    for call in (lambda: store.open([task]), store.check):
        with pytest.raises(TransientError):
            call()
    store.close()


def test_a_collection_that_vanished_is_an_environment_fault_and_is_not_made_again(
    qdrant_backend: QdrantBackend, store: QdrantStore, task: Task
) -> None:
    store.upsert(make_batch([put("a", 1)], task))
    qdrant_backend.drop(task.collection)
    for _ in range(2):
        with pytest.raises(EnvironmentFault, match="does not exist"):
            store.upsert(make_batch([put("b", 1)], task))
    with pytest.raises(EnvironmentFault):
        store.search(task, unit(1.0), 5, ())
    assert task.collection not in qdrant_backend.names()


def test_of_two_collections_that_fail_differently_the_graver_failure_is_raised(
    qdrant_backend: QdrantBackend, store: QdrantStore, task: Task, faults: FaultFile
) -> None:
    other = qdrant_backend.task("other")
    store.open([other])
    qdrant_backend.drop(other.collection)
    faults.set(Fault(UPSERT, times=1, code="UNAVAILABLE", detail="Shard 0 is not available"))
    batch = make_batch([put("a", 1)], task, other)
    with pytest.raises((EnvironmentFault, TransientError)):
        store.upsert(batch)
    with pytest.raises(EnvironmentFault):
        store.upsert(batch)
    assert stored(store, task) == {key_id("a"): (1, False)}


def test_collections_of_one_batch_are_written_side_by_side(
    qdrant_backend: QdrantBackend, store: QdrantStore, task: Task, faults: FaultFile
) -> None:
    other = qdrant_backend.task("other")
    store.open([other])
    faults.set(Fault(UPSERT, times=2, delay_s=1.5))
    started = time.monotonic()
    store.upsert(make_batch([put("a", 1)], task, other))
    assert time.monotonic() - started < 2.9


def test_a_read_back_that_fails_is_raised_after_the_write(store: QdrantStore, task: Task, faults: FaultFile) -> None:
    faults.set(Fault("Points/Get", code="UNAVAILABLE", detail="Shard 0 is not available"))
    with pytest.raises(TransientError, match="reading back"):
        store.upsert(make_batch([put("a", 1)], task))
    assert stored(store, task) == {key_id("a"): (1, False)}


@pytest.mark.parametrize("method", ["Points/Query", "Points/Scroll", "Points/Count", "Points/Get", "Collections/List"])
def test_reads_translate_their_failures_too(store: QdrantStore, task: Task, faults: FaultFile, method: str) -> None:
    faults.set(Fault(method, times=-1, code="UNAVAILABLE", detail="Shard 0 is not available"))
    calls: dict[str, Callable[[], object]] = {
        "Points/Query": lambda: store.search(task, unit(1.0), 5, ()),
        "Points/Scroll": lambda: store.scroll(task.collection, None, 5),
        "Points/Count": lambda: store.count(task.collection),
        "Points/Get": lambda: store.retrieve(task.collection, [key_id("a")]),
        "Collections/List": store.check,
    }
    with pytest.raises(TransientError):
        calls[method]()


def test_a_collection_whose_creation_was_answered_by_silence_is_used(
    qdrant_backend: QdrantBackend, faults: FaultFile
) -> None:
    task = qdrant_backend.task("silent")
    faults.set(Fault("Collections/Create", code="UNAVAILABLE", detail="Socket closed", apply=True))
    store = qdrant_backend.connect()
    store.open([task])
    store.upsert(make_batch([put("a", 1)], task))
    assert store.count(task.collection) == 1


def test_a_collection_that_could_not_be_created_is_an_outage(qdrant_backend: QdrantBackend, faults: FaultFile) -> None:
    faults.set(Fault("Collections/Create", code="UNAVAILABLE", detail="Socket closed"))
    with pytest.raises(UnknownOutcomeError):
        qdrant_backend.connect().open([qdrant_backend.task("never")])
