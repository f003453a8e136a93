"""A fragment's way through a carrier: bounded, checkpointed in order, flushed before it is over, its rejects told."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.backfill import bounds as bounds_module
from pipeline.backfill import tally as tally_module
from pipeline.backfill.bounds import BATCH_VECTOR_BYTES, BatchSize, Room
from pipeline.backfill.carrier import Carrier, Manner, Tools, WorkInterruptedError
from pipeline.backfill.inputs import list_inputs
from pipeline.backfill.rows import FragmentFault
from pipeline.backfill.work import Work
from pipeline.errors import EnvironmentFault, TransientError
from pipeline.records.batches import PointBatch, Priority
from pipeline.records.record import Delivery, Partition, Position, Receipt
from tests.fakes import FakeEmbedder, FakeStore, FakeTokenizer, task
from tests.unit.test_backfill import config_of

TASK = task("one", "null")
NUM_ROWS = 300
BATCH = 10


class CountingStore(FakeStore):
    """Counts the writes that were no loss against a newer version."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[int] = []

    def upsert(self, batch: PointBatch) -> Any:
        found = super().upsert(batch)
        self.written += [0] * (len(batch) - sum(found.stale.values()))
        return found


class GatedStore(FakeStore):
    """Lets the first upserts through, and the rest when told."""

    def __init__(self, let_through: int = 10_000) -> None:
        super().__init__()
        self.gate = threading.Semaphore(let_through)

    def upsert(self, batch: PointBatch) -> Any:
        assert self.gate.acquire(timeout=20)
        return super().upsert(batch)


class FailingFlush(FakeStore):
    """Goes away during its first flush."""

    def flush(self) -> None:
        super().flush()
        if self.num_flushes == 1:
            raise TransientError("store died while it worked on a call")


def write(folder: Path, start: int = 0, **columns: Any) -> Work:
    keys = [f"K-{number}" for number in range(NUM_ROWS)]
    table = {"id": keys, "title": [f"text {key}" for key in keys], "v": [1] * NUM_ROWS} | columns
    pq.write_table(pa.table(table), folder / "a.parquet")
    [fragment] = list_inputs([str(folder / "a.parquet")]).fragments
    return Work(fragment, ["one"], start)


def carrier_of(
    folder: Path,
    store: FakeStore,
    embedder: FakeEmbedder | None = None,
    *,
    manner: Manner | None = None,
    **limits: int,
) -> Carrier:
    return Carrier(
        config_of(folder, {"max_batch_records": BATCH, **limits}),
        "tickets",
        {"one": TASK},
        Tools({"null": FakeTokenizer()}, embedder or FakeEmbedder(), lambda _fragment, _tasks: store),
        manner,
    )


def stored(store: FakeStore) -> set[int]:
    return {version for version, _, _ in store.points.get(TASK.collection, {}).values()}


def test_every_row_is_stored_and_flushed_with_the_lowest_priority(tmp_path: Path) -> None:
    store, embedder = FakeStore(), FakeEmbedder()
    carrier = carrier_of(tmp_path, store, embedder)
    outcome = carrier.carry(write(tmp_path, title=["", *["text"] * (NUM_ROWS - 1)]))
    assert len(store.points[TASK.collection]) == NUM_ROWS - 1
    assert store.num_flushes == 1
    assert {priority for _, _, priority in embedder.calls} == {Priority.BACKFILL}
    counts = outcome.counts
    assert (counts.rows, counts.embedded, counts.written) == (NUM_ROWS, NUM_ROWS - 1, NUM_ROWS - 1)
    assert counts.finished == NUM_ROWS
    assert counts.tokens == 4 * (NUM_ROWS - 1)
    assert (outcome.next_row, dict(counts.rejected)) == (NUM_ROWS, {"text_empty": 1})
    assert [(reject.row, reject.reason) for reject in outcome.rejects] == [(0, "text_empty")]
    carrier.close()


def test_a_fragment_whose_flush_failed_is_not_through_and_may_be_carried_again(tmp_path: Path) -> None:
    store = FailingFlush()
    carrier, work = carrier_of(tmp_path, store), write(tmp_path)
    with pytest.raises(WorkInterruptedError, match=r"a\.parquet.*store died"):
        carrier.carry(work)
    assert carrier.counts().rows == 0  # it is under way no longer
    outcome = carrier.carry(work)
    assert (outcome.next_row, store.num_flushes) == (NUM_ROWS, 2)
    carrier.close()


