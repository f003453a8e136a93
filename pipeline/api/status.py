"""The state of the whole app, as `/v1/status`, `/readyz` and `refract status` show it."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.config.pipeline import Config
from pipeline.metrics import ReplicaReport, Snapshot, quantile, samples, total


def readiness(config: Config, reports: Sequence[ReplicaReport]) -> tuple[bool, str]:
    """Returns whether records are flowing and queries can be answered, and what is missing if not."""
    expected = {"ingestor": config.ray.ingestors, "embedder": sum(model.replicas for model in config.models.values())}
    for process, num_replicas in expected.items():
        present = [report for report in reports if report.snapshot.process == process]
        waiting = next((report.detail for report in present if not report.ready), None)
        if waiting is not None:
            return False, waiting or f"an {process} is not ready"
        if len(present) < num_replicas:
            return False, f"{len(present)} of {num_replicas} {process}s are up"
    return True, ""


def status(config: Config, reports: Sequence[ReplicaReport]) -> dict[str, Any]:
    """Returns counts since the processes started, per topic, task and model."""
    ready, reason = readiness(config, reports)
    snapshots = [report.snapshot for report in reports]
    started_s = min((taken.started_s for taken in snapshots), default=time.time())
    return {
        "pipeline": config.pipeline,
        "ready": ready,
        "reason": reason,
        "uptime_s": round(time.time() - started_s, 1),
        "topics": {topic: _topic(snapshots, topic, settings.tasks) for topic, settings in config.source.topics.items()},
        "models": {name: _model(snapshots, name) for name in config.models},
        "retries": _by_label(snapshots, "refract_retries_total", "component", {}),
    }


def _topic(snapshots: Sequence[Snapshot], topic: str, tasks: Iterable[str]) -> dict[str, Any]:
    return {
        "lag_records": int(total(snapshots, "refract_lag_records", topic=topic)),
        "lag_seconds": max(_samples(snapshots, "refract_lag_seconds", topic=topic), default=0.0),
        "received": int(total(snapshots, "refract_records_received_total", topic=topic)),
        "dead_letters": _by_label(snapshots, "refract_dead_letters_total", "reason", {"topic": topic}),
        "payload_values_dropped": _by_label(
            snapshots, "refract_payload_values_dropped_total", "field", {"topic": topic}
        ),
        "paused": any(_samples(snapshots, "refract_paused")),
        "tasks": {task: _task(snapshots, topic, task) for task in tasks},
    }


def _task(snapshots: Sequence[Snapshot], topic: str, task: str) -> dict[str, Any]:
    labels = {"topic": topic, "task": task}
    counters = {
        "written": "refract_points_written_total",
        "stale": "refract_points_stale_total",
        "deleted": "refract_points_deleted_total",
        "embedded": "refract_records_embedded_total",
        "truncated": "refract_records_truncated_total",
    }
    return {
        **{name: int(total(snapshots, sample, **labels)) for name, sample in counters.items()},
        "freshness_p50_s": quantile(snapshots, "refract_freshness_seconds", 0.5, **labels),
        "freshness_p99_s": quantile(snapshots, "refract_freshness_seconds", 0.99, **labels),
    }


def _model(snapshots: Sequence[Snapshot], model: str) -> dict[str, Any]:
    serving = [taken for taken in snapshots if taken.process == "embedder" and _has(taken, model)]
    occupancy = _samples(serving, "refract_embedder_occupancy", model=model)
    return {
        "replicas": len(serving),
        "occupancy": round(sum(occupancy) / len(occupancy), 3) if occupancy else 0.0,
        "queued": int(total(serving, "refract_queued_batches", model=model)),
        "tokens_per_s": round(sum(_samples(serving, "refract_tokens_per_second", model=model)), 1),
        "embedded": int(total(serving, "refract_embeddings_total", model=model)),
    }


def _has(taken: Snapshot, model: str) -> bool:
    return any(sample.labels.get("model") == model for metric in taken.metrics for sample in metric.samples)


def _samples(snapshots: Iterable[Snapshot], name: str, **labels: str) -> list[float]:
    return [sample.value for sample in samples(snapshots, name, **labels)]


def _by_label(snapshots: Iterable[Snapshot], name: str, label: str, labels: Mapping[str, str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for sample in samples(snapshots, name, **labels):
        counts[sample.labels[label]] = counts.get(sample.labels[label], 0) + int(sample.value)
    return counts
