"""What reading files costs: rows a processor second of backfill, produce and verify, in each format, and no store.

FORMAT_VERB_rows_per_cpu_s  rows a second of processor time, of the best run
FORMAT_VERB_share           of what the format's own library reaches in a bare loop that makes dictionaries

Processor time of one process, so that what else the machine does counts little; versions are compared side by side.
"""

import argparse
import csv
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.backfill.inputs import list_inputs
from pipeline.backfill.rows import FragmentReader
from pipeline.compare.file_range import FileRange
from pipeline.config.load import load_config
from pipeline.config.pipeline import Config
from pipeline.records.files.messages import keys_of
from pipeline.records.files.topic_files import TopicFiles
from pipeline.usecases.produce import FileMessages
from tests.benchmarks import _harness as harness

TOPIC = "bench"
ROW_GROUP = 16_384


def main() -> None:
    """Reads every file for every verb and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write one JSON object here")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of each file")
    parser.add_argument("--runs", type=int, default=5, help="runs of each figure; the best counts")
    given = parser.parse_args()
    texts = harness.tickets(given.rows)
    figures: dict[str, float] = {}
    with TemporaryDirectory(prefix="refract-bench-") as folder:
        files = write_files(texts, given.rows, Path(folder))
        with harness.app_config("localhost:9092", {"model": "null:8"}, TOPIC) as path:
            config = load_config(path)
            for name, file in files.items():
                figures |= figures_of(name, file, config, given.runs)
    harness.report(figures, {"rows": given.rows, "runs": given.runs}, given.json)


def figures_of(name: str, file: Path, config: Config, runs: int) -> dict[str, float]:
    """Returns the figures of one file. The bare loop and the verbs take turns."""
    readers: dict[str, Callable[[], Iterable[Any]]] = {
        "bare": lambda: BARE[name](file),
        "backfill": lambda: backfilled(file, config),
        "produce": lambda: produced(file, config),
        "verify": lambda: FileRange([str(file)], TOPIC, keys_of(TOPIC, config.source.topics[TOPIC]), config).read(),
    }
    rates = dict.fromkeys(readers, 0.0)
    for _ in range(runs):
        for verb, read in readers.items():
            began_s = time.process_time()
            num_rows = sum(1 for _ in read())
            rates[verb] = max(rates[verb], num_rows / (time.process_time() - began_s))
    bare = rates.pop("bare")
    return {f"{name}_{verb}_rows_per_cpu_s": rate for verb, rate in rates.items()} | {
        f"{name}_{verb}_share": rate / bare for verb, rate in rates.items()
    }


def backfilled(file: Path, config: Config) -> Iterator[Any]:
    """Yields what a backfill embeds."""
    reader = FragmentReader(config, TOPIC)
    for part in list_inputs([str(file)]).parts:
        for batch in reader.batches(part):
            yield from batch


def produced(file: Path, config: Config) -> Iterator[Any]:
    """Yields what `produce` sends."""
    topic = config.source.topics[TOPIC]
    keys = keys_of(TOPIC, topic)
    files = TopicFiles([str(file)], topic, config.limits, keys, all_columns=True)
    return iter(FileMessages(files, keys, config.limits.max_depth, print))


def write_files(texts: list[str], count: int, folder: Path) -> dict[str, Path]:
    """Writes the same rows in every format, over and over the texts, each with a key of its own."""
    rows = [{"id": f"T-{number}", "text": texts[number % len(texts)], "version": number} for number in range(count)]
    files = {name: folder / f"rows.{name}" for name in BARE}
    with files["csv"].open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    files["jsonl"].write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    files["json"].write_text(json.dumps(rows), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(rows), files["parquet"], row_group_size=ROW_GROUP)
    return files


def bare_csv(path: Path) -> Iterator[Any]:
    """Yields rows as dictionaries."""
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file, strict=True)


def bare_lines(path: Path) -> Iterator[Any]:
    """Yields parsed lines."""
    with path.open("rb") as file:
        yield from map(orjson.loads, file)


def bare_array(path: Path) -> Iterator[Any]:
    """Yields the values of a file that fits into memory."""
    yield from orjson.loads(path.read_bytes())


def bare_parquet(path: Path) -> Iterator[Any]:
    """Yields rows as dictionaries."""
    for batch in pq.ParquetFile(path).iter_batches(4_096, use_threads=False):
        yield from batch.to_pylist()


BARE: Mapping[str, Callable[[Path], Iterator[Any]]] = {
    "csv": bare_csv,
    "jsonl": bare_lines,
    "json": bare_array,
    "parquet": bare_parquet,
}


if __name__ == "__main__":
    main()
