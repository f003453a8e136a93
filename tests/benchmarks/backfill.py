"""The backfill, Parquet to an embedded store, two tasks, on two cores: one run of each figure, side by side.

null_rows_per_s           null engine, 384 values, everything else as it is
bare_loop_share           of what a loop of pyarrow's reads and guarded upserts reaches in one process
engine_efficiency         MiniLM: of the documents a second that its engine alone embeds on as many threads
ratio_to_ray_data_script  MiniLM on both cores: to Ray Data, sentence-transformers and points one by one (_ray_data.py),
                          on both cores, at the best of the settings in `searched`, which are tried on some texts first
ratio_to_float32_script   the same, where the script loads the model as sentence-transformers does unasked

Starts (Ray, actors, models) are left out everywhere: a rate counts from the first rows written to the last.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from actors.backfill_run import RayExecutor
from pipeline.backfill.executor import RunState
from pipeline.backfill.watch import Unwatched
from pipeline.config.load import ConfigTree, load_config
from pipeline.config.model import ModelConfig
from pipeline.context import Context
from pipeline.engine.cpu_kernels import cpu_computes_in_bfloat16
from pipeline.engine.spec import resolve
from pipeline.records.batches import PointBatch
from pipeline.records.record import point_id
from pipeline.stores.open import open_store
from pipeline.usecases.backfill import BackfillRequest, backfill
from tests.benchmarks import _harness as harness
from tests.benchmarks.live import ENGINE_ALONE

ROW_GROUP = 16_384
"""Rows that become durable together. Small for Parquet: pyarrow writes 1,048,576 by default, DuckDB 122,880."""

BATCH_ROWS = 512
BOTH: dict[str, Any] = {"num_cpus": 2}
"""MiniLM's setting beside the script, which has both processors as well; elsewhere it has one thread."""

SEARCH_TEXTS = 2_048
"""Of which two actors get four batches each."""


def main() -> None:
    """Runs everything and prints the table."""
    given = arguments()
    texts = harness.tickets(given.texts)
    with TemporaryDirectory(prefix="refract-bench-") as folder:
        null_rows = write_rows(texts, given.rows, Path(folder) / "null.parquet")
        minilm_rows = write_rows(texts, len(texts), Path(folder) / "minilm.parquet")
        minilm = harness.MINILM | {"num_cpus": 1}
        bare = told("bare loop", bare_loop_rate(null_rows))
        null = told("null engine", backfill_rate({"model": "null:384"}, null_rows))
        engine = told("MiniLM's engine alone", engine_rate(minilm, len(texts)))
        docs = told("MiniLM", backfill_rate(minilm, minilm_rows))
        both = told("MiniLM on both processors", backfill_rate(minilm | BOTH, minilm_rows))
        scripts = {dtype: best_settings(texts[:SEARCH_TEXTS], dtype, Path(folder)) for dtype in script_dtypes()}
        script_rates = {
            dtype: told(f"Ray Data script, {settings}", ray_data_rate(minilm_rows, Path(folder) / dtype, settings))
            for dtype, settings in scripts.items()
        }
    figures = {
        "null_rows_per_s": null,
        "bare_loop_share": null / bare,
        "engine_efficiency": docs / engine,
        "ratio_to_ray_data_script": both / max(script_rates.values()),
        "ratio_to_float32_script": both / script_rates["float32"],
    }
    settings = {
        "null_rows": given.rows,
        "minilm_texts": len(texts),
        "tasks": len(harness.TASKS),
        "dimension": 384,
        "row_group": ROW_GROUP,
        "against_the_script": BOTH,
        "ray_data_scripts": scripts,
        "rates": {
            "bare": bare,
            "engine_docs": engine,
            "backfill_docs": docs,
            "backfill_docs_both": both,
            "ray_data_script_rows": script_rates,
        },
    }
    harness.report(figures, settings, given.json)


def told(what: str, rate: float) -> float:
    """Prints a rate as soon as it is known: the whole takes minutes."""
    print(f"{what}: {rate:,.1f} rows/s", flush=True)
    return rate


def arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write one JSON object here")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the null engine's input")
    parser.add_argument("--texts", type=int, default=3_000, help="tickets of MiniLM's input")
    return parser.parse_args()


def write_rows(texts: list[str], count: int, path: Path, row_group: int = ROW_GROUP) -> Path:
    """Writes so many rows over the texts, each with a key of its own."""
    with pq.ParquetWriter(
        path, pa.schema([("id", pa.string()), ("text", pa.string()), ("version", pa.int64())])
    ) as file:
        for first in range(0, count, row_group):
            numbers = range(first, min(first + row_group, count))
            columns = {
                "id": [f"T-{number}" for number in numbers],
                "text": [texts[number % len(texts)] for number in numbers],
                "version": [1] * len(numbers),
            }
            file.write_table(pa.table(columns))
    return path


