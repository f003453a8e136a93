"""Our engine beside what a user would pick instead: one machine, one model, the same texts, thread count and tasks.

Each contender runs in a process of its own, and they take turns, so that other work on the machine slows
all alike. Cosines are to the rows of sentence-transformers in float32; rates are medians over the rounds.
"""

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import platform
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from tests.benchmarks._contenders import CONTENDERS, MODEL, OVERRIDES, Work, export, serve

REFERENCE = ("sentence-transformers", "float32")
PATIENCE_S = 600


class Contender(NamedTuple):
    """A running contender."""

    name: str
    precision: str
    connection: Connection
    version: str


def main() -> int:
    """Prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write one JSON object here")
    parser.add_argument("--tickets", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="*", help="name:precision; the reference always runs")
    given = parser.parse_args()
    chosen = [key for key in CONTENDERS if key == REFERENCE or not given.only or ":".join(key) in given.only]
    with TemporaryDirectory(prefix="refract-engine-") as exports:
        work = _work(given.tickets, given.threads, Path(exports))
        if any(name in {"onnxruntime", "openvino"} for name, _ in chosen):
            process = multiprocessing.get_context("spawn").Process(target=export, args=(work,))
            process.start()
            process.join()
        rows = _measure(chosen, work, given.rounds)
    _print(rows)
    if given.json is not None:
        _write(given.json, rows, {"model": MODEL, "overrides": OVERRIDES} | vars(given))
    return 0


def _work(num_tickets: int, threads: int, exports: Path) -> Work:
    from pipeline.config.model import ModelConfig  # noqa: PLC0415 - contenders import this module too
    from pipeline.engine.spec import resolve  # noqa: PLC0415 - as above
    from tests.benchmarks._harness import TASKS, tickets  # noqa: PLC0415 - as above

    folder = resolve(ModelConfig(model=MODEL)).files.folder
    return Work(tickets(num_tickets), list(TASKS.values()), folder, exports, threads)


def _measure(chosen: Sequence[tuple[str, str]], work: Work, rounds: int) -> list[dict[str, Any]]:
    elapsed_s: dict[tuple[str, str], list[float]] = {key: [] for key in chosen}
    found = {}
    with _started(chosen, work) as contenders:
        for number in range(rounds):
            for contender in contenders:
                contender.connection.send("run")
                elapsed_s[contender[:2]].append(_answer(contender.connection, contender.name))
            print(f"round {number + 1} of {rounds}", flush=True)
        for contender in contenders:
            contender.connection.send("rows")
            found[contender[:2]] = (contender.version, *_answer(contender.connection, contender.name))
    num_tokens, seconds = _num_tokens(work), {key: statistics.median(values) for key, values in elapsed_s.items()}
    return [
        _row(key, found[key], found[REFERENCE][1])
        | {
            "threads": work.threads,
            "docs_per_s": len(work.texts) / seconds[key],
            "tokens_per_s": num_tokens / seconds[key],
            "ratio": seconds[REFERENCE] / seconds[key],
        }
        for key in chosen
    ]


def _row(key: tuple[str, str], found: tuple[str, Any, float], reference: Any) -> dict[str, Any]:
    version, rows, peak_mb = found
    found_rows, expected = (
        values / np.linalg.norm(values, axis=1, keepdims=True) for values in (rows.astype(float), reference)
    )
    cosines = (found_rows * expected).sum(axis=1)  # half precision leaves rows that are not quite of unit length
    return {
        "name": key[0],
        "version": version,
        "precision": key[1],
        "cosine": float(cosines.mean()),
        "min_cosine": float(cosines.min()),
        "peak_mb": peak_mb,
    }


@contextmanager
def _started(chosen: Sequence[tuple[str, str]], work: Work) -> Iterator[list[Contender]]:
    """The processes, one after another loaded and warm."""
    context = multiprocessing.get_context("spawn")
    processes, contenders = [], []
    try:
        for name, precision in chosen:
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, name, precision, work), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            contenders.append(Contender(name, precision, ours, _answer(ours, name)))
            print(f"{name} {precision} is ready", flush=True)
        yield contenders
    finally:
        for process in processes:
            process.kill()
            process.join()


def _answer(connection: Connection, name: str) -> Any:
    if not connection.poll(PATIENCE_S):
        raise SystemExit(f"{name} has not answered for {PATIENCE_S} s")
    return connection.recv()


def _num_tokens(work: Work) -> int:
    from tokenizers import Tokenizer  # noqa: PLC0415 - contenders import this module too

    tokenizer = Tokenizer.from_file(str(work.folder / "tokenizer.json"))
    tokenizer.no_padding()
    return sum(len(encoding.ids) for encoding in tokenizer.encode_batch_fast(work.prompts))


def _print(rows: Sequence[dict[str, Any]]) -> None:
    print(f"{'name':22} {'precision':9} {'docs/s':>8} {'ratio':>6} {'cosine':>9} {'min':>9} {'peak MB':>8}")
    for row in sorted(rows, key=lambda row: -row["ratio"]):
        print(
            f"{row['name']:22} {row['precision']:9} {row['docs_per_s']:8.1f} {row['ratio']:6.2f} "
            f"{row['cosine']:9.6f} {row['min_cosine']:9.6f} {row['peak_mb']:8.0f}"
        )


def _write(path: Path, rows: Sequence[dict[str, Any]], settings: dict[str, Any]) -> None:
    from tests.benchmarks._harness import processor  # noqa: PLC0415 - contenders import this module too

    packages = ("torch", "transformers", "tokenizers", "sentence-transformers", "onnxruntime", "openvino", "numpy")
    document = {
        "versions": {name: importlib.metadata.version(name) for name in packages}
        | {"python": platform.python_version()},
        "machine": {"cpus": os.cpu_count(), "processor": processor()},
        "settings": {name: value for name, value in settings.items() if name != "json"},
        "rows": rows,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
