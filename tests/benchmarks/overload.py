"""A backlog against a store that is stopped, then slow, then flapping, then well; the memory of every process.

A real broker, `refract run` as a process, the null engine, and a server of the store's protocol that is killed, told
to wait, and killed again and again. Every two seconds the memory of each process, the records finished and the
group's members are noted; the rows are printed as a table and written to `--json`. Memory is private: resident,
without what is mapped from files or shared.

before_records_per_s   the rate before anything happens
recovered_s            from the store's last restart until the rate was 0.8 of that again
after_records_per_s    the rate from then on
max_growth_mb          the largest growth of a process since the pipeline idled, over all phases
rebalances             rounds of the group's coordinator after the pipeline was ready: 0
finished               records the group has committed at the end, of those sent
"""

import argparse
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import orjson
import psutil
import yaml

from pipeline.config.load import load_config
from pipeline.sources.client.admin import create_topics
from pipeline.sources.client.producer import RecordProducer
from tests.benchmarks import _harness as harness
from tests.broker import Broker, free_port
from tests.e2e.harness import end, start_python
from tests.qdrant_server.faults import Fault
from tests.qdrant_server.process import QdrantServer

TOPIC = "overload"
SAMPLE_S = 2.0
SLOW_S = 2.0
"""What a slow store takes for each write."""

FLAP_S = 4.0
"""Half of it up, half of it down."""

WATCHED = ("Ingestor", "Embedder", "Api", "Monitor", "ServeController", "raylet", "gcs_server")
COORDINATOR_LOG = "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.coordinator.group=info"


@dataclass(slots=True)
class Run:
    """A running pipeline, and what was seen of it."""

    config_path: Path
    command: subprocess.Popen[bytes]
    http: httpx.Client
    broker: Broker
    group: str
    processes: dict[str, psutil.Process] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    began_s: float = field(default_factory=time.monotonic)
    idle_mb: dict[str, float] = field(default_factory=dict)

    def find_processes(self) -> None:
        family = psutil.Process(self.command.pid).children(recursive=True)
        lines = {process: " ".join(process.cmdline()) for process in family}
        self.processes = {
            name: next(process for process, line in lines.items() if _is(name, line)) for name in WATCHED
        } | {"refract run": psutil.Process(self.command.pid)}
        self.idle_mb = self.memory()

    def memory(self) -> dict[str, float]:
        """Returns megabytes by process; one that is gone has none."""
        found = {}
        for name, process in self.processes.items():
            with suppress(psutil.NoSuchProcess):
                used = process.memory_info()
                found[name] = round((used.rss - used.shared) / 2**20, 1)
        return found

    def finished(self) -> int:
        return sum(self.broker.committed(self.group).values())

    def written(self) -> int:
        """Returns the records that are in every collection."""
        status = self.http.get("/v1/status").json()
        return min(int(task["written"]) for task in status["topics"][TOPIC]["tasks"].values())

    def watch(self, phase: str, seconds: float, done: Callable[[], bool] = lambda: False) -> None:
        """Notes a row every `SAMPLE_S` until the time is over, or the phase is done."""
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s and not done():
            admin = self.broker.admin()
            try:
                (group,) = admin.describe_groups([self.group]).values()
            finally:
                admin.close()
            row = {
                "at_s": round(time.monotonic() - self.began_s, 1),
                "phase": phase,
                "written": self.written(),
                "finished": self.finished(),
                "members": sorted(member["member_id"] for member in group["members"]),
                "state": group["group_state"],
                "mb": self.memory(),
            }
            self.rows.append(row)
            time.sleep(SAMPLE_S)

    def rebalances(self) -> int:
        """Returns how often the coordinator has completed a round."""
        return (self.broker.directory / "broker.log").read_text(errors="replace").count("Stabilized group")


