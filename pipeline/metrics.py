"""Every metric of the pipeline, a sentence each, and the snapshots that processes exchange.

Names follow Prometheus: `refract_<noun>_<unit>_total`. All are updated per batch, never per record.
Each process fills its own registry; the app's monitor gathers snapshots of all of them and shows
them under one `/metrics`, with the labels `process` and `replica`.
"""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

FRESHNESS_BUCKETS_S = (
    *(0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.05, 0.06, 0.07, 0.085, 0.1, 0.12, 0.15, 0.2, 0.25),
    *(0.3, 0.4, 0.5, 0.75, 1, 2, 5, 15, 60, 300, 3600, 86400),
)
LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

TOPIC = ("topic",)
TASK = ("topic", "task")
MODEL = ("model",)


class IngestMetrics:
    """What an ingestor counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter, gauge, histogram = _kinds(registry)
        self.received = counter("refract_records_received", "Records polled from the source.", TOPIC)
        self.dead_letters = counter("refract_dead_letters", "Records dead-lettered.", (*TOPIC, "reason"))
        self.dropped = counter(
            "refract_records_dropped", "Records of revoked partitions; their new owner reads them.", TOPIC
        )
        self.conflicts = counter(
            "refract_version_conflicts",
            "Records with the key and version of an earlier one and another content.",
            TOPIC,
        )
        self.misspelt_keys = counter(
            "refract_kafka_keys_misspelt", "Records whose Kafka key spells another key than their field.", TOPIC
        )
        self.payload_dropped = counter(
            "refract_payload_values_dropped", "Payload values left out: they do not fit their type.", (*TOPIC, "field")
        )
        self.embedded = counter("refract_records_embedded", "Records embedded.", TASK)
        self.written = counter("refract_points_written", "Points written, tombstones not counted.", TASK)
        self.deleted = counter("refract_points_deleted", "Tombstones written.", TASK)
        self.stale = counter("refract_points_stale", "Writes that lost against a newer version.", TASK)
        self.truncated = counter("refract_truncated_tokens", "Text tokens cut to fit the model.", TASK)
        self.truncated_records = counter("refract_records_truncated", "Records whose text was cut.", TASK)
        self.retries = counter("refract_retries", "Repetitions after an outage or a lost answer.", ("component",))
        self.freshness = histogram(
            "refract_freshness_seconds", "From produced to searchable.", TASK, buckets=FRESHNESS_BUCKETS_S
        )
        self.store_latency = histogram("refract_store_write_seconds", "One guarded write of a batch.", TOPIC)
        self.embed_latency = histogram("refract_embed_seconds", "One call to an embedder, waiting included.", MODEL)
        self.in_flight_bytes = gauge(
            "refract_in_flight_bytes", "Record bytes polled and not finished, and 1 KiB for each record."
        )
        self.paused = gauge("refract_paused", "1 while the bound on bytes in flight keeps partitions paused.")
        self.watermark_age = gauge("refract_watermark_age_seconds", "Age of the oldest unfinished record.")
        self.lag = gauge("refract_lag_records", "Records between position and end.", ("topic", "partition"))
        self.lag_seconds = gauge(
            "refract_lag_seconds", "While behind, how long ago the last record read was produced; else 0.", TOPIC
        )


class EmbedMetrics:
    """What an embedder counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter, gauge, _ = _kinds(registry)
        self.batches = counter("refract_forward_batches", "Forward batches computed.", MODEL)
        self.tokens = counter("refract_tokens", "Text tokens embedded, once per task, cache hits included.", MODEL)
        self.items = counter("refract_embeddings", "Embeddings handed back, cache hits included.", (*MODEL, "priority"))
        self.forward_items = counter(
            "refract_forward_items", "Texts put through the model: once for all tasks whose prompts are equal.", MODEL
        )
        self.invalid = counter("refract_invalid_embeddings", "Items without a finite embedding.", MODEL)
        self.cache_hits = counter(
            "refract_cache_hits",
            "Texts that did not go through the model: an equal one under an equal prompt was in flight or cached.",
            MODEL,
        )
        self.cache_hit_rate = gauge(
            "refract_cache_hit_rate", "Share of the last seconds' texts that were cache hits.", MODEL
        )
        self.busy = counter("refract_embedder_busy_seconds", "Time spent computing.", MODEL)
        self.occupancy = gauge("refract_embedder_occupancy", "Share of the last seconds spent computing.", MODEL)
        self.tokens_per_s = gauge("refract_tokens_per_second", "Text tokens a second, over the last seconds.", MODEL)
        self.queued = gauge("refract_queued_batches", "Batches waiting for the model.", (*MODEL, "priority"))


