"""The state of the app, from what its processes report: counts, quantiles, and whether it is ready."""

import time

import pytest
from prometheus_client import CollectorRegistry

from pipeline.api.status import readiness, status
from pipeline.metrics import EmbedMetrics, IngestMetrics, ReplicaReport, snapshot
from tests.config_trees import parsed

CONFIG = parsed(ray={"ingestors": 2}, models__second={"model": "null:8", "replicas": 1})
URGENCY = ("tickets", "urgency")


def ingestor(replica: str, *, ready: bool = True, detail: str = "", **values: int) -> ReplicaReport:
    """A report of an ingestor whose metrics have the given values."""
    registry = CollectorRegistry()
    metrics = IngestMetrics(registry)
    for name, value in values.items():
        metric = getattr(metrics, name)
        if name in {"received", "lag_seconds"}:
            labelled = metric.labels("tickets")
        elif name == "lag":
            labelled = metric.labels("tickets", replica)
        elif name == "paused":
            labelled = metric
        else:
            labelled = metric.labels(*URGENCY)
        (labelled.set if hasattr(labelled, "set") else labelled.inc)(value)
    return ReplicaReport(snapshot("ingestor", replica, time.time() - 60, registry), ready, detail)


def embedder(replica: str, model: str, *, occupancy: float = 0.0, queued: int = 0) -> ReplicaReport:
    registry = CollectorRegistry()
    metrics = EmbedMetrics(registry)
    metrics.occupancy.labels(model).set(occupancy)
    metrics.queued.labels(model, "live").set(queued)
    metrics.queued.labels(model, "query").set(1)
    metrics.items.labels(model, "live").inc(10)
    metrics.tokens_per_s.labels(model).set(100.0)
    return ReplicaReport(snapshot("embedder", replica, time.time(), registry), ready=True)


COMPLETE = [ingestor("i1"), ingestor("i2"), embedder("e1", "null"), embedder("e2", "second")]


def test_ready_when_every_expected_replica_is() -> None:
    assert readiness(CONFIG, COMPLETE) == (True, "")


@pytest.mark.parametrize(
    ("reports", "reason"),
    [
        ([], "0 of 2 ingestors are up"),
        (COMPLETE[1:], "1 of 2 ingestors are up"),
        (COMPLETE[:3], "1 of 2 embedders are up"),
        ([ingestor("i1", ready=False, detail="waits for its brokers"), *COMPLETE[1:]], "waits for its brokers"),
        ([ingestor("i1", ready=False), *COMPLETE[1:]], "an ingestor is not ready"),
    ],
)
def test_not_ready_says_what_is_missing(reports: list[ReplicaReport], reason: str) -> None:
    assert readiness(CONFIG, reports) == (False, reason)
    shown = status(CONFIG, reports)
    assert (shown["ready"], shown["reason"]) == (False, reason)


def test_more_replicas_than_at_the_start_are_ready_too() -> None:
    assert readiness(CONFIG, [*COMPLETE, embedder("e3", "null")]) == (True, "")


def test_counts_are_summed_over_replicas_and_kept_apart_by_topic_and_task() -> None:
    reports = [
        ingestor("i1", received=5, lag=3, lag_seconds=2, written=4, stale=1, deleted=1, embedded=4),
        ingestor("i2", received=7, lag=4, lag_seconds=9, written=6, paused=1, truncated_records=2),
    ]
    shown = status(CONFIG, reports)["topics"]["tickets"]
    assert (shown["received"], shown["lag_records"], shown["lag_seconds"]) == (12, 7, 9.0)
    assert shown["paused"] is True
    urgency = shown["tasks"]["urgency"]
    assert {name: urgency[name] for name in ("written", "stale", "deleted", "embedded", "truncated")} == {
        "written": 10,
        "stale": 1,
        "deleted": 1,
        "embedded": 4,
        "truncated": 2,
    }
    assert shown["tasks"]["technical_issue"]["written"] == 0


def test_dead_letters_and_retries_are_told_by_reason_and_component() -> None:
    registries = [CollectorRegistry() for _ in range(2)]
    for registry in registries:
        metrics = IngestMetrics(registry)
        metrics.dead_letters.labels("tickets", "no_key").inc(2)
        metrics.dead_letters.labels("other", "no_key").inc()
        metrics.retries.labels("store").inc(3)
    metrics.dead_letters.labels("tickets", "text_empty").inc()
    taken = [
        ReplicaReport(snapshot("ingestor", str(number), 0.0, made), ready=True)
        for number, made in enumerate(registries)
    ]
    shown = status(CONFIG, taken)
    assert shown["topics"]["tickets"]["dead_letters"] == {"no_key": 4, "text_empty": 1}
    assert shown["retries"] == {"store": 6}


def test_freshness_is_of_the_task_and_absent_before_the_first_record() -> None:
    registry = CollectorRegistry()
    metrics = IngestMetrics(registry)
    for age_s in [0.04] * 97 + [10] * 3:
        metrics.freshness.labels(*URGENCY).observe(age_s)
    shown = status(CONFIG, [ReplicaReport(snapshot("ingestor", "i1", 0.0, registry), ready=True)])
    tasks = shown["topics"]["tickets"]["tasks"]
    assert tasks["urgency"]["freshness_p50_s"] < 0.1
    assert tasks["urgency"]["freshness_p99_s"] > 5
    assert tasks["technical_issue"]["freshness_p50_s"] is None


def test_models_show_their_own_embedders_only() -> None:
    reports = [
        embedder("e1", "null", occupancy=0.5, queued=2),
        embedder("e2", "null", occupancy=1.0),
        embedder("e3", "second"),
    ]
    shown = status(CONFIG, reports)["models"]
    assert shown["null"] == {"replicas": 2, "occupancy": 0.75, "queued": 4, "tokens_per_s": 200.0, "embedded": 20}
    assert shown["second"] == {"replicas": 1, "occupancy": 0.0, "queued": 1, "tokens_per_s": 100.0, "embedded": 10}


def test_status_of_an_app_nobody_has_reported_from_is_all_zeros() -> None:
    shown = status(CONFIG, [])
    assert shown["pipeline"] == CONFIG.pipeline
    assert shown["uptime_s"] == 0
    assert shown["topics"]["tickets"]["lag_records"] == 0
    assert shown["models"]["null"]["replicas"] == 0
    assert shown["retries"] == {}


def test_uptime_counts_from_the_oldest_process() -> None:
    assert status(CONFIG, COMPLETE)["uptime_s"] >= 60