def main() -> None:
    """Runs all phases and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("var/overload.json"))
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--outage-s", type=float, default=60.0, help="how long the store is away")
    parser.add_argument("--slow-s", type=float, default=30.0)
    parser.add_argument("--flap-s", type=float, default=30.0)
    parser.add_argument("--dimension", type=int, default=64)
    given = parser.parse_args()
    os.environ["KAFKA_JVM_OPTS"] = COORDINATOR_LOG
    with TemporaryDirectory(prefix="refract-overload-") as directory:
        folder = Path(directory)
        store = QdrantServer(folder / "store").start()
        try:
            with Broker(folder / "kafka") as broker, running(folder, broker, store, given.dimension) as run:
                figures = measure(run, store, given)
        finally:
            store.stop()
    show(run.rows)
    harness.report(figures, {**vars(given), "json": str(given.json), "rows": run.rows}, given.json)


def measure(run: Run, store: QdrantServer, given: argparse.Namespace) -> dict[str, Any]:
    config_path = run.config_path
    config = load_config(config_path)
    create_topics(config.source, 4)
    first = given.records // 10
    send(config_path, 0, first)
    run.watch("before", 600, lambda: run.finished() >= first)
    before = rate(run.rows)
    rebalances = run.rebalances()
    store.kill()
    outage_ends_s = time.monotonic() + given.outage_s
    producing = start_python("-m", __spec__.name, "send", str(config_path), str(first), str(given.records), log=_null())
    run.watch("stopped", 3_600, lambda: producing.poll() is not None and time.monotonic() > outage_ends_s)
    assert producing.returncode == 0, "the producer failed"
    slow = Fault("Points/Upsert", times=-1, delay_s=SLOW_S)
    store.faults.set(slow)
    bring_back(store)
    run.watch("slow", given.slow_s)
    store.faults.clear()
    until_s = time.monotonic() + given.flap_s
    while time.monotonic() < until_s:
        run.watch("flapping", FLAP_S / 2)
        store.kill()
        run.watch("flapping", FLAP_S / 2)
        bring_back(store)
    recovered_s = recovery(run, 0.8 * before)
    began_s, began = time.monotonic(), run.written()
    run.watch("well", 3_600, lambda: run.finished() >= given.records)
    after = (given.records - began) / (time.monotonic() - began_s)
    growth = {
        name: round(max(row["mb"].get(name, 0.0) for row in run.rows) - idle, 1) for name, idle in run.idle_mb.items()
    }
    return {
        "before_records_per_s": before,
        "recovered_s": recovered_s,
        "after_records_per_s": after,
        "max_growth_mb": max(growth.values()),
        "growth_mb": growth,
        "rebalances": run.rebalances() - rebalances,
        "members_kept": len({tuple(row["members"]) for row in run.rows}) == 1,
        "finished": run.finished(),
        "sent": given.records,
    }


def bring_back(store: QdrantServer) -> None:
    """Starts the store again; a machine that is busy with the backlog may need more than one try."""
    for _ in range(5):
        with suppress(AssertionError):
            store.start()
            return
    raise AssertionError("the tests' server does not start")


def recovery(run: Run, target: float) -> float:
    """Returns seconds until records are written at the target rate over one second, at 0.25 s a look."""
    began_s = time.monotonic()
    seen = [(began_s, run.written())]
    while time.monotonic() - began_s < 120:
        time.sleep(0.25)
        seen.append((time.monotonic(), run.written()))
        # The app's own report comes once a second.
        past = next(entry for entry in seen if entry[0] >= seen[-1][0] - 3.0)
        elapsed_s = seen[-1][0] - past[0]
        if elapsed_s > 1.5 and (seen[-1][1] - past[1]) / elapsed_s >= target:
            return past[0] - began_s
    return float("inf")


def rate(rows: list[dict[str, Any]]) -> float:
    """Returns records per second between the first and the last row that saw progress."""
    moving = [row for row, following in itertools.pairwise(rows) if following["written"] > row["written"]]
    last = rows[-1]
    return float((last["written"] - moving[0]["written"]) / (last["at_s"] - moving[0]["at_s"]))


def send(config_path: Path, first: int, end_number: int) -> None:
    """Sends records first..end_number-1, each under a key of its own."""
    config = load_config(config_path)
    with RecordProducer(config.source) as producer:
        for number in range(first, end_number):
            row = {
                "id": f"T-{number}",
                "text": f"Ticket {number}: the {number % 97}th printer is on fire",
                "version": 1,
            }
            producer.send(TOPIC, f"T-{number}".encode(), orjson.dumps(row))
        producer.flush()


@contextmanager
def running(folder: Path, broker: Broker, store: QdrantServer, dimension: int) -> Iterator[Run]:
    """`refract run`, ready and idle."""
    tree = {
        "pipeline": "overload",
        "source": {
            "bootstrap_servers": [broker.bootstrap_servers],
            "group_id": "overload",
            "dead_letter_topic": f"{TOPIC}-dead",
            "topics": {TOPIC: {"key": "id", "text": "{text}", "version": "version", "tasks": list(harness.TASKS)}},
        },
        "models": {"model": {"model": f"null:{dimension}"}},
        "tasks": {task: {"model": "model", "instruction": text} for task, text in harness.TASKS.items()},
        "store": {"type": "qdrant", "url": store.url},
        "api": {"port": free_port()},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    create_topics(load_config(path).source, 4)
    command = start_python("-m", "pipeline.cli", "run", str(path), log=folder / "run.log")
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{tree['api']['port']}", timeout=30, trust_env=False) as http:  # type: ignore[index]
            deadline_s = time.monotonic() + 180
            while not _ready(http):
                assert time.monotonic() < deadline_s, (folder / "run.log").read_text()
                time.sleep(0.2)
            run = Run(path, command, http, broker, "overload")
            time.sleep(5)
            run.find_processes()
            yield run
    finally:
        end(command)


def show(rows: list[dict[str, Any]]) -> None:
    """Prints the rows, one in five seconds or so."""
    names = list(rows[0]["mb"])
    print("at_s  phase      written  finished  members  " + "  ".join(names))
    for row in rows[::3]:
        memory = "  ".join(f"{row['mb'].get(name, float('nan')):{len(name)}.0f}" for name in names)
        print(
            f"{row['at_s']:5.0f} {row['phase']:9} {row['written']:9,} {row['finished']:9,} "
            f"{len(row['members']):8}  {memory}"
        )


def _is(name: str, line: str) -> bool:
    if name in harness.APP_PROCESSES:
        return f"ServeReplica:refract:{name}" in line
    return name in line and "ServeReplica" not in line


def _ready(http: httpx.Client) -> bool:
    with suppress(httpx.TransportError):
        return http.get("/readyz").is_success
    return False


def _null() -> Path:
    return Path(os.devnull)


if __name__ == "__main__":
    if sys.argv[1:2] == ["send"]:
        send(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