class ApiMetrics:
    """What the search API counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter, _, histogram = _kinds(registry)
        self.requests = counter("refract_requests", "HTTP requests.", ("route", "status"))
        self.latency = histogram("refract_request_seconds", "One HTTP request.", ("route",))


class ProcessMetrics:
    """What every process says of itself."""

    def __init__(self, registry: CollectorRegistry) -> None:
        _, gauge, _ = _kinds(registry)
        self.ready = gauge(
            "refract_ready", "1 while the process works; 0 while it waits for a component or its group, or has stopped."
        )


class StoreMetrics:
    """What the owner of an embedded store shows of its disk."""

    def __init__(self, registry: CollectorRegistry) -> None:
        _, gauge, _ = _kinds(registry)
        self.free = gauge("refract_store_free_bytes", "Free bytes of the disk of an embedded store.", ("path",))
        self.size = gauge("refract_store_size_bytes", "Size of the disk of an embedded store.", ("path",))

    def watch(self, directory: Path) -> None:
        """Shows the disk of a directory from now on, as it is at each snapshot; NaN while it cannot be asked."""

        def usage(field: str) -> float:
            try:
                return float(getattr(shutil.disk_usage(directory), field))
            except OSError:
                return float("nan")

        self.free.labels(str(directory)).set_function(lambda: usage("free"))
        self.size.labels(str(directory)).set_function(lambda: usage("total"))


class AppMetrics:
    """What is known of the whole app where it is scraped; without the labels `process` and `replica`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        _, gauge, _ = _kinds(registry)
        self.ready = gauge("refract_app_ready", "1 where GET /readyz answers 200, else 0.")


def _kinds(registry: CollectorRegistry) -> tuple[partial[Counter], partial[Gauge], partial[Histogram]]:
    return (
        partial(Counter, registry=registry),
        partial(Gauge, registry=registry),
        partial(Histogram, registry=registry, buckets=LATENCY_BUCKETS_S),
    )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One process's metrics at one moment, as plain data."""

    process: str
    """ingestor, embedder, store, api."""
    replica: str
    started_s: float
    """Unix time."""
    metrics: Sequence[Metric]


def snapshot(process: str, replica: str, started_s: float, registry: CollectorRegistry) -> Snapshot:
    """Returns the registry's current values."""
    return Snapshot(process, replica, started_s, list(registry.collect()))


class SnapshotCollector:
    """A Prometheus collector over the snapshots of all processes."""

    def __init__(self, snapshots: Iterable[Snapshot]) -> None:
        self._snapshots = list(snapshots)

    def collect(self) -> Iterable[Metric]:
        """Merges metrics of one name into one family, with the labels `process` and `replica`."""
        families: dict[str, Metric] = {}
        for taken in self._snapshots:
            labels = {"process": taken.process, "replica": taken.replica}
            for metric in taken.metrics:
                family = families.setdefault(
                    metric.name, Metric(metric.name, metric.documentation, metric.type, metric.unit)
                )
                family.samples.extend(sample._replace(labels={**sample.labels, **labels}) for sample in metric.samples)
        return list(families.values())


def samples(snapshots: Iterable[Snapshot], sample_name: str, **labels: str) -> Iterator[Sample]:
    """Yields a sample of all processes, for the given labels."""
    for taken in snapshots:
        for metric in taken.metrics:
            for sample in metric.samples:
                if sample.name == sample_name and all(sample.labels.get(key) == value for key, value in labels.items()):
                    yield sample


def total(snapshots: Iterable[Snapshot], sample_name: str, **labels: str) -> float:
    """Returns the sum of a sample over all processes, for the given labels."""
    return sum(sample.value for sample in samples(snapshots, sample_name, **labels))


def quantile(snapshots: Iterable[Snapshot], name: str, q: float, **labels: str) -> float | None:
    """Returns a quantile of a histogram over all processes, as Prometheus' histogram_quantile computes it.

    Linear inside a bucket; the lower bound of the last bucket when the quantile is beyond it; None
    without observations.
    """
    cumulative: dict[float, float] = {}
    for sample in samples(snapshots, f"{name}_bucket", **labels):
        bound = float(sample.labels["le"])
        cumulative[bound] = cumulative.get(bound, 0.0) + sample.value
    bounds = sorted(cumulative)
    if not bounds or cumulative[bounds[-1]] == 0:
        return None
    rank = q * cumulative[bounds[-1]]
    lower, below = 0.0, 0.0
    for bound in bounds:
        if cumulative[bound] >= rank:
            if bound == float("inf"):
                return lower
            inside = cumulative[bound] - below
            return lower + (bound - lower) * ((rank - below) / inside if inside else 1.0)
        lower, below = bound, cumulative[bound]
    return lower


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    """What a replica says of itself, about once a second."""

    snapshot: Snapshot
    ready: bool
    detail: str = ""
    """Why it is not ready."""
    drained: bool = False