def test_a_fragment_whose_source_went_away_is_carried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_given: object) -> Iterator[list[Delivery]]:
        yield from ()
        raise TransientError("no answer from the brokers")

    carrier, work = carrier_of(tmp_path, FakeStore()), write(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(carrier._reader, "batches", away)
        with pytest.raises(WorkInterruptedError, match=r"a\.parquet.*no answer"):
            carrier.carry(work)
    assert carrier.carry(work).next_row == NUM_ROWS
    carrier.close()


@pytest.mark.parametrize(
    ("growing", "patience_s", "sizes"),
    [(True, 1_000.0, {BATCH, 4 * BATCH}), (True, 0.0, {BATCH}), (False, 1_000.0, {BATCH})],
)
def test_batches_grow_where_they_are_soon_through_and_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, growing: bool, patience_s: float, sizes: set[int]
) -> None:
    monkeypatch.setattr(bounds_module, "BATCH_S", patience_s)
    store, embedder = FakeStore(), FakeEmbedder()
    carrier = carrier_of(tmp_path, store, embedder, manner=Manner(growing=growing), max_concurrent_batches=1)
    carrier.carry(write(tmp_path))
    assert {len(batch) for batch in store.upserts[:-1]} == sizes  # the last one is what is left
    assert len(store.points[TASK.collection]) == NUM_ROWS
    carrier.close()


