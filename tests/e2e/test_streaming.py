"""Records on their way through two ingestors and two embedders, while processes die, stop and come back.

One app and one broker serve all tests; each adds records to one journal and ends with the same
check: the store equals the source, per task, and the dead-letter topic holds what cannot be stored.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import orjson
import psutil
import pytest
from kafka.errors import KafkaError
from prometheus_client.parser import text_string_to_metric_families

from pipeline.errors import Reason
from tests.broker import Broker
from tests.e2e.harness import NUM_PARTITIONS, InProcessApp, journal_of, wait_until, write_config
from tests.e2e.oracle import VERSION_0
from tests.faults.app_rig import EmbeddingCount
from tests.faults.results import TooLateError, fault_run

pytestmark = [pytest.mark.e2e, pytest.mark.kafka, pytest.mark.ray]

Keys = Callable[[int], list[str]]

DELAY_MS = 100
"""Time of a forward batch: long enough that a kill hits one, with calls of so few records each."""

BATCH = 128
BACKLOG = 4_000
"""Records of a disturbed stream: some seconds of work for two embedders."""


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that a test may stop."""
    with Broker(tmp_path_factory.mktemp("streaming-kafka")) as running:
        yield running


@pytest.fixture(scope="module")
def app(folder: Path, own_broker: Broker) -> Iterator[InProcessApp]:
    path = write_config(
        folder,
        own_broker,
        "streaming",
        models__hash__replicas=2,
        models__hash__overrides={"delay_ms_per_batch": DELAY_MS},
        limits__max_batch_records=BATCH,
        ray={"ingestors": 2},
    )
    with journal_of(path) as journal, InProcessApp(path, own_broker, journal) as running:
        yield running


@pytest.fixture(scope="module")
def count(app: InProcessApp) -> Iterator[EmbeddingCount]:
    counted = EmbeddingCount(str(app.http.base_url))
    yield counted
    counted.close()


def send_backlog(app: InProcessApp, keys: list[str], version: int = 1) -> None:
    for key in keys:
        app.journal.ticket(key, version)
    app.journal.settle()


def members(app: InProcessApp) -> list[set[tuple[str, int]]]:
    """Returns what each member of the group holds."""
    admin = app.broker.admin()
    try:
        (group,) = admin.describe_groups([app.config.source.group_id]).values()
    finally:
        admin.close()
    held = []
    for member in group["members"]:
        assigned = member["member_assignment"]
        topics = assigned["assigned_partitions"] if assigned else []
        held.append({(topic["topic"], number) for topic in topics for number in topic["partitions"]})
    return held


def shared(app: InProcessApp) -> bool:
    """Whether two members hold all partitions, each about half of them."""
    held = members(app)
    return [len(partitions) for partitions in held] == [NUM_PARTITIONS, NUM_PARTITIONS] and not held[0] & held[1]


def by_replica(app: InProcessApp, sample: str) -> dict[str, float]:
    """Returns a counter of `/metrics` per replica."""
    counts: dict[str, float] = {}
    for family in text_string_to_metric_families(app.http.get("/metrics").text):
        for found in family.samples:
            if found.name == sample:
                replica = found.labels["replica"]
                counts[replica] = counts.get(replica, 0) + found.value
    return counts


def test_two_ingestors_and_two_embedders_share_the_work(app: InProcessApp, fresh_keys: Keys) -> None:
    wait_until(lambda: shared(app), "both ingestors hold partitions")
    keys = fresh_keys(2_000)
    send_backlog(app, keys)
    for key in keys[:50]:
        app.journal.event(key, f"{key} was opened")
    app.check()
    wait_until(
        lambda: sum(by_replica(app, "refract_records_received_total").values()) == app.journal.num_records(),
        "both ingestors have reported what they received",
    )
    assert sorted(count > 0 for count in by_replica(app, "refract_records_received_total").values()) == [True, True]
    embedded = by_replica(app, "refract_embeddings_total")
    assert len(embedded) == 2
    assert min(embedded.values()) > 0
    tickets = app.tickets()
    assert tickets["received"] == 2_000
    assert tickets["lag_records"] == 0
    for task in ("urgency", "technical_issue"):
        assert tickets["tasks"][task]["written"] == 2_000
        assert tickets["tasks"][task]["freshness_p50_s"] > 0
    assert app.status()["topics"][app.journal.events]["tasks"]["audit"]["written"] == 50


