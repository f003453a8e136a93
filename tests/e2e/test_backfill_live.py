"""Records, updates and deletes arrive while a backfill writes older and newer rows of the same keys.

Whatever comes first, the newest version of each key is what stays. The backfill uses the running app's embedders.
"""

import os
import random
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest
import ray

from pipeline.records.record import file_source, point_id
from pipeline.stores.open import open_store
from tests.broker import Broker
from tests.e2e.differences import State
from tests.e2e.harness import PATIENCE_S, ROOT, InProcessApp, end, journal_of, start_python, write_config
from tests.e2e.oracle import VERSION_0, Journal, stored_version
from tests.e2e.test_backfill import GROUP_ROWS, refract, write_rows
from tests.qdrant_server.process import QdrantServer

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.kafka, pytest.mark.ray, pytest.mark.timeout(600)]

NUM_KEYS = 400
NUM_ROWS = 3_000
SEED = int(os.environ.get("REFRACT_SEED", "") or time.time_ns() % 100_000)


@pytest.fixture
def app(folder: Path, broker: Broker) -> Iterator[InProcessApp]:
    server = QdrantServer(folder / "server").start()
    name = f"backfill-live-{SEED}"
    try:
        path = write_config(
            folder,
            broker,
            name,
            store={"type": "qdrant", "url": server.url},
            limits__max_batch_records=32,
            models__hash__overrides={"delay_ms_per_batch": 5},
        )
        with journal_of(path) as journal, InProcessApp(path, broker, journal) as running:
            yield running
    finally:
        server.stop()
        rmtree(ROOT / "var" / f"{name}.backfill", ignore_errors=True)


def is_deleted(key: str, version: int) -> bool:
    """A state of a key is the same whoever sends it: two of one version would be the producer's fault."""
    return random.Random(f"{key} {version}").random() < 0.12


def rows_of(journal: Journal, chance: random.Random, path: Path) -> list[dict[str, Any]]:
    """Random even versions of random keys, some deleted; noted in the journal as if they had been sent."""
    rows = []
    for number in range(NUM_ROWS):
        key, version = f"K-{number % NUM_KEYS}", 2 * chance.randrange(1, 500)
        deleted = is_deleted(key, version)
        title, body = f"Ticket {key}", f"{key} as of {version} in the file"
        status = "deleted" if deleted else "open"
        rows.append({"id": key, "title": title, "body": body, "updated_at": VERSION_0 + version, "status": status})
        payload = {"_key": f"s:{key}", **({} if deleted else {"title": title})}
        source = f"{file_source(str(path))}{number // GROUP_ROWS}:{number % GROUP_ROWS}"
        _note(
            journal, key, State(stored_version(version), None if deleted else f"{title}\n\n{body}", payload, {source})
        )
    return rows


def _note(journal: Journal, key: str, state: State) -> None:
    point = point_id(journal.config.pipeline, journal.tickets, f"s:{key}")
    for task in journal.config.source.topics[journal.tickets].tasks:
        kept = journal.states[task].get(point)
        if kept is None or state.version > kept.version:
            journal.states[task][point] = state
        elif state.version == kept.version:
            kept.sources.update(state.sources)


def test_any_interleaving_of_live_records_and_file_rows_ends_with_the_newest(app: InProcessApp, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    journal = app.journal
    path = tmp_path / "rows.parquet"
    write_rows(path, rows_of(journal, chance, path))
    address = ray.get_runtime_context().gcs_address
    log = tmp_path / "log"
    options = ["--topic", journal.tickets, "--share", "--address", address]
    run = start_python("-m", "pipeline.cli", "backfill", str(app.path), str(path), *options, log=log)
    num_sent = 0
    try:
        deadline_s = time.monotonic() + 2 * PATIENCE_S
        while run.poll() is None and time.monotonic() < deadline_s:
            key, version = f"K-{chance.randrange(NUM_KEYS)}", 2 * chance.randrange(1, 500) + 1
            journal.ticket(key, version, deleted=is_deleted(key, version))
            num_sent += 1
            time.sleep(chance.random() * 0.1)  # live records come first: more of them would leave nothing
    finally:
        end(run)
    assert run.returncode == 0, f"seed {SEED}: {log.read_text()}"
    assert num_sent > 100, "the backfill was over before anything arrived beside it"
    for number in range(NUM_KEYS):
        journal.ticket(
            f"K-{number}", 1, deleted=is_deleted(f"K-{number}", 1)
        )  # every key is in the topic, most of them with a version that loses
    app.wait_finished()
    with closing(open_store(app.config.store, app.config.pipeline)) as store:
        assert journal.compare(store) == [], f"seed {SEED}"
    for source in ([], ["--input", str(path), "--topic", journal.tickets]):
        compared = refract("verify", str(app.path), *source, "--sample", "all")
        assert compared.returncode == 0, f"seed {SEED}: {compared.stdout}{compared.stderr}"