def backfill_rate(model: Mapping[str, Any], rows: Path) -> float:
    """Returns rows a second of a backfill, ledger included, from the first rows written to the end."""
    with harness.app_config("localhost:9092", model, "bench") as path:
        watch = _FirstAndLast()
        report = backfill(Context(ConfigTree.read(path)), BackfillRequest([str(rows)]), RayExecutor(None), watch)
    assert report.ok, report.failed
    (first_s, first_rows), (last_s, last_rows) = watch.seen[0], watch.seen[-1]
    return (last_rows - first_rows) / (last_s - first_s)


class _FirstAndLast(Unwatched):
    """Notes when how many rows were written; the last time is that of the end, before actors and Ray end."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []

    def show(self, state: RunState) -> None:
        """See BackfillWatch."""
        if state.counts.written:
            self.seen.append((time.monotonic(), state.counts.written / len(harness.TASKS)))


def bare_loop_rate(rows: Path) -> float:
    """Returns rows a second of reads and guarded upserts of given vectors, in this process."""
    vectors = np.random.default_rng(0).standard_normal((BATCH_ROWS, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with opened_store() as (store, tasks):
        began_s, num_rows = time.monotonic(), 0
        for batch in pq.ParquetFile(rows).iter_batches(BATCH_ROWS, columns=["id", "version"]):
            keys, versions = (column.to_pylist() for column in batch.columns)
            ids = b"".join(point_id("bench", "rows", key) for key in keys)
            store.upsert(
                PointBatch(
                    np.frombuffer(ids, np.uint8).reshape(-1, 16),
                    np.array(versions, np.int64),
                    np.zeros(len(keys), np.bool_),
                    [{"id": key} for key in keys],
                    {task.collection: vectors[: len(keys)] for task in tasks},
                )
            )
            num_rows += len(keys)
        store.flush()
        return num_rows / (time.monotonic() - began_s)


@contextlib.contextmanager
def opened_store() -> Iterator[tuple[Any, list[Any]]]:
    """An embedded store with the collections of the null engine's tasks."""
    with harness.app_config("localhost:9092", {"model": "null:384"}, "bench") as path:
        context = Context(ConfigTree.read(path))
        store, tasks = open_store(context.config.store, "bench"), list(context.tasks.values())
        store.open(tasks)
        try:
            yield store, tasks
        finally:
            store.close()


def engine_rate(model: Mapping[str, Any], num_texts: int) -> float:
    """Returns documents a second of tokenizer and engine in one process, on the threads of a backfill's embedder."""
    with harness.app_config("localhost:9092", model, "bench") as path:
        threads = max(int(load_config(path).models["model"].num_cpus), 1)
        command = [sys.executable, "-c", ENGINE_ALONE, str(path), str(num_texts), str(threads)]
        return float(subprocess.run(command, check=True, capture_output=True, text=True, cwd=harness.ROOT).stdout)


def ray_data_rate(rows: Path, folder: Path, settings: Mapping[str, Any]) -> float:
    """Returns rows a second of the Ray Data script."""
    model = resolve(ModelConfig.model_validate(harness.MINILM), weights=True).files.folder
    command = [sys.executable, "-m", "tests.benchmarks._ray_data", str(rows), str(model), str(folder)]
    done = subprocess.run(
        [*command, json.dumps(settings)], check=True, stdout=subprocess.PIPE, text=True, cwd=harness.ROOT
    )
    return float(done.stdout.splitlines()[-1])


def script_dtypes() -> list[str]:
    """Returns float32, which sentence-transformers takes unasked, and bfloat16 where the processor computes in it."""
    return ["float32", "bfloat16"] if cpu_computes_in_bfloat16() else ["float32"]


def searched(dtype: str) -> list[dict[str, Any]]:
    """Returns the settings of the script that are tried: fewer texts at once are padded less."""
    return [
        {"batch_size": 256, "encode_batch": encode, "dtype": dtype, "actors": actors, "num_cpus": cpus}
        for actors, cpus in ((1, 2), (2, 1))
        for encode in (8, 32)
    ]


def best_settings(texts: list[str], dtype: str, folder: Path) -> dict[str, Any]:
    """Returns the fastest settings of the script on these texts."""
    rows = write_rows(texts, len(texts), folder / f"search-{dtype}.parquet")
    tried = [
        (told(f"tried {settings}", ray_data_rate(rows, folder / f"{dtype}-{number}", settings)), settings)
        for number, settings in enumerate(searched(dtype))
    ]
    return max(tried, key=lambda each: each[0])[1]


if __name__ == "__main__":
    main()
