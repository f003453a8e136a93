"""The live pipeline, real Kafka to Edge, two tasks: what it carries, and what of the engine's speed it keeps.

null_records_per_s   null engine, 384 dimensions, one ingestor
engine_docs_per_s    MiniLM alone: texts through tokenizer and engine in one process, both tasks
live_docs_per_s      the same texts through the whole pipeline
live_efficiency      the ratio of the two, pair by pair
idle_cpu_share       processor share of the app without traffic, of one core; Ray's own share apart
ready_s              from typing `refract run` to /readyz
"""

import subprocess
import sys
import time
from pathlib import Path

import httpx

from pipeline.config.load import load_config
from tests.benchmarks import _harness as harness

NULL_RECORDS = 60_000
MINILM_TEXTS = 2_400
IDLE_S = 20.0

ENGINE_ALONE = """
import sys, time
from pathlib import Path
from pipeline.config.load import load_config
from pipeline.engine.entry import load_engine, load_tokenizer
from tests.benchmarks._harness import tickets
config = load_config(Path(sys.argv[1]))
model, texts = config.models["model"], tickets(int(sys.argv[2]))
tokenizer, engine = load_tokenizer(model, config.tasks), load_engine(model, config.tasks, threads=int(sys.argv[3]))
names, size = list(config.tasks), config.limits.max_batch_records
engine.embed(tokenizer.encode(texts[:64], names))
began = time.perf_counter()
for start in range(0, len(texts), size):
    engine.embed(tokenizer.encode(texts[start:start + size], names))
print(len(texts) / (time.perf_counter() - began))
"""


def main() -> None:
    """Runs everything and prints the table."""
    given = harness.arguments(__doc__)
    texts = harness.tickets(5_431)
    with harness.broker() as bootstrap:
        null = [harness.told("null_records_per_s", run, _null_rate(bootstrap, texts, run)) for run in range(given.runs)]
        pairs = [
            harness.told("engine_docs_per_s, live_docs_per_s", run, _pair(bootstrap, texts[:MINILM_TEXTS], run))
            for run in range(given.runs)
        ]
        idle, ray_idle = harness.told("idle_cpu_share, ray_idle_cpu_share", 0, _idle(bootstrap))
        ready = [harness.told("ready_s", run, _ready(bootstrap, run)) for run in range(given.runs)]
    figures = {
        "null_records_per_s": harness.median(null),
        "engine_docs_per_s": harness.median([engine for engine, _ in pairs]),
        "live_docs_per_s": harness.median([live for _, live in pairs]),
        "live_efficiency": harness.median([live / engine for engine, live in pairs]),
        "idle_cpu_share": idle,
        "ray_idle_cpu_share": ray_idle,
        "ready_s": harness.median(ready),
    }
    settings = {
        "runs": given.runs,
        "null_records": NULL_RECORDS,
        "minilm_texts": MINILM_TEXTS,
        "tasks": 2,
        "dimension": 384,
        "all_runs": {"null": null, "engine_live_pairs": pairs, "ready": ready},
    }
    harness.report(figures, settings, given.json)


def _null_rate(bootstrap: str, texts: list[str], run: int) -> float:
    copies = NULL_RECORDS // len(texts) + 1
    with harness.app_config(bootstrap, {"model": "null:384"}, f"null-{run}") as path:
        total = harness.fill(path, texts, copies)
        with harness.running(path) as app:
            return harness.drain_rate(app, total)


def _pair(bootstrap: str, texts: list[str], run: int) -> tuple[float, float]:
    """Engine alone, then the same texts live, one after the other on the same threads."""
    with harness.app_config(bootstrap, harness.MINILM, f"minilm-{run}") as path:
        total = harness.fill(path, texts)
        model = load_config(path).models["model"]
        threads = model.threads or max(int(model.num_cpus), 1)
        command = [sys.executable, "-c", ENGINE_ALONE, str(path), str(len(texts)), str(threads)]
        alone = float(subprocess.run(command, check=True, capture_output=True, text=True, cwd=harness.ROOT).stdout)
        with harness.running(path) as app:
            return alone, harness.drain_rate(app, total)


def _idle(bootstrap: str) -> tuple[float, float]:
    with harness.app_config(bootstrap, harness.MINILM, "idle") as path:
        harness.fill(path, ["one"])
        with harness.running(path) as app:
            while not harness.written(app):
                time.sleep(0.1)
            time.sleep(5)
            groups = [harness.processes(names).values() for names in (harness.APP_PROCESSES, harness.RAY_PROCESSES)]
            before = [harness.cpu_seconds(group) for group in groups]
            time.sleep(IDLE_S)
            shares = [(harness.cpu_seconds(group) - used) / IDLE_S for group, used in zip(groups, before, strict=True)]
            return shares[0], shares[1]


def _ready(bootstrap: str, run: int) -> float:
    with harness.app_config(bootstrap, harness.MINILM, f"ready-{run}") as path:
        harness.fill(path, ["one"])
        url = f"http://127.0.0.1:{load_config(path).api.port}/readyz"
        began_s = time.monotonic()
        log = Path(path).with_name("run.log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.cli", "run", str(path)], cwd=harness.ROOT, stdout=output, stderr=output
            )
            try:
                while True:
                    if process.poll() is not None:
                        raise SystemExit(f"refract run ended with {process.returncode}:\n{log.read_text()}")
                    try:
                        if httpx.get(url, timeout=2, trust_env=False).status_code == httpx.codes.OK:
                            return time.monotonic() - began_s
                    except httpx.TransportError:
                        pass
                    time.sleep(0.1)
            finally:
                process.terminate()
                process.wait(60)


if __name__ == "__main__":
    main()
