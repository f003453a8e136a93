"""Snapshots of several processes under one roof."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from pipeline.metrics import (
    ApiMetrics,
    AppMetrics,
    EmbedMetrics,
    IngestMetrics,
    ProcessMetrics,
    SnapshotCollector,
    StoreMetrics,
    quantile,
    snapshot,
    total,
)


def registry(written: int, ages_s: list[float]) -> CollectorRegistry:
    made = CollectorRegistry()
    metrics = IngestMetrics(made)
    metrics.written.labels("tickets", "urgency").inc(written)
    for age_s in ages_s:
        metrics.freshness.labels("tickets", "urgency").observe(age_s)
    return made


def test_snapshots_of_all_replicas_are_exposed_under_one_family() -> None:
    merged = CollectorRegistry()
    taken = [snapshot("ingestor", name, 0.0, registry(count, [])) for name, count in (("r1", 2), ("r2", 3))]
    merged.register(SnapshotCollector(taken))
    text = generate_latest(merged).decode()
    assert text.count("# TYPE refract_points_written_total counter") == 1
    assert 'refract_points_written_total{process="ingestor",replica="r1",task="urgency",topic="tickets"} 2.0' in text
    assert 'refract_points_written_total{process="ingestor",replica="r2",task="urgency",topic="tickets"} 3.0' in text


def test_totals_and_quantiles_are_over_all_replicas() -> None:
    taken = [
        snapshot("ingestor", "r1", 0.0, registry(2, [0.04] * 99)),
        snapshot("ingestor", "r2", 0.0, registry(3, [4.0])),
    ]
    assert total(taken, "refract_points_written_total", topic="tickets", task="urgency") == 5
    assert total(taken, "refract_points_written_total", topic="other") == 0
    assert quantile(taken, "refract_freshness_seconds", 0.5, task="urgency") == pytest.approx(0.035 + 0.005 * 50 / 99)
    assert quantile(taken, "refract_freshness_seconds", 1.0, task="urgency") == 5.0
    assert quantile(taken, "refract_freshness_seconds", 0.5, task="other") is None


def test_quantile_beyond_the_last_bound_is_that_bound() -> None:
    taken = [snapshot("ingestor", "r1", 0.0, registry(0, [1e9]))]
    assert quantile(taken, "refract_freshness_seconds", 0.5) == 86400


def test_every_metric_says_what_it_is() -> None:
    made = CollectorRegistry()
    for metrics in (IngestMetrics, EmbedMetrics, ApiMetrics, StoreMetrics, ProcessMetrics, AppMetrics):
        metrics(made)
    for metric in made.collect():
        assert metric.name.startswith("refract_")
        assert metric.documentation.endswith(".")
