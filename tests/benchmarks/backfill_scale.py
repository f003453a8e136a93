"""Backfills of many rows, nodes and embedders: null engine, two tasks, a store that only counts.

max_growth_mb      the largest growth of any process between a fifth of the rows and the end
ledger_share       time in the ledger over time of the run
cost_spread_*      largest over smallest processor time of a row, less one, on 1, 2 and 4 simulated nodes, and with 1,
                   2 and 4 embedders; all processes of the job count, Ray's own do not, nor does what those of the job
                   take while they have nothing to do (about 6 ms a second for any actor of Ray): rows do not cause
                   it, and nodes of their own would share it out. Each is the median of eight runs, half of them once
                   every other setting had its turn: processor time itself drifts by a tenth within minutes on a
                   machine that others use as well

Memory is private memory (resident, less what is shared with others). Where the embedders are more than the
cores, time on the clock says nothing, processor time does.
"""

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import ray
from ray.cluster_utils import Cluster

import actors.backfill_run
from actors.backfill_run import BackfillRun, needed_resources
from actors.cluster import cluster
from pipeline.backfill.executor import RunState
from pipeline.backfill.inputs import list_inputs
from pipeline.backfill.ledger import Ledger
from pipeline.backfill.outcome import Outcome
from pipeline.backfill.work import BackfillJob, Work
from pipeline.config.load import ConfigTree
from pipeline.context import Context
from tests.benchmarks import _harness as harness
from tests.benchmarks._counting_store import CountingOwner
from tests.benchmarks.backfill import write_rows

ROW_GROUP = 50_000
SAMPLES = 20
COST_SETTINGS = (1, 2, 4)
COST_TURNS = 2
COST_RUNS = 4
IDLE_S = 3.0
IDLE_RUNS = 3
PROCESSES = {"carrier": "CarrierActor", "embedder": "BackfillEmbedder", "owner": "CountingOwner"}
TEXTS = [f"Ticket {number}: the printer on floor {number % 7} does not print. " * 3 for number in range(997)]

Sample = dict[str, float]
"""rows, seconds and the private megabytes of each kind of process."""


def main() -> None:
    """Runs everything and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write one JSON object here")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the long run")
    parser.add_argument("--cost-rows", type=int, default=120_000, help="rows of each short run")
    parser.add_argument("--only", choices=("memory", "cost"))
    given = parser.parse_args()
    vars(actors.backfill_run)["StoreOwner"] = CountingOwner  # for this process's runs
    figures: dict[str, Any] = {}
    settings: dict[str, Any] = {"rows": given.rows, "cost_rows": given.cost_rows, "row_group": ROW_GROUP}
    with TemporaryDirectory(prefix="refract-bench-") as folder:
        if given.only in {None, "memory"}:
            rows = write_rows(TEXTS, given.rows, Path(folder) / "long.parquet", ROW_GROUP)
            figures |= memory(rows, given.rows, settings)
            rows.unlink()
        if given.only in {None, "cost"}:
            rows = write_rows(TEXTS, given.cost_rows, Path(folder) / "short.parquet", given.cost_rows // 24)
            figures |= cost(rows, given.cost_rows, settings)
    harness.report(figures, settings, given.json)


def memory(rows: Path, count: int, settings: dict[str, Any]) -> dict[str, Any]:
    """One long run: memory of every process over time, and the ledger's share."""
    with local(1) as source:
        table, ledger_s, elapsed_s, num_points = run(source, rows, count)
    tasks = len(harness.TASKS)
    assert num_points == count * tasks, f"{num_points} points of {count * tasks}"
    names = ["driver", *PROCESSES]
    settled = [sample for sample in table if sample["rows"] >= count / 5]
    growth = {name: settled[-1][name] - settled[0][name] for name in names}
    settings["memory_table"] = table
    return {
        "rows_per_s": count / elapsed_s,
        "max_growth_mb": max(growth.values()),
        "largest_mb": max(sample[name] for sample in table for name in names),
        "ledger_share": ledger_s / elapsed_s,
    }


