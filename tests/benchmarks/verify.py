"""How fast and how large a comparison is: `python -m tests.benchmarks.verify --keys 1000000`.

A JSON Lines file is compared with an embedded store that holds it, for two tasks, in a process of its own,
whose peak memory is its own too. The store is filled first, outside of the figures.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import orjson
import psutil
import yaml

from pipeline.context import Context
from pipeline.records.batches import PointBatch
from pipeline.records.record import point_id
from tests.broker import free_port

DIMENSION = 32
STEP = 1_000


def configuration(folder: Path) -> Path:
    tree = {
        "pipeline": "bench",
        "source": {
            "bootstrap_servers": ["127.0.0.1:1"],
            "group_id": "bench",
            "dead_letter_topic": "rows.dead-letters",
            "topics": {"rows": {"key": "id", "text": "{text}", "version": "at", "tasks": ["urgency", "topic"]}},
        },
        "models": {"hash": {"model": f"null:{DIMENSION}"}},
        "tasks": {"urgency": {"model": "hash", "instruction": "a"}, "topic": {"model": "hash", "instruction": "b"}},
        "store": {"type": "edge", "path": str(folder / "store")},
        "api": {"port": free_port()},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def fill(path: Path, rows: Path, num_keys: int) -> None:
    context = Context.open(path)
    tasks = list(context.tasks.values())
    store = context.open_store()
    store.open(tasks)
    vectors = np.random.default_rng(1).standard_normal((STEP, DIMENSION), np.float32)
    with rows.open("wb") as file:
        for first in range(0, num_keys, STEP):
            names = [f"k{number}" for number in range(first, min(first + STEP, num_keys))]
            ids = b"".join(point_id("bench", "rows", f"s:{name}") for name in names)
            store.upsert(
                PointBatch(
                    np.frombuffer(ids, np.uint8).reshape(-1, 16),
                    np.ones(len(names), np.int64),
                    np.zeros(len(names), np.bool_),
                    [{"_key": f"s:{name}", "_source": f"rows:0:{first}"} for name in names],
                    {task.collection: vectors[: len(names)] for task in tasks},
                )
            )
            file.writelines(orjson.dumps({"id": name, "at": 1, "text": "It does not start."}) + b"\n" for name in names)
    store.close()


def measure(path: Path, rows: Path, num_keys: int) -> dict[str, float]:
    command = [sys.executable, "-m", "pipeline.cli", "verify", str(path), "--input", str(rows)]
    started_s, peak = time.monotonic(), 0
    with subprocess.Popen([*command, "--sample", "0", "--json"], stdout=subprocess.PIPE) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                # What is mapped from the store's files is the page cache's, and given back on demand.
                memory = watched.memory_info()
                peak = max(peak, memory.rss - memory.shared)
            except psutil.NoSuchProcess:
                break
            time.sleep(0.05)
        report = json.loads(process.stdout.read() if process.stdout else b"{}")
    elapsed_s = time.monotonic() - started_s
    assert report["equal"], "the benchmark's own store differs"
    return {
        "keys": num_keys,
        "tasks": 2,
        "elapsed_s": round(elapsed_s, 2),
        "keys_per_s": round(num_keys / elapsed_s),
        "comparisons_per_s": round(2 * num_keys / elapsed_s),
        "peak_mb": round(peak / 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        path, rows = configuration(folder), folder / "rows.jsonl"
        fill(path, rows, options.keys)
        print(json.dumps(measure(path, rows, options.keys), indent=2))


if __name__ == "__main__":
    main()
