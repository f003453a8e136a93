"""Live freshness beside `refract backfill --share`, as the app's own histogram has it: 20 records a second, two tasks.

idle_p99_ms     without a backfill
shared_p99_ms   while one uses the same embedders and store
p99_ratio       should stay within 1.5
backfill_rows_per_s   what it got done meanwhile

Both in turn, three times, of which the median is told: one hiccup of the machine is six of six hundred records.
The model is the null engine with a pause per forward batch, as a device of its own would take; `--minilm` computes on
the processors that everything else needs too.
"""

import argparse
import contextlib
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import orjson
import ray
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from actors.supervisor import RunningApp
from pipeline.metrics import Snapshot, quantile
from pipeline.sources.client.producer import RecordProducer
from tests.benchmarks import _harness as harness
from tests.benchmarks.backfill import write_rows

RATE_PER_S = 20.0
ROUNDS = 3
SETTLE_S = 5.0
"""Processes of a backfill that was killed are cleared away meanwhile."""


def main() -> None:
    """Runs and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write one JSON object here")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each phase")
    parser.add_argument("--delay-ms", type=float, default=5.0, help="of a forward batch of the null engine")
    parser.add_argument("--minilm", action="store_true")
    given = parser.parse_args()
    null = {"model": "null:384", "overrides": {"delay_ms_per_batch": given.delay_ms}}
    model = harness.MINILM if given.minilm else null
    with (
        TemporaryDirectory(prefix="refract-bench-") as folder,
        harness.broker() as bootstrap,
        harness.app_config(bootstrap, model, "share") as path,
    ):
        texts = harness.tickets(3_000)
        rows = write_rows([f"{text} again" for text in texts], 400_000, Path(folder) / "rows.parquet")
        harness.fill(path, texts[:1])
        with harness.running(path) as app:
            figures = _phases(app, path, rows, texts, given.seconds)
    harness.report(
        figures, {"seconds": given.seconds, "rate_per_s": RATE_PER_S, "model": model, "tasks": 2}, given.json
    )


def _phases(app: RunningApp, path: Path, rows: Path, texts: list[str], seconds: float) -> dict[str, float]:
    rounds: list[dict[str, float]] = []
    for _ in range(ROUNDS):
        _live(app, texts, SETTLE_S)
        idle = _measured(app, lambda: _live(app, texts, seconds))
        with _backfill(app, path, rows):
            began_s, before = time.monotonic(), _embedded(_scrape(app))
            shared = _measured(app, lambda: _live(app, texts, seconds))
            done = (_embedded(_scrape(app)) - before) / len(harness.TASKS) / (time.monotonic() - began_s)
        rounds.append(
            {
                "idle_p50_ms": idle[0],
                "idle_p99_ms": idle[1],
                "shared_p50_ms": shared[0],
                "shared_p99_ms": shared[1],
                "p99_ratio": shared[1] / idle[1],
                "backfill_rows_per_s": done,
            }
        )
        print("  ".join(f"{name} {value:,.2f}" for name, value in rounds[-1].items()), flush=True)
    return {name: harness.median([each[name] for each in rounds]) for name in rounds[0]}


@contextlib.contextmanager
def _backfill(app: RunningApp, path: Path, rows: Path) -> Iterator[None]:
    """A backfill that is under way; killed afterwards, it goes on where it was the next time."""
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "-m", "pipeline.cli", "backfill", str(path), str(rows), "--share", "--address", address]
    before = _embedded(_scrape(app))
    run = subprocess.Popen(command, cwd=harness.ROOT, stdout=subprocess.DEVNULL)
    try:
        while _embedded(_scrape(app)) < before + 500 and run.poll() is None:
            time.sleep(0.2)
        yield
        if run.poll() is not None:
            raise SystemExit("the backfill was over too soon")
    finally:
        run.terminate()
        run.wait(60)


def _live(app: RunningApp, texts: list[str], seconds: float) -> None:
    """Sends records at the rate, and returns when the last is stored."""
    [topic] = app.config.source.topics
    before = harness.written(app)
    count = int(seconds * RATE_PER_S)
    with RecordProducer(app.config.source) as producer:
        began_s = time.monotonic()
        for number in range(count):
            time.sleep(max(0.0, began_s + number / RATE_PER_S - time.monotonic()))
            row: dict[str, Any] = {"id": f"L-{time.time_ns()}", "text": texts[number % len(texts)], "version": 1}
            producer.send(topic, row["id"].encode(), orjson.dumps(row))
        producer.flush()
    while harness.written(app) < before + count:
        time.sleep(0.05)
    time.sleep(1.5)  # reports come once a second


def _measured(app: RunningApp, phase: Callable[[], None]) -> tuple[float, float]:
    """Returns p50 and p99 of freshness in milliseconds, of what a phase sent."""
    before = _buckets(_scrape(app))
    phase()
    after = _buckets(_scrape(app))
    family = Metric("refract_freshness_seconds", "", "histogram")
    family.samples = [
        Sample("refract_freshness_seconds_bucket", {"le": bound}, count - before[bound])
        for bound, count in after.items()
    ]
    taken = [Snapshot("ingestor", "", 0.0, [family])]
    found = [quantile(taken, "refract_freshness_seconds", q) for q in (0.5, 0.99)]
    return (found[0] or 0.0) * 1000, (found[1] or 0.0) * 1000


def _scrape(app: RunningApp) -> list[Metric]:
    return list(text_string_to_metric_families(httpx.get(f"{app.url}/metrics", trust_env=False).text))


def _buckets(families: list[Metric]) -> Mapping[str, float]:
    counts = Counter[str]()
    for family in families:
        for sample in family.samples:
            if sample.name == "refract_freshness_seconds_bucket":
                counts[sample.labels["le"]] += sample.value  # type: ignore[assignment]  # a float
    return counts


def _embedded(families: list[Metric]) -> float:
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == "refract_embeddings_total" and sample.labels.get("priority") == "backfill"
    )


if __name__ == "__main__":
    main()