def test_a_batch_grows_to_what_takes_two_seconds_and_to_bounded_vectors() -> None:
    size = BatchSize(512, row_bytes=3_072)
    for num_rows, seconds, rows in ((512, 1.0, 1_024), (1_024, 0.001, 2_048), (2_048, 8.0, 512), (3, 0.0, 2_048)):
        size.adapt(num_rows, seconds)
        assert size.rows == rows
    for row_bytes, rows in ((BATCH_VECTOR_BYTES // 1_000, 1_000), (BATCH_VECTOR_BYTES, 512)):
        wide = BatchSize(512, row_bytes)
        wide.adapt(512, 0.001)
        assert wide.rows == rows


@pytest.mark.parametrize("rest", [0.0, 3.0])
def test_a_carrier_that_shares_rests_after_each_batch_by_what_it_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rest: float
) -> None:
    carrier = carrier_of(tmp_path, GatedStore(), manner=Manner(rest=rest), max_concurrent_batches=1)
    rests: list[float] = []
    monkeypatch.setattr(carrier._stop, "wait", rests.append)
    began_s = time.monotonic()
    carrier.carry(write(tmp_path))
    elapsed_s = time.monotonic() - began_s
    assert len(rests) == (NUM_ROWS // BATCH if rest else 0)
    assert sum(rests) <= rest * elapsed_s
    assert not rest or min(rests) > 0
    carrier.close()


def test_of_a_key_that_is_there_twice_the_newest_stays_and_of_equals_one(tmp_path: Path) -> None:
    store = CountingStore()
    carrier = carrier_of(tmp_path, store)
    keys = [f"K-{number % 5}" for number in range(NUM_ROWS)]
    outcome = carrier.carry(write(tmp_path, id=keys, v=list(range(NUM_ROWS))))
    assert stored(store) == set(range(NUM_ROWS - 5, NUM_ROWS))
    assert outcome.counts.points - outcome.counts.stale == len(store.written)
    carrier.close()


def test_a_checkpoint_names_rows_below_which_everything_is_flushed(tmp_path: Path) -> None:
    store = GatedStore(let_through=7)
    carrier = carrier_of(tmp_path, store, max_concurrent_batches=1)  # so that batches end in order
    work = write(tmp_path)
    thread = threading.Thread(target=carrier.carry, args=(work,))
    thread.start()
    while len(store.upserts) < 7:
        time.sleep(0.01)
    deadline_s = time.monotonic() + 20
    found: dict[str, Any] = {}
    while time.monotonic() < deadline_s and (not found or found[work.name].next_row < 7 * BATCH):
        found = carrier.checkpoints() or found
        time.sleep(0.01)
    assert found[work.name].next_row == 7 * BATCH
    assert store.num_flushes >= 1
    assert carrier.checkpoints() == {}  # nothing more since
    assert carrier.counts().written == carrier.counts().finished == 7 * BATCH < carrier.counts().rows
    store.gate.release(10_000)
    thread.join(20)
    assert len(store.points[TASK.collection]) == NUM_ROWS

    later = FakeStore()
    again = carrier_of(tmp_path, later)
    outcome = again.carry(write(tmp_path, found[work.name].next_row))
    assert outcome.counts.rows == NUM_ROWS - 7 * BATCH
    assert len(later.points[TASK.collection]) == NUM_ROWS - 7 * BATCH
    carrier.close()
    again.close()


def test_rows_in_flight_are_bounded_by_batches(tmp_path: Path) -> None:
    store = GatedStore(let_through=0)
    carrier = carrier_of(tmp_path, store, max_concurrent_batches=2)
    thread = threading.Thread(target=carrier.carry, args=(write(tmp_path),))
    thread.start()
    time.sleep(0.5)
    read = carrier.counts().rows
    assert 0 < read <= 4 * BATCH  # two batches for each of two threads; one more waits for room
    store.gate.release(10_000)
    thread.join(20)
    carrier.close()


def test_bytes_in_flight_are_bounded_and_a_larger_batch_goes_alone() -> None:
    room = Room(100, 10)

    def batch(num_bytes: int) -> list[Delivery]:
        position = Position("t", 0, 0, 0)
        return [Delivery(Receipt(Partition("t", 0), 0, 1, 0.0), position, num_bytes, error=None)]

    taken = room.take(batch(1_000))
    entered = threading.Event()

    def enter() -> None:
        room.take(batch(1))
        entered.set()

    thread = threading.Thread(target=enter)
    thread.start()
    assert not entered.wait(0.1)
    with room.giving_back(taken):
        pass
    assert entered.wait(5)
    thread.join()


def test_an_outage_is_repeated_and_counted_and_a_fault_of_the_store_is_raised(tmp_path: Path) -> None:
    store = FakeStore()
    store.failures.append(TransientError("away"))
    carrier = carrier_of(tmp_path, store)
    outcome = carrier.carry(write(tmp_path))
    assert (outcome.counts.retries, len(store.points[TASK.collection])) == (1, NUM_ROWS)
    store.failures.append(EnvironmentFault("wrong credentials"))
    with pytest.raises(EnvironmentFault, match="wrong credentials"):
        carrier.carry(write(tmp_path))
    carrier.close()


def test_a_fragment_of_nothing_but_bad_rows_is_refused_instead_of_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tally_module, "MAX_REJECTS", 50)
    carrier = carrier_of(tmp_path, FakeStore())
    with pytest.raises(FragmentFault, match="more than 50 rows were refused, the last with text_empty"):
        carrier.carry(write(tmp_path, title=[""] * NUM_ROWS))
    carrier.close()


def test_a_carrier_that_writes_whole_files_has_no_checkpoints(tmp_path: Path) -> None:
    store = GatedStore(let_through=7)
    carrier = carrier_of(tmp_path, store, manner=Manner(whole=True), max_concurrent_batches=1)
    thread = threading.Thread(target=carrier.carry, args=(write(tmp_path),))
    thread.start()
    while len(store.upserts) < 7:
        time.sleep(0.01)
    assert carrier.checkpoints() == {}
    assert store.num_flushes == 0
    store.gate.release(10_000)
    thread.join(20)
    carrier.close()


def test_a_carrier_that_stops_ends_what_is_under_way(tmp_path: Path) -> None:
    store = GatedStore(let_through=1)
    carrier = carrier_of(tmp_path, store, max_concurrent_batches=1)
    raised: list[BaseException] = []

    def carry() -> None:
        try:
            carrier.carry(write(tmp_path))
        except TransientError as error:
            raised.append(error)

    thread = threading.Thread(target=carry)
    thread.start()
    while not store.upserts:
        time.sleep(0.01)
    carrier.stop()
    store.gate.release()
    thread.join(20)
    assert [str(error) for error in raised] == ["the backfill is stopped"]
    assert len(store.upserts) <= 2
    carrier.close()
