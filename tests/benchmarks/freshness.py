"""From produced to searchable: 20 records a second, two tasks, MiniLM on CPU, as the app's own histogram has it."""

import time

import orjson

from pipeline.sources.client.producer import RecordProducer
from tests.benchmarks import _harness as harness

RATE_PER_S = 20.0
SECONDS = 40.0
WARM_UP_S = 5.0


def main() -> None:
    """Runs and prints the table."""
    given = harness.arguments(__doc__)
    texts = harness.tickets(int(RATE_PER_S * (SECONDS + WARM_UP_S)) + 1)
    with harness.broker() as bootstrap:
        runs = [harness.told("p50_ms, p99_ms", run, _run(bootstrap, texts, run)) for run in range(given.runs)]
    figures = {
        "rate_per_s": RATE_PER_S,
        "p50_ms": harness.median([p50 for p50, _ in runs]),
        "p99_ms": harness.median([p99 for _, p99 in runs]),
    }
    harness.report(figures, {"runs": given.runs, "seconds": SECONDS, "tasks": 2, "all_runs": runs}, given.json)


def _run(bootstrap: str, texts: list[str], run: int) -> tuple[float, float]:
    """Sends at a steady rate; the first seconds warm up under a topic configuration of the same app."""
    with harness.app_config(bootstrap, harness.MINILM, f"fresh-{run}") as path:
        harness.fill(path, texts[:1])
        with harness.running(path) as app:
            topic = next(iter(app.config.source.topics))
            while not harness.written(app):
                time.sleep(0.05)
            with RecordProducer(app.config.source) as producer:
                began_s = time.monotonic()
                for number, text in enumerate(texts[1:], 1):
                    time.sleep(max(0.0, began_s + number / RATE_PER_S - time.monotonic()))
                    row = {"id": f"T-{number}", "text": text, "version": 1}
                    producer.send(topic, str(row["id"]).encode(), orjson.dumps(row))
                producer.flush()
            while harness.written(app) < len(texts):
                time.sleep(0.05)
            time.sleep(1.5)
            task = next(iter(app.state()["topics"][topic]["tasks"].values()))
            return task["freshness_p50_s"] * 1000, task["freshness_p99_s"] * 1000


if __name__ == "__main__":
    main()
