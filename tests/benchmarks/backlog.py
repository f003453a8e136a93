"""Memory under lag: 200,000 records wait while the store is down; resident memory of each process above its idle value.

The store's owner is stopped (SIGSTOP), as a server that hangs would be. `max_above_idle_mb` is the
largest growth of any process of the app; `recovered_records_per_s` is the rate once it is back.
"""

import signal
import time

import psutil

from tests.benchmarks import _harness as harness

RECORDS = 200_000
OUTAGE_S = 25.0


def main() -> None:
    """Runs and prints the table."""
    given = harness.arguments(__doc__)
    texts = harness.tickets(5_431)
    with harness.broker() as bootstrap, harness.app_config(bootstrap, {"model": "null:384"}, "backlog") as path:
        first = harness.fill(path, texts[:1])
        with harness.running(path) as app:
            while harness.written(app) < first:
                time.sleep(0.1)
            time.sleep(3)
            watched = harness.processes(("Ingestor", "Embedder", "Api", "Monitor"))
            idle = {name: _private_mb(process) for name, process in watched.items()}
            owners = harness.processes(("StoreOwner",))
            for process in owners.values():
                process.send_signal(signal.SIGSTOP)
            total = harness.fill(path, texts, RECORDS // len(texts) + 1)
            highest = dict(idle)
            end_s = time.monotonic() + OUTAGE_S
            while time.monotonic() < end_s:
                for name, process in watched.items():
                    highest[name] = max(highest[name], _private_mb(process))
                time.sleep(0.5)
            for process in owners.values():
                process.send_signal(signal.SIGCONT)
            rate = harness.drain_rate(app, total)
    above = {name: round(highest[name] - idle[name], 1) for name in idle}
    figures = {"max_above_idle_mb": max(above.values()), "recovered_records_per_s": rate}
    harness.report(figures, {"records": total, "outage_s": OUTAGE_S, "above_idle_mb": above}, given.json)


def _private_mb(process: psutil.Process) -> float:
    """Resident memory without what is shared with others, the object store's mapping first of all."""
    memory = process.memory_info()
    return float(memory.rss - memory.shared) / 2**20


if __name__ == "__main__":
    main()
