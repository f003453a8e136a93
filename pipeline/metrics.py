"""Every metric of the pipeline, a sentence each, and the snapshots that processes exchange.

Names follow Prometheus: `refract_<noun>_<unit>_total`. All are updated per batch, never per record.
Each process fills its own registry; the app's monitor gathers snapshots of all of them and shows
them under one `/metrics`, with the labels `process` and `replica`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric

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
        self.received = Counter("refract_records_received", "Records polled from the source.", TOPIC, registry=registry)
        self.dead_letters = Counter(
            "refract_dead_letters", "Records sent to the dead-letter topic.", (*TOPIC, "reason"), registry=registry
        )
        self.embedded = Counter("refract_records_embedded", "Records embedded.", TASK, registry=registry)
        self.written = Counter(
            "refract_points_written", "Points written, tombstones not counted.", TASK, registry=registry
        )
        self.deleted = Counter("refract_points_deleted", "Tombstones written.", TASK, registry=registry)
        self.stale = Counter(
            "refract_points_stale", "Writes that lost against a newer version.", TASK, registry=registry
        )
        self.truncated = Counter(
            "refract_truncated_tokens", "Text tokens cut to fit the model.", TASK, registry=registry
        )
        self.truncated_records = Counter(
            "refract_records_truncated", "Records whose text was cut.", TASK, registry=registry
        )
        self.freshness = Histogram(
            "refract_freshness_seconds",
            "From produced to searchable.",
            TASK,
            buckets=FRESHNESS_BUCKETS_S,
            registry=registry,
        )
        self.store_latency = Histogram(
            "refract_store_write_seconds",
            "One guarded write of a batch.",
            TOPIC,
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.embed_latency = Histogram(
            "refract_embed_seconds",
            "One call to an embedder, waiting included.",
            MODEL,
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.retries = Counter(
            "refract_retries", "Repetitions after an outage or a lost answer.", ("component",), registry=registry
        )
        self.dropped = Counter(
            "refract_records_dropped",
            "Records dropped because their partition was revoked; its new owner reads them.",
            TOPIC,
            registry=registry,
        )
        self.in_flight_bytes = Gauge(
            "refract_in_flight_bytes", "Record bytes polled and not finished.", registry=registry
        )
        self.paused = Gauge(
            "refract_paused", "1 while the bound on bytes in flight keeps partitions paused.", registry=registry
        )
        self.watermark_age = Gauge(
            "refract_watermark_age_seconds", "Age of the oldest unfinished record.", registry=registry
        )
        self.lag = Gauge(
            "refract_lag_records", "Records between position and end.", ("topic", "partition"), registry=registry
        )
        self.lag_seconds = Gauge(
            "refract_lag_seconds",
            "How long ago the oldest record still to be finished was produced.",
            TOPIC,
            registry=registry,
        )


class EmbedMetrics:
    """What an embedder counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.batches = Counter("refract_forward_batches", "Forward batches computed.", MODEL, registry=registry)
        self.tokens = Counter("refract_tokens", "Tokens embedded, instructions included.", MODEL, registry=registry)
        self.padding = Counter("refract_padding_tokens", "Padding computed beside them.", MODEL, registry=registry)
        self.items = Counter("refract_embeddings", "Embeddings computed.", (*MODEL, "priority"), registry=registry)
        self.invalid = Counter(
            "refract_invalid_embeddings", "Items no finite embedding could be computed for.", MODEL, registry=registry
        )
        self.busy = Counter("refract_embedder_busy_seconds", "Time spent computing.", MODEL, registry=registry)
        self.occupancy = Gauge(
            "refract_embedder_occupancy", "Share of the last seconds spent computing.", MODEL, registry=registry
        )
        self.tokens_per_s = Gauge(
            "refract_tokens_per_second", "Tokens embedded per second, over the last seconds.", MODEL, registry=registry
        )
        self.queued = Gauge(
            "refract_queued_batches", "Batches waiting for the model.", (*MODEL, "priority"), registry=registry
        )


class ApiMetrics:
    """What the search API counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter("refract_requests", "HTTP requests.", ("route", "status"), registry=registry)
        self.latency = Histogram(
            "refract_request_seconds", "One HTTP request.", ("route",), buckets=LATENCY_BUCKETS_S, registry=registry
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One process's metrics at one moment, as plain data."""

    process: str
    """ingestor, embedder, api."""
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


def total(snapshots: Iterable[Snapshot], sample_name: str, **labels: str) -> float:
    """Returns the sum of a sample over all processes, for the given labels."""
    return sum(
        sample.value
        for taken in snapshots
        for metric in taken.metrics
        for sample in metric.samples
        if sample.name == sample_name and all(sample.labels.get(name) == value for name, value in labels.items())
    )


def quantile(snapshots: Iterable[Snapshot], name: str, q: float, **labels: str) -> float | None:
    """Returns a quantile of a histogram over all processes, as Prometheus' histogram_quantile computes it.

    Linear inside a bucket; the lower bound of the last bucket when the quantile is beyond it; None
    without observations.
    """
    cumulative: dict[float, float] = {}
    for taken in snapshots:
        for metric in taken.metrics:
            for sample in metric.samples:
                if sample.name == f"{name}_bucket" and all(
                    sample.labels.get(key) == value for key, value in labels.items()
                ):
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
