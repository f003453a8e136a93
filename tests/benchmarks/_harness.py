"""What the live benchmarks share: a broker, topics full of tickets, an app to watch, and a table at the end."""

import argparse
import contextlib
import csv
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import orjson
import psutil
import yaml

from actors.supervisor import RunningApp
from pipeline.sources.client.admin import create_topics
from pipeline.sources.client.producer import RecordProducer

ROOT = Path(__file__).parents[2]
TASKS = {
    "urgency": "How urgent is this support ticket",
    "technical_issue": "What is the technical issue in this support ticket",
}
MINILM: dict[str, Any] = {
    "model": "packaged:all-MiniLM-L6-v2",
    "overrides": {
        "instruction_style": "free_form",
        "query_template": "{instruction}: {text}",
        "document_template": "{instruction}: {text}",
    },
}
APP_PROCESSES = ("Ingestor", "Embedder", "StoreOwner", "Api", "Monitor")
RAY_PROCESSES = ("ServeController", "ProxyActor", "raylet", "gcs_server", "ray::")
Figure = TypeVar("Figure")


def arguments(description: str | None) -> argparse.Namespace:
    """Parses `--json FILE` and `--runs N`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, help="write one JSON object here")
    parser.add_argument("--runs", type=int, default=3, help="runs of each figure; the median counts")
    return parser.parse_args()


def told(name: str, run: int, figure: Figure) -> Figure:
    """Tells the figure of one run while the others are still to come, and returns it."""
    print(f"{name}, run {run + 1}: {figure}", file=sys.stderr, flush=True)
    return figure


def report(figures: Mapping[str, Any], settings: Mapping[str, Any], path: Path | None) -> None:
    """Prints the figures as a table and writes them with versions, machine and settings."""
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:<{width}}  {value:,.3f}" if isinstance(value, float) else f"{name:<{width}}  {value}")
    if path is not None:
        packages = ("torch", "transformers", "ray", "kafka-python", "qdrant-edge-py", "numpy")
        document = {
            "versions": {name: importlib.metadata.version(name) for name in packages}
            | {"python": platform.python_version()},
            "machine": {
                "cpus": os.cpu_count(),
                "processor": processor(),
                "memory_gb": round(psutil.virtual_memory().total / 2**30),
            },
            "settings": dict(settings),
            **figures,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n")


def median(values: Sequence[float]) -> float:
    """Returns the median."""
    return float(statistics.median(values))


def tickets(count: int) -> list[str]:
    """Returns the texts of the first tickets of REFRACT_TICKETS, title and body."""
    path = Path(os.environ.get("REFRACT_TICKETS", ROOT / "../shared/data/tickets.csv"))
    if not path.is_file():
        raise SystemExit(
            f"the benchmark needs real tickets: REFRACT_TICKETS names a CSV with title and body ({path} is missing)"
        )
    with path.open(newline="", encoding="utf-8") as file:
        return [f"{row['title']}\n\n{row['body']}" for _, row in zip(range(count), csv.DictReader(file), strict=False)]


@contextlib.contextmanager
def broker(port: int = 19492) -> Iterator[str]:
    """A real Kafka broker of its own, gone afterwards with its data."""
    script = str(ROOT / "infra/kafka.sh")
    with TemporaryDirectory(prefix="refract-bench-") as folder:
        subprocess.run([script, "start", "--port", str(port), "--dir", folder], check=True)
        try:
            yield f"127.0.0.1:{port}"
        finally:
            subprocess.run([script, "stop", "--dir", folder], check=False)


@contextlib.contextmanager
def app_config(bootstrap: str, model: Mapping[str, Any], name: str, **limits: Any) -> Iterator[Path]:
    """A configuration of one topic, two tasks and an Edge store in a temporary directory."""
    with TemporaryDirectory(prefix="refract-bench-") as folder:
        tree = {
            "pipeline": name,
            "source": {
                "bootstrap_servers": [bootstrap],
                "group_id": name,
                "dead_letter_topic": f"{name}.dead-letters",
                "topics": {
                    name: {"key": "id", "text": "{text}", "version": "version", "payload": ["id"], "tasks": list(TASKS)}
                },
            },
            "models": {"model": dict(model)},
            "tasks": {task: {"model": "model", "instruction": text} for task, text in TASKS.items()},
            "store": {"type": "edge", "path": f"{folder}/store"},
            "api": {"port": 18765},
            "limits": limits,
        }
        path = Path(folder) / "config.yaml"
        path.write_text(yaml.safe_dump(tree))
        yield path


@contextlib.contextmanager
def running(path: Path) -> Iterator[RunningApp]:
    """The app, ready."""
    app = RunningApp(path)
    app.start(lambda _: None)
    try:
        while not app.ready()[0]:
            time.sleep(0.1)
        yield app
    finally:
        app.stop(lambda _: None)


def fill(app_path: Path, texts: Sequence[str], copies: int = 1, *, partitions: int = 4) -> int:
    """Creates the topics and sends every text `copies` times under keys of its own; returns how many."""
    from pipeline.config.load import load_config  # noqa: PLC0415 - beside its only use

    source = load_config(app_path).source
    create_topics(source, partitions)
    topic = next(iter(source.topics))
    with RecordProducer(source) as producer:
        for number in range(len(texts) * copies):
            row = {"id": f"T-{number}", "text": texts[number % len(texts)], "version": 1}
            producer.send(topic, row["id"].encode(), orjson.dumps(row))  # type: ignore[attr-defined]  # a str
        producer.flush()
    return len(texts) * copies


def written(app: RunningApp) -> int:
    """Returns the records that are in every collection."""
    tasks = next(iter(app.state()["topics"].values()))["tasks"]
    return min(int(task["written"]) for task in tasks.values())


def drain_rate(app: RunningApp, total: int) -> float:
    """Returns records per second between the first tenth and the last written."""
    began: tuple[float, int] | None = None
    while True:
        count, now = written(app), time.monotonic()
        if began is None and count >= total * 0.1:
            began = (now, count)
        if count >= total:
            assert began is not None
            return (count - began[1]) / (now - began[0]) if now > began[0] else float("nan")
        time.sleep(0.05)


def processes(names: Sequence[str]) -> dict[str, psutil.Process]:
    """Returns the processes whose command line holds one of the names."""
    found = {}
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or [])
        for name in names:
            if (name in APP_PROCESSES and f"ServeReplica:refract:{name}" in command) or (
                name not in APP_PROCESSES and name in command and "ServeReplica" not in command
            ):
                found[f"{name}/{process.pid}"] = process
    return found


def cpu_seconds(processes: Iterable[psutil.Process]) -> float:
    """Returns the processor time the processes have used."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def processor() -> str:
    """Returns the processor's name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()
