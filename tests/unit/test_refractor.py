"""One batch, from delivery to finished: dedupe, embed, write, dead-letter, and only then finish."""

from dataclasses import replace
from threading import Event

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from pipeline.errors import BatchShapeError, EnvironmentFault, Reason, RecordError, TransientError, UnknownOutcomeError
from pipeline.live.conflicts import Conflicts
from pipeline.live.observer import IngestObserver
from pipeline.live.offsets import OffsetTracker
from pipeline.live.refractor import Refractor
from pipeline.live.retry import Retrier
from pipeline.live.routes import Ports, Routes
from pipeline.metrics import IngestMetrics
from pipeline.records.batches import Embeddings, Priority, TokenBatch
from pipeline.records.record import Delivery, PointIds, Record, point_id
from tests.fakes import FakeDeadLetters, FakeEmbedder, FakeSource, FakeStore, FakeTokenizer, record, task, vector

URGENCY, ISSUE = task("urgency"), task("issue")
MAX_RETRIES = 10
"""More than any test provokes."""


class Bench:
    """A refractor on fakes, with two tasks of one topic."""

    def __init__(self, embedder: FakeEmbedder | None = None, store: FakeStore | None = None) -> None:
        self.tracker = OffsetTracker()
        self.source = FakeSource(self.tracker)
        self.store = store or FakeStore()
        self.letters = FakeDeadLetters()
        self.embedder = embedder or FakeEmbedder()
        self.registry = CollectorRegistry()
        self.stop = Event()
        self.num_retries = 0
        observer = IngestObserver(IngestMetrics(self.registry), wall_clock=lambda: 1.5)
        self.ports = Ports(self.embedder, self.store, self.letters, Retrier(self.stop, self._on_retry), observer)
        routes = Routes(
            PointIds("support", {"tickets": "tickets"}),
            {"tickets": [URGENCY, ISSUE]},
            {"m": FakeTokenizer(max_length=12)},
        )
        self.refractor = Refractor(routes, self.ports, self.tracker)

    def _on_retry(self, component: str) -> None:  # noqa: ARG002 - the fake only counts
        self.num_retries += 1
        if self.num_retries > MAX_RETRIES:
            self.stop.set()  # an error that is repeated for ever fails its test at once

    def deliver(self, *items: Record | Reason) -> list[Delivery]:
        return [self.source.deliver(item) for item in items]

    def process(self, *items: Record | Reason) -> None:
        self.refractor.process(self.deliver(*items))

    def sample(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"topic": "tickets", **labels})


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr("pipeline.live.retry.FIRST_WAIT_S", 0.0001)
    return Bench()


def test_record_becomes_one_point_per_task_with_that_tasks_vector(bench: Bench) -> None:
    bench.process(record("a", 7, "no heating"))
    for wanted in (URGENCY, ISSUE):
        version, deleted, row = bench.store.points[wanted.collection][point_id("support", "tickets", "s:a")]
        assert (version, deleted) == (7, False)
        assert row is not None
        assert np.array_equal(row, vector(wanted.name, "no heating"))
    assert bench.tracker.advance().offsets == {bench.source.partition: 1}


def test_text_is_tokenised_and_sent_once_for_all_tasks_of_a_model(bench: Bench) -> None:
    bench.process(record("a", 1), record("b", 1))
    ((model, batch, priority),) = bench.embedder.calls
    assert (model, batch.prompts, batch.num_texts, priority) == ("m", ("urgency", "issue"), 2, Priority.LIVE)


@pytest.mark.parametrize("versions", [(5, 9), (9, 5)])
def test_batch_keeps_only_the_newest_version_of_a_key_in_either_order(bench: Bench, versions: tuple[int, int]) -> None:
    bench.process(*(record("a", version, f"text {version}") for version in versions))
    (batch,) = bench.store.upserts
    assert batch.versions.tolist() == [9]
    assert bench.sample("refract_points_stale_total", task="urgency") == 1
    assert bench.tracker.advance().offsets == {bench.source.partition: 2}


def test_first_of_two_equal_versions_wins(bench: Bench) -> None:
    bench.process(record("a", 5, "first"), record("a", 5, "second"))
    (batch,) = bench.store.upserts
    assert np.array_equal(batch.vectors[URGENCY.collection][0], vector("urgency", "first"))


def test_older_version_is_stored_when_the_newer_one_of_its_batch_is_dead_lettered(bench: Bench) -> None:
    bench.embedder.nan_texts = {"poison"}
    bench.process(record("a", 1, "one"), record("a", 2, "two"), record("a", 3, "poison"), record("b", 1))
    assert bench.store.points[URGENCY.collection][point_id("support", "tickets", "s:a")][0] == 2
    assert [letter.position.offset for letter in bench.letters.letters] == [2]
    assert bench.sample("refract_points_stale_total", task="urgency") == 1
    assert bench.tracker.advance().offsets == {bench.source.partition: 4}