def test_newest_version_counts_in_whatever_order_versions_arrive(app: InProcessApp, fresh_keys: Keys) -> None:
    updated, late, recreated, refuted, offset, nulled = fresh_keys(6)
    journal = app.journal
    journal.ticket(updated, 1, urgency="low")
    journal.ticket(updated, 2, urgency="high")  # in one batch, in order
    journal.ticket(late, 5, urgency="high")
    journal.ticket(late, 3, urgency="low")  # in one batch, the older one last
    journal.ticket(recreated, 1)
    journal.ticket(refuted, 7)
    journal.ticket(nulled, 1)
    journal.event(offset, "first")
    journal.event(offset, "second")
    app.check()

    journal.ticket(updated, 3, urgency="medium")
    journal.ticket(updated, 3, urgency="medium")  # a copy changes nothing
    journal.ticket(late, 4, urgency="low")  # stored long after the newer one
    journal.ticket(recreated, 2, deleted=True)
    journal.ticket(refuted, 6, deleted=True)  # a delete that is older than the state
    journal.null_value(nulled, 2)
    journal.event(offset, None)
    app.check()
    assert journal.expected("urgency", recreated).text is None
    assert journal.expected("urgency", refuted).text is not None

    journal.ticket(recreated, 1, "a late copy of the first state")
    journal.ticket(nulled, 1, "another one")
    app.check()
    assert journal.expected("urgency", recreated).text is None
    journal.ticket(recreated, 3, "opened again")
    journal.event(offset, "third")
    app.check()
    assert journal.expected("urgency", recreated).text == f"Ticket {recreated}\n\nopened again"


def test_poison_records_become_letters_and_stop_nobody(app: InProcessApp, fresh_keys: Keys) -> None:
    keys = fresh_keys(200)
    good = {"id": "p", "title": "t", "body": "b", "updated_at": VERSION_0}
    poisons = [
        (Reason.EMPTY_VALUE, b""),
        (Reason.INVALID_JSON, b'{"id": "p", "title":'),
        (Reason.INVALID_JSON, b'{"id": "p", "updated_at": NaN}'),
        (Reason.INVALID_JSON, b'{"id": ' + b"9" * 10_000 + b"}"),
        (Reason.NOT_AN_OBJECT, b"[1, 2]"),
        (Reason.DUPLICATE_FIELD, b'{"id": "p", "id": "q"}'),
        (Reason.TOO_DEEP, b"[" * 30_000 + b"]" * 30_000),
        (Reason.WRONG_FORMAT, "{}".encode("utf-16")),
        (Reason.INVALID_TEXT, b'{"id": "p", "title": "\\ud800", "body": "b", "updated_at": 1}'),
        (Reason.NO_KEY, orjson.dumps({**good, "id": None})),
        (Reason.INVALID_KEY, orjson.dumps({**good, "id": 7})),
        (Reason.TEXT_MISSING, orjson.dumps({"id": "p", "title": "t", "updated_at": VERSION_0})),
        (Reason.TEXT_NOT_A_STRING, orjson.dumps({**good, "body": {"b": 1}})),
        (Reason.TEXT_EMPTY, orjson.dumps({**good, "title": " \u200b", "body": "\n"})),
        (Reason.VERSION_MISSING, orjson.dumps({"id": "p", "title": "t", "body": "b"})),
        (Reason.INVALID_VERSION, orjson.dumps({**good, "updated_at": True})),
        (Reason.INVALID_VERSION, orjson.dumps({**good, "updated_at": "7"})),
        (Reason.VERSION_IN_FUTURE, orjson.dumps({**good, "updated_at": "2900-01-01T00:00:00Z"})),
        (Reason.RECORD_TOO_LARGE, orjson.dumps({**good, "body": "b" * 70_000})),
    ]
    for number, key in enumerate(keys):
        app.journal.ticket(key, 1)
        if number % 10 == 0 and poisons:
            app.journal.poison(*poisons.pop())
    app.journal.poison(Reason.INVALID_KEY, None, key=b"\xff\xfe")
    assert not poisons
    app.check()
    letters = app.tickets()["dead_letters"]
    wait_until(lambda: sum(app.tickets()["dead_letters"].values()) == 20, f"20 letters: {letters}")