def cost(rows: Path, count: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Processor time of a row on more and more nodes, then with more and more embedders on one."""
    by_nodes = cost_by("nodes", nodes, rows, count)
    by_embedders = cost_by("embedders", local, rows, count)
    settings |= {"cost_us_by_nodes": by_nodes, "cost_us_by_embedders": by_embedders}
    return {
        "cost_us_per_row": by_embedders[1],
        "cost_spread_nodes": max(by_nodes.values()) / min(by_nodes.values()) - 1,
        "cost_spread_embedders": max(by_embedders.values()) / min(by_embedders.values()) - 1,
    }


def cost_by(
    what: str, made: Callable[[int], AbstractContextManager[ConfigTree]], rows: Path, count: int
) -> dict[int, float]:
    """Returns the processor time of a row, in microseconds, by number of nodes or embedders."""
    costs: dict[int, list[float]] = {number: [] for number in COST_SETTINGS}
    for _ in range(COST_TURNS):
        for number in COST_SETTINGS:
            with made(number) as source:
                found = costs_us(source, rows, count)
            costs[number] += found
            print(f"{number} {what}: {'  '.join(f'{each:.1f}' for each in found)} us a row", flush=True)
    return {number: harness.median(found) for number, found in costs.items()}


class _Repeatable(BackfillRun):
    """Runs again with the carriers of the run before."""

    def _start_carrier(self, number: int) -> None:
        if number in self._carriers:
            self._joining[self._carriers[number].ready.remote()] = number
        else:
            super()._start_carrier(number)


class _Events:
    """Implements BackfillEvents: nothing may fail."""

    def doing(self, what: str) -> None:
        """See BackfillEvents."""

    def noted(self, work: Work, outcome: Outcome, *, done: bool) -> None:
        """See BackfillEvents."""

    def failed(self, work: Work, why: str) -> None:
        """See BackfillEvents."""
        raise RuntimeError(f"{work.name}: {why}")

    def progress(self, state: RunState) -> None:
        """See BackfillEvents."""


class _Memory(_Events):
    """Fills a table of memory while rows come through, and keeps a ledger."""

    def __init__(self, ledger: Ledger, count: int) -> None:
        self.table: list[Sample] = []
        self.ledger_s = 0.0
        self.began_s: float | None = None
        self._ledger = ledger
        self._count = count

    def noted(self, work: Work, outcome: Outcome, *, done: bool) -> None:
        """See BackfillEvents."""
        start_s = time.monotonic()
        self._ledger.note(work, outcome, done=done)
        self.ledger_s += time.monotonic() - start_s

    def progress(self, state: RunState) -> None:
        """See BackfillEvents."""
        through = state.counts.written / len(harness.TASKS)
        if through and self.began_s is None:
            self.began_s = time.monotonic()
        if self.began_s is not None and through >= len(self.table) * self._count / SAMPLES:
            self.table.append({"rows": through, "seconds": time.monotonic() - self.began_s} | private_mb())
            print("  ".join(f"{name} {value:,.1f}" for name, value in self.table[-1].items()), flush=True)


def costs_us(source: ConfigTree, rows: Path, count: int) -> list[float]:
    """Returns microseconds of processor time of a row in each of some runs, once every process has carried some."""
    job, events = BackfillJob(source, "bench", list(harness.TASKS)), _Events()
    backfill = _Repeatable(job)
    ray.get(list(backfill._starting))
    works = [Work(each, job.tasks, 0) for each in list_inputs([str(rows)]).fragments]
    first = works[: 4 * len(backfill._embedders["model"])]
    backfill.run(first, events)
    ray.get([carrier.ready.remote() for carrier in backfill._carriers.values()])
    backfill.run(first, events)
    idle, costs = idle_share(), []
    print(f"without work: {idle * 1000:.0f} ms a second", flush=True)
    for _ in range(COST_RUNS):
        used_s, elapsed_s = spent(lambda: backfill.run(works, events))
        costs.append((used_s - idle * elapsed_s) / count * 1e6)
    return costs


def idle_share() -> float:
    """Seconds of processor time that the job's processes take in a second without work, the least of some tries."""
    spans = [spent(lambda: time.sleep(IDLE_S)) for _ in range(IDLE_RUNS)]
    return min(used_s / elapsed_s for used_s, elapsed_s in spans)


def spent(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of processor time that the job's processes take while this runs, and seconds on the clock."""
    start_s, before_s = time.monotonic(), cpu_seconds()
    work()
    return cpu_seconds() - before_s, time.monotonic() - start_s


def run(source: ConfigTree, rows: Path, count: int) -> tuple[list[Sample], float, float, int]:
    """Returns a table of memory, seconds in the ledger, seconds from the first rows on, and points that arrived."""
    with TemporaryDirectory(prefix="refract-bench-") as folder:
        tasks = list(Context(source).tasks.values())
        ledger = Ledger(Path(folder) / "ledger", tasks, "tickets")
        events = _Memory(ledger, count)
        works = [Work(each, [task.name for task in tasks], 0) for each in list_inputs([str(rows)]).fragments]
        backfill = BackfillRun(BackfillJob(source, "bench", list(harness.TASKS)))
        backfill.run(works, events)
        elapsed_s = time.monotonic() - (events.began_s or 0.0)
        num_points = sum(ray.get([owner.num_points.remote() for owner, _ in backfill._owners]))
        ledger.close()
        return events.table, events.ledger_s, elapsed_s, num_points


@contextlib.contextmanager
def local(num_embedders: int) -> Iterator[ConfigTree]:
    """A cluster of one node with so many embedders."""
    with configured(num_embedders) as source:
        needed = needed_resources(BackfillJob(source, "bench", list(harness.TASKS)))
        with cluster(None, "refract", {"CPU": needed["CPU"] + 2 * num_embedders}):
            yield source


@contextlib.contextmanager
def nodes(count: int) -> Iterator[ConfigTree]:
    """A cluster of so many simulated nodes, with an embedder for each."""
    simulated = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 1 << 28})
    try:
        for _ in range(count - 1):
            simulated.add_node(num_cpus=2, object_store_memory=1 << 28)
        with configured(count) as source, cluster(simulated.address, "refract", {}):
            yield source
    finally:
        simulated.shutdown()  # type: ignore[no-untyped-call]  # Ray's


@contextlib.contextmanager
def configured(num_embedders: int) -> Iterator[ConfigTree]:
    """The configuration of the null engine with so many embedders."""
    model = {"model": "null:384", "replicas": num_embedders}
    with harness.app_config("localhost:9092", model, "bench") as path:
        yield ConfigTree.read(path)


def job_processes() -> list[tuple[str, psutil.Process]]:
    """The driver and the job's actors, by name: Ray's processes are this one's descendants."""
    driver = psutil.Process()
    found = [("driver", driver)]
    for process in driver.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            command = " ".join(process.cmdline())
            found += [(name, process) for name, actor in PROCESSES.items() if command.startswith(f"ray::{actor}")]
    return found


def private_mb() -> dict[str, float]:
    """The private memory of each kind of process, the largest where there are several."""
    sizes: dict[str, float] = dict.fromkeys(["driver", *PROCESSES], 0.0)
    for name, process in job_processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            used = process.memory_info()
            sizes[name] = max(sizes[name], (used.rss - used.shared) / 2**20)
    return sizes


def cpu_seconds() -> float:
    """Processor time of the job's processes so far."""
    return harness.cpu_seconds(process for _, process in job_processes())


if __name__ == "__main__":
    main()