def test_records_of_one_version_that_differ_are_counted_also_across_batches(bench: Bench) -> None:
    again = record("a", 5, "first", offset=7)
    with capture_logs() as logs:
        bench.process(record("a", 5, "first"), record("b", 5, "x"))
        bench.process(again, record("b", 6, "y"))
        assert bench.sample("refract_version_conflicts_total") == 0
        bench.process(record("a", 5, "second"))
        bench.process(replace(record("b", 6, "y"), payload={"team": "z"}), record("a", 4, "older"))
    assert bench.sample("refract_version_conflicts_total") == 2
    assert [entry["event"][:40] for entry in logs if "differ" in entry["event"]] == [
        "Records of one key and version differ: t"
    ]


def test_memory_of_versions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.live.conflicts.REMEMBERED_KEYS", 3)
    conflicts = Conflicts()
    for number in range(9):
        assert conflicts.count([(bytes([number]), record("k", 1, "x"))]) == 0
    assert conflicts.count([(bytes([number]), record("k", 1, "y")) for number in range(9)]) == 3


def test_kafka_keys_that_spell_other_keys_are_counted_and_told_once(bench: Bench) -> None:
    odd = [replace(record(key, 1), is_key_misspelt=key != "c") for key in "abc"]
    with capture_logs() as logs:
        bench.process(*odd)
        bench.process(*odd)
    assert bench.sample("refract_kafka_keys_misspelt_total") == 4
    assert len([entry for entry in logs if "kafka_key" in entry["event"]]) == 1


@pytest.mark.parametrize(("space", "num_points"), [("chat", 2), ("tickets", 1)])
def test_equal_keys_of_two_topics_are_two_records_unless_both_name_one_key_space(
    bench: Bench, space: str, num_points: int
) -> None:
    ids = PointIds("support", {"tickets": "tickets", "chat": space})
    tasks = {"tickets": [URGENCY], "chat": [URGENCY]}
    refractor = Refractor(Routes(ids, tasks, {"m": FakeTokenizer(max_length=12)}), bench.ports, bench.tracker)
    for topic in tasks:
        source = FakeSource(bench.tracker, topic)
        refractor.process([source.deliver(record("a", 1, f"of {topic}", topic=topic))])
    assert len(bench.store.points[URGENCY.collection]) == num_points


def test_delete_becomes_a_tombstone_in_every_collection(bench: Bench) -> None:
    bench.process(record("a", 1), record("b", 1))
    bench.process(record("a", 2, None))
    for wanted in (URGENCY, ISSUE):
        assert bench.store.points[wanted.collection][point_id("support", "tickets", "s:a")][:2] == (2, True)
        assert bench.store.count(wanted.collection) == 1
    assert bench.sample("refract_points_deleted_total", task="issue") == 1


def test_batch_of_deletes_alone_asks_no_model(bench: Bench) -> None:
    bench.process(record("a", 2, None))
    assert bench.embedder.calls == []
    assert len(bench.store.upserts) == 1


def test_bad_record_is_dead_lettered_and_the_good_ones_around_it_are_stored(bench: Bench) -> None:
    bench.process(record("a", 1), Reason.INVALID_JSON, record("b", 1))
    assert [(letter.reason, letter.position.offset, letter.value) for letter in bench.letters.letters] == [
        (Reason.INVALID_JSON, 1, b"bad")
    ]
    assert bench.store.count(URGENCY.collection) == 2
    assert bench.tracker.advance().offsets == {bench.source.partition: 3}
    assert bench.sample("refract_dead_letters_total", reason="invalid_json") == 1


def test_nothing_is_finished_before_the_dead_letter_is_acknowledged(bench: Bench) -> None:
    bench.stop.set()
    bench.letters.failures.append(TransientError("no leader"))
    with pytest.raises(TransientError):
        bench.process(Reason.INVALID_JSON)
    assert bench.tracker.advance().offsets == {}


def test_outage_of_dead_letters_store_and_embedder_is_repeated_and_never_dead_lettered(bench: Bench) -> None:
    bench.embedder.failures.append(TransientError("no replica"))
    bench.store.failures.extend([TransientError("down"), UnknownOutcomeError("cut")])
    bench.letters.failures.append(TransientError("no leader"))
    bench.process(record("a", 1), Reason.INVALID_JSON)
    assert bench.num_retries == 4
    assert [letter.reason for letter in bench.letters.letters] == [Reason.INVALID_JSON]
    assert bench.store.count(ISSUE.collection) == 1