SESSION_TIMEOUT_S = 6.0
"""As `write_config` sets it."""


def test_killed_ingestor_loses_nothing(app: InProcessApp, fresh_keys: Keys, count: EmbeddingCount) -> None:
    count.again(app.journal)
    with fault_run(1, seed=100) as run:
        keys = fresh_keys(BACKLOG)
        send_backlog(app, keys)
        app.wait_midstream()
        victim = app.kill("Ingestor")
        run.healed()
        send_backlog(app, keys[: BACKLOG // 4], version=2)
        app.wait_replaced("Ingestor", victim, 2)
        wait_until(lambda: shared(app), "the group has two members again")
        run.recovered()
        run.within(SESSION_TIMEOUT_S + 5)
        app.compare(run)
        run.duplicates = count.again(app.journal)


MAX_KILLS = 4
"""One of two embedders may be between two batches when it is killed."""

EMBEDDER_RECOVERY_S = 20.0


def test_killed_embedder_loses_nothing(app: InProcessApp, fresh_keys: Keys, count: EmbeddingCount) -> None:
    count.again(app.journal)
    retries = app.status()["retries"].get("embedder", 0)
    with fault_run(32) as run:
        for _ in range(MAX_KILLS):
            send_backlog(app, fresh_keys(BACKLOG))
            app.wait_midstream()
            victim = app.kill("Embedder")
            run.healed()
            app.wait_replaced("Embedder", victim, 2)
            run.recovered()
            app.compare(run)
            run.duplicates += count.again(app.journal)
            if app.status()["retries"].get("embedder", 0) > retries:
                break
        else:
            raise TooLateError(f"none of {MAX_KILLS} kills hit a batch")
        run.within(EMBEDDER_RECOVERY_S)


def test_killed_store_owner_loses_nothing(app: InProcessApp, fresh_keys: Keys) -> None:
    keys = fresh_keys(BACKLOG)
    send_backlog(app, keys)
    app.wait_midstream()
    victim = app.kill("StoreOwner")
    app.wait_replaced("StoreOwner", victim)
    app.check()
    text = app.journal.expected("urgency", keys[-1]).text
    answer = app.http.post("/v1/search", json={"task": "urgency", "text": text, "limit": 1}).json()
    assert answer["hits"][0]["key"] == keys[-1]


def test_store_that_hangs_for_a_while_delays_and_loses_nothing(app: InProcessApp, fresh_keys: Keys) -> None:
    (owner,) = app.processes("StoreOwner")
    before = app.num_committed()
    owner.send_signal(signal.SIGSTOP)
    try:
        send_backlog(app, fresh_keys(BACKLOG // 4))
        received = lambda: app.tickets()["lag_records"] == 0  # noqa: E731
        wait_until(received, "the ingestors hold what the store does not take")
        assert app.num_committed() == before, "committed, and not stored"
    finally:
        owner.send_signal(signal.SIGCONT)
    app.check()
    assert psutil.pid_exists(owner.pid)


def test_broker_that_is_killed_and_restarts_is_found_again(
    app: InProcessApp, fresh_keys: Keys, count: EmbeddingCount
) -> None:
    count.again(app.journal)
    with fault_run(10) as run:
        keys = fresh_keys(BACKLOG)
        send_backlog(app, keys)
        app.wait_midstream()
        finished = app.num_committed()
        app.broker.kill()
        app.broker.start()
        run.healed()

        def moved() -> bool:
            with suppress(KafkaError):  # the coordinator is loading the group
                return app.num_committed() > finished
            return False

        wait_until(moved, "records are finished again")
        run.recovered()
        send_backlog(app, keys[: BACKLOG // 4], version=2)
        app.compare(run)
        run.duplicates = count.again(app.journal)
        wait_until(lambda: app.tickets()["lag_records"] == 0, "lag returns to 0")
