"""A fragment's way through a carrier: bounded, checkpointed in order, flushed before it is over, its rejects told."""

import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.backfill import carrier as carrier_module
from pipeline.backfill.carrier import BATCH_VECTOR_BYTES, BatchSize, Carrier, UnflushedError, _Room
from pipeline.backfill.fragments import Fragment, list_fragments
from pipeline.backfill.rows import FragmentFault
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


def write(folder: Path, **columns: Any) -> Fragment:
    keys = [f"K-{number}" for number in range(NUM_ROWS)]
    table = {"id": keys, "title": [f"text {key}" for key in keys], "v": [1] * NUM_ROWS} | columns
    pq.write_table(pa.table(table), folder / "a.parquet")
    [fragment] = list_fragments([str(folder / "a.parquet")])
    return fragment


def carrier_of(
    folder: Path,
    store: FakeStore,
    embedder: FakeEmbedder | None = None,
    *,
    growing: bool = False,
    rest: float = 0.0,
    **limits: int,
) -> Carrier:
    return Carrier(
        config_of(folder, {"max_batch_records": BATCH, **limits}),
        "tickets",
        {"one": TASK},
        tokenizers={"null": FakeTokenizer()},
        embedder=embedder or FakeEmbedder(),
        open_store=lambda _fragment, _tasks: store,
        growing=growing,
        rest=rest,
    )


def stored(store: FakeStore) -> set[int]:
    return {version for version, _, _ in store.points.get(TASK.collection, {}).values()}


def test_every_row_is_stored_and_flushed_with_the_lowest_priority(tmp_path: Path) -> None:
    store, embedder = FakeStore(), FakeEmbedder()
    carrier = carrier_of(tmp_path, store, embedder)
    outcome = carrier.carry(write(tmp_path, title=["", *["text"] * (NUM_ROWS - 1)]), ["one"], 0)
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
    carrier, fragment = carrier_of(tmp_path, store), write(tmp_path)
    with pytest.raises(UnflushedError, match=r"a\.parquet.*store died"):
        carrier.carry(fragment, ["one"], 0)
    assert carrier.counts().rows == 0  # it is under way no longer
    outcome = carrier.carry(fragment, ["one"], 0)
    assert (outcome.next_row, store.num_flushes) == (NUM_ROWS, 2)
    carrier.close()


@pytest.mark.parametrize(
    ("growing", "patience_s", "sizes"),
    [(True, 1_000.0, {BATCH, 4 * BATCH}), (True, 0.0, {BATCH}), (False, 1_000.0, {BATCH})],
)
def test_batches_grow_where_they_are_soon_through_and_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, growing: bool, patience_s: float, sizes: set[int]
) -> None:
    monkeypatch.setattr(carrier_module, "BATCH_S", patience_s)
    store, embedder = FakeStore(), FakeEmbedder()
    carrier = carrier_of(tmp_path, store, embedder, growing=growing, max_concurrent_batches=1)
    carrier.carry(write(tmp_path), ["one"], 0)
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
    carrier = carrier_of(tmp_path, GatedStore(), rest=rest, max_concurrent_batches=1)
    rests: list[float] = []
    monkeypatch.setattr(carrier._stop, "wait", rests.append)
    began_s = time.monotonic()
    carrier.carry(write(tmp_path), ["one"], 0)
    elapsed_s = time.monotonic() - began_s
    assert len(rests) == (NUM_ROWS // BATCH if rest else 0)
    assert sum(rests) <= rest * elapsed_s
    assert not rest or min(rests) > 0
    carrier.close()


def test_of_a_key_that_is_there_twice_the_newest_stays_and_of_equals_one(tmp_path: Path) -> None:
    store = CountingStore()
    carrier = carrier_of(tmp_path, store)
    keys = [f"K-{number % 5}" for number in range(NUM_ROWS)]
    outcome = carrier.carry(write(tmp_path, id=keys, v=list(range(NUM_ROWS))), ["one"], 0)
    assert stored(store) == set(range(NUM_ROWS - 5, NUM_ROWS))
    assert outcome.counts.points - outcome.counts.stale == len(store.written)
    carrier.close()


def test_a_checkpoint_names_rows_below_which_everything_is_flushed(tmp_path: Path) -> None:
    store = GatedStore(let_through=7)
    carrier = carrier_of(tmp_path, store, max_concurrent_batches=1)  # so that batches end in order
    fragment = write(tmp_path)
    thread = threading.Thread(target=carrier.carry, args=(fragment, ["one"], 0))
    thread.start()
    while len(store.upserts) < 7:
        time.sleep(0.01)
    deadline_s = time.monotonic() + 20
    found: dict[str, Any] = {}
    while time.monotonic() < deadline_s and (not found or found[fragment.name].next_row < 7 * BATCH):
        found = carrier.checkpoints() or found
        time.sleep(0.01)
    assert found[fragment.name].next_row == 7 * BATCH
    assert store.num_flushes >= 1
    assert carrier.checkpoints() == {}  # nothing more since
    assert carrier.counts().written == carrier.counts().finished == 7 * BATCH < carrier.counts().rows
    store.gate.release(10_000)
    thread.join(20)
    assert len(store.points[TASK.collection]) == NUM_ROWS

    later = FakeStore()
    again = carrier_of(tmp_path, later)
    outcome = again.carry(fragment, ["one"], found[fragment.name].next_row)
    assert outcome.counts.rows == NUM_ROWS - 7 * BATCH
    assert len(later.points[TASK.collection]) == NUM_ROWS - 7 * BATCH
    carrier.close()
    again.close()


def test_rows_in_flight_are_bounded_by_batches(tmp_path: Path) -> None:
    store = GatedStore(let_through=0)
    carrier = carrier_of(tmp_path, store, max_concurrent_batches=2)
    thread = threading.Thread(target=carrier.carry, args=(write(tmp_path), ["one"], 0))
    thread.start()
    time.sleep(0.5)
    read = carrier.counts().rows
    assert 0 < read <= 4 * BATCH  # two batches for each of two threads; one more waits for room
    store.gate.release(10_000)
    thread.join(20)
    carrier.close()


def test_bytes_in_flight_are_bounded_and_a_larger_batch_goes_alone() -> None:
    room = _Room(100, 10)

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
    outcome = carrier.carry(write(tmp_path), ["one"], 0)
    assert (outcome.counts.retries, len(store.points[TASK.collection])) == (1, NUM_ROWS)
    store.failures.append(EnvironmentFault("wrong credentials"))
    with pytest.raises(EnvironmentFault, match="wrong credentials"):
        carrier.carry(write(tmp_path), ["one"], 0)
    carrier.close()


def test_a_fragment_of_nothing_but_bad_rows_is_refused_instead_of_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrier_module, "MAX_REJECTS", 50)
    carrier = carrier_of(tmp_path, FakeStore())
    with pytest.raises(FragmentFault, match="more than 50 rows were refused, the last with text_empty"):
        carrier.carry(write(tmp_path, title=[""] * NUM_ROWS), ["one"], 0)
    carrier.close()
