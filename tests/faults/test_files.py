"""Files of records beside live ones, runs that die, and files that break: rows 43 to 45, by the command alone."""

import random
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

from pipeline.records.record import file_source, point_id  # noqa: E402
from tests.e2e.differences import State  # noqa: E402
from tests.e2e.harness import PATIENCE_S, end, kill_all, start_python, wait_until  # noqa: E402
from tests.e2e.oracle import VERSION_0, stored_version  # noqa: E402
from tests.faults.harness import Rig  # noqa: E402
from tests.faults.results import TooLateError, fault_run  # noqa: E402

pytestmark = [pytest.mark.kafka, pytest.mark.ray]

GROUP_ROWS = 100
RUN_S = 2 * PATIENCE_S


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file: a ticket at a version."""

    key: str
    version: int
    deleted: bool = False

    def columns(self) -> dict[str, Any]:
        return {
            "id": self.key,
            "title": f"Ticket {self.key}",
            "body": f"{self.key} in a file, {self.version}",
            "updated_at": VERSION_0 + self.version,
            "status": "deleted" if self.deleted else "open",
        }


def write_parquet(path: Path, rows: Sequence[Row]) -> Path:
    pq.write_table(pa.Table.from_pylist([row.columns() for row in rows]), path, row_group_size=GROUP_ROWS)
    return path


def expect(rig: Rig, path: Path, rows: Sequence[Row]) -> None:
    """Tells the journal what a file's rows must lead to, beside everything it has sent."""
    for number, row in enumerate(rows):
        columns, source = (
            row.columns(),
            f"{file_source(str(path.absolute()))}{number // GROUP_ROWS}:{number % GROUP_ROWS}",
        )
        point = point_id(rig.config.pipeline, rig.journal.tickets, f"s:{row.key}")
        payload = {"_key": f"s:{row.key}", **({} if row.deleted else {"title": columns["title"]})}
        text = None if row.deleted else f"{columns['title']}\n\n{columns['body']}"
        for task in rig.config.source.topics[rig.journal.tickets].tasks:
            states = rig.journal.states[task]
            kept = states.get(point)
            if kept is None or stored_version(row.version) > kept.version:
                states[point] = State(stored_version(row.version), text, payload, {source})


class Backfill:
    """`refract backfill` as a process; ends, with all it started, at the end of its `with`."""

    def __init__(self, rig: Rig, *inputs: Path) -> None:
        self._log = rig.folder / f"backfill-{next(rig.numbers)}.log"
        arguments = ["backfill", str(rig.path), *map(str, inputs), "--topic", rig.journal.tickets]
        self.process: subprocess.Popen[bytes] = start_python("-m", "pipeline.cli", *arguments, log=self._log)
        self._left: list[psutil.Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        end(self.process)
        kill_all(self._left)

    def kill(self) -> None:
        """kill -9 of the command, and then of what it has left behind."""
        self._left = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE_S)
        kill_all(self._left)

    def wait(self) -> int:
        return self.process.wait(RUN_S)

    def output(self) -> str:
        return self._log.read_text(errors="replace")


def num_stored(rig: Rig, keys: Sequence[str]) -> int:
    ids = [point_id(rig.config.pipeline, rig.journal.tickets, f"s:{key}") for key in keys]
    return len(rig.store.retrieve(rig.journal.tasks["urgency"].collection, ids))


def wait_stored(rig: Rig, keys: Sequence[str], share: float, running: Backfill) -> None:
    def stored() -> bool:
        assert running.process.poll() is None, running.output()
        return num_stored(rig, keys) > share * len(keys)

    wait_until(stored, "a part is stored")


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.faults)])
def test_files_beside_live_writes_to_the_same_keys(rig: Rig, seed: int) -> None:
    """Every key comes both ways, the newer version now from here, now from there; some of both are deletes."""
    choose = random.Random(seed)
    keys = [f"B-{number}" for number in range(1_200)]
    rows = [Row(key, 2 * choose.randrange(1, 50), deleted=choose.random() < 0.1) for key in keys]
    path = write_parquet(rig.folder / "old.parquet", rows)
    live = [(key, 2 * choose.randrange(1, 50) + 1, choose.random() < 0.1) for key in keys for _ in range(2)]
    live = list({(key, version): (key, version, deleted) for key, version, deleted in live}.values())
    choose.shuffle(live)
    with fault_run(43, seed) as run, rig.worker(), Backfill(rig, path) as files:
        for start in range(0, len(live), 100):
            for key, version, deleted in live[start : start + 100]:
                rig.journal.ticket(key, version, deleted=deleted)
            rig.journal.settle()
            time.sleep(0.8)  # as long as the command takes to start and to write
        assert files.wait() == 0, files.output()
        run.healed()
        expect(rig, path, rows)
        rig.wait_finished()
        run.recovered()
        rig.compare(run)
        newest = [rig.journal.expected("urgency", key) for key in keys]
        from_file = sum(min(state.sources).startswith("old.parquet") for state in newest)
        assert 200 < from_file < 1_000, "both ways must win now and then"


@pytest.mark.faults
def test_run_over_files_is_killed_and_repeated(rig: Rig) -> None:
    keys = [f"K-{number}" for number in range(3_000)]
    rows = [Row(key, 1) for key in keys]
    path = write_parquet(rig.folder / "much.parquet", rows)
    expect(rig, path, rows)
    with fault_run(44) as run:
        for share in (0.1, 0.4):
            with Backfill(rig, path) as first:
                wait_stored(rig, keys, share, first)
                first.kill()
            if num_stored(rig, keys) >= len(keys):
                raise TooLateError("everything is stored already: write more rows")
        run.healed()
        with Backfill(rig, path) as last:
            assert last.wait() == 0, last.output()
        run.recovered()
        rig.compare(run)


@pytest.mark.faults
def test_file_is_broken(rig: Rig) -> None:
    """One of three files was cut short: it is named, the others are stored, and the exit code says so."""
    whole = {name: [Row(f"{name}-{number}", 1) for number in range(250)] for name in ("first", "second", "third")}
    paths = {name: write_parquet(rig.folder / f"{name}.parquet", rows) for name, rows in whole.items()}
    content = paths["second"].read_bytes()
    paths["second"].write_bytes(content[: len(content) * 2 // 3])
    for name in ("first", "third"):
        expect(rig, paths[name], whole[name])
    with fault_run(45) as run:
        with Backfill(rig, *paths.values()) as broken:
            assert broken.wait() == 1, broken.output()
            assert "second.parquet" in broken.output()
        rig.compare(run)
        paths["second"].write_bytes(content)
        run.healed()
        with Backfill(rig, *paths.values()) as mended:
            assert mended.wait() == 0, mended.output()
        run.recovered()
        expect(rig, paths["second"], whole["second"])
        rig.compare(run)