def test_store_outage_does_not_compute_the_embeddings_again(bench: Bench) -> None:
    bench.store.failures.extend([TransientError("down")] * 3)
    bench.process(record("a", 1))
    assert len(bench.embedder.calls) == 1


def test_answer_lost_after_the_write_is_a_no_op_when_repeated(bench: Bench) -> None:
    bench.store.lost_answers.append(UnknownOutcomeError("cut"))
    bench.process(record("a", 1))
    assert len(bench.store.upserts) == 2
    assert bench.store.count(URGENCY.collection) == 1
    assert bench.sample("refract_points_stale_total", task="urgency") == 0


def test_embedding_that_is_not_finite_is_that_records_dead_letter(bench: Bench) -> None:
    bench.embedder.nan_texts = {"poison"}
    bench.process(record("a", 1), record("b", 1, "poison"), record("c", 1, None))
    assert [(letter.reason, letter.task, letter.position.offset) for letter in bench.letters.letters] == [
        (Reason.INVALID_EMBEDDING, "urgency", 1)
    ]
    assert sorted(bench.store.points[ISSUE.collection]) == sorted(
        point_id("support", "tickets", key) for key in ("s:a", "s:c")
    )
    assert bench.tracker.advance().offsets == {bench.source.partition: 3}


def test_batch_that_is_too_large_for_the_embedder_is_halved_until_it_fits(bench: Bench) -> None:
    bench.embedder.max_texts = 2
    bench.process(*(record(str(number), 1) for number in range(7)))
    assert bench.store.count(URGENCY.collection) == 7
    assert bench.letters.letters == []
    assert bench.sample("refract_records_embedded_total", task="issue") == 7


def test_single_record_that_is_too_large_is_dead_lettered(bench: Bench) -> None:
    bench.embedder.max_texts = 0
    bench.process(record("a", 1))
    assert [letter.reason for letter in bench.letters.letters] == [Reason.TOO_LARGE_FOR_MODEL]
    assert bench.tracker.advance().offsets == {bench.source.partition: 1}


@pytest.mark.usefixtures("bench")
def test_one_record_the_store_refuses_is_found_by_bisection() -> None:
    class Picky(FakeStore):
        def upsert(self, batch):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - as the base class
            if point_id("support", "tickets", "s:3") in {raw.tobytes() for raw in batch.ids}:
                raise RecordError(Reason.REFUSED_BY_STORE) if len(batch) == 1 else BatchShapeError("one is bad")
            return super().upsert(batch)

    bench = Bench(store=Picky())
    bench.process(*(record(str(number), 1) for number in range(8)))
    assert bench.store.count(URGENCY.collection) == 7
    assert [(letter.reason, letter.position.offset) for letter in bench.letters.letters] == [
        (Reason.REFUSED_BY_STORE, 3)
    ]


def test_fault_of_the_environment_is_raised_and_nothing_is_finished(bench: Bench) -> None:
    bench.store.failures.append(EnvironmentFault("collection dropped"))
    with pytest.raises(EnvironmentFault):
        bench.process(record("a", 1))
    assert bench.tracker.advance().offsets == {}
    assert bench.letters.letters == []


def test_model_that_answers_with_another_shape_stops_the_worker() -> None:
    class Wrong(FakeEmbedder):
        def embed(self, model: str, batch: TokenBatch, priority: Priority) -> Embeddings:
            return [rows[:, :4] for rows in super().embed(model, batch, priority)]

    bench = Bench(Wrong())
    with pytest.raises(EnvironmentFault, match=r"\(1, 4\), expected \(1, 8\)"):
        bench.process(record("a", 1))


def test_deliveries_of_a_revoked_partition_are_dropped_before_any_work(bench: Bench) -> None:
    deliveries = bench.deliver(record("a", 1))
    bench.tracker.revoke([bench.source.partition])
    bench.refractor.process(deliveries)
    assert bench.embedder.calls == []
    assert bench.store.upserts == []
    assert bench.sample("refract_records_dropped_total") == 1


def test_tokens_cut_are_counted_per_record_and_task(bench: Bench) -> None:
    bench.process(record("a", 1, "x" * 15), record("b", 1, "short"))
    assert bench.sample("refract_truncated_tokens_total", task="issue") == 3
    assert bench.sample("refract_records_truncated_total", task="issue") == 1


def test_freshness_is_measured_from_kafkas_timestamp_to_written(bench: Bench) -> None:
    bench.process(record("a", 1))
    assert bench.sample("refract_freshness_seconds_sum", task="urgency") == 0.5
