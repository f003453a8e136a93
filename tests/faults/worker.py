"""`python -m tests.faults.worker CONFIG --folder DIR`: an ingestor and its engine in one process, without Ray.

The core loop, the source, the dead letters and the store are the product's; only the wiring that
`actors` does is repeated here, so that a row can start, kill and stop members within a second.
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from threading import Event, Lock, Thread
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import grpc._channel
import grpc._common
import psutil
from prometheus_client import CollectorRegistry

from pipeline.config.load import ConfigTree
from pipeline.config.pipeline import Config
from pipeline.context import Context
from pipeline.engine.entry import load_engine
from pipeline.live.observer import IngestObserver
from pipeline.live.offsets import OffsetTracker
from pipeline.live.retry import Retrier
from pipeline.live.routes import Ports
from pipeline.live.worker import StreamWorker
from pipeline.logs import configure_logs
from pipeline.metrics import IngestMetrics, Snapshot, snapshot, total
from pipeline.records.batches import Embeddings, Priority, TokenBatch
from pipeline.sources.letters.dead_letters import KafkaDeadLetters
from pipeline.stores.open import open_store
from pipeline.usecases.ingest import build_member

if TYPE_CHECKING:
    from tests.faults.encoder import EncoderFaults

STATE_INTERVAL_S = 0.1
EMBEDDED = "embedded"
"""File every worker of a folder appends to: a byte for each embedding asked for. Survives kill -9."""

COUNTERS = {
    "received": "refract_records_received_total",
    "stale": "refract_points_stale_total",
    "dropped": "refract_records_dropped_total",
    "letters": "refract_dead_letters_total",
    "retries": "refract_retries_total",
    "lag": "refract_lag_records",
}


class CountedEmbedder:
    """The configuration's engine in this process, one call at a time; what it computes is counted in a file."""

    def __init__(self, config: Config, folder: Path, faults: "EncoderFaults | None" = None) -> None:
        self._faults = faults
        self._engines = {name: load_engine(model, config.tasks_of(name)) for name, model in config.models.items()}
        self._count = os.open(folder / EMBEDDED, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._lock = Lock()

    def embed(self, model: str, batch: TokenBatch, priority: Priority) -> Embeddings:  # noqa: ARG002 - one queue
        """See pipeline.interfaces.Embedder."""
        with self._lock:
            rows = self._engines[model].embed(batch)
        os.write(self._count, b"." * (batch.num_texts * len(batch.prompts)))
        return rows if self._faults is None else self._faults.spoil(rows)


def build(
    source: ConfigTree, folder: Path, instance: int, stop: Event, faults: "EncoderFaults | None"
) -> tuple[StreamWorker, OffsetTracker, Any]:
    """Wires a worker as `actors.ingestor` does; returns it with its tracker and its metric registry."""
    context = Context(source)
    config, observer = context.config, IngestObserver(IngestMetrics(context.registry))
    store = open_store(config.store, config.pipeline)
    ports = Ports(
        CountedEmbedder(config, folder, faults),
        store,
        KafkaDeadLetters(config.source, config.pipeline),
        Retrier(stop, observer.retried),
        observer,
    )
    worker, tracker = build_member(context, store, ports, stop, str(instance))
    return worker, tracker, context.registry


def tell(path: Path, worker: StreamWorker, tracker: OffsetTracker, registry: CollectorRegistry, done: Event) -> None:
    """Replaces the state file again and again, so that the test sees what this member holds and has done."""
    process = psutil.Process()
    slowest_turn_s = 0.0
    while True:
        ended = done.wait(STATE_INTERVAL_S)
        if worker.ready:
            slowest_turn_s = max(slowest_turn_s, time.monotonic() - worker.turned_s)
        taken: list[Snapshot] = [snapshot("worker", path.name, 0.0, registry)]
        state = {
            "at": time.monotonic(),
            "ready": worker.ready,
            "held": [[partition.topic, partition.number] for partition in sorted(tracker.held())],
            "num_assigned": tracker._epoch,
            "slowest_turn_s": slowest_turn_s,
            "rss": process.memory_info().rss,
            "fds": process.num_fds(),
            **{name: int(total(taken, sample)) for name, sample in COUNTERS.items()},
        }
        beside = path.with_suffix(".tmp")
        beside.write_text(json.dumps(state))
        beside.replace(path)
        if ended:
            return


def shift_clock(path: Path) -> None:
    """Puts this process's wall clock off by the seconds in the file, whatever they become. Monotonic time stays."""
    real_s, real_ns = time.time, time.time_ns
    # gRPC counts its deadlines from here and compares them in C with the machine's clock, which is not shifted.
    grpc._channel.time = grpc._common.time = SimpleNamespace(**vars(time))
    time.time = lambda: real_s() + float(path.read_text())
    time.time_ns = lambda: real_ns() + int(float(path.read_text()) * 1e9)


def main() -> int:
    """Runs until SIGTERM (exit code 0) or until a person is needed (1, with the reason as the last line)."""
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--instance", type=int, default=0)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, help="file with the faults of the encoder, see tests.faults.encoder")
    parser.add_argument("--clock", type=Path, help="file with seconds that the wall clock is off")
    options = parser.parse_args()
    if options.clock:
        shift_clock(options.clock)
    configure_logs()
    stop, done = Event(), Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    faults = None
    if options.encoder:
        from tests.faults.encoder import EncoderFaults  # noqa: PLC0415 - loads torch

        faults = EncoderFaults(options.encoder)
        faults.install()
    worker, tracker, registry = build(ConfigTree.read(options.config), options.folder, options.instance, stop, faults)
    teller = Thread(target=tell, args=(options.state, worker, tracker, registry, done), daemon=True)
    teller.start()
    try:
        worker.run()
    except Exception as error:  # noqa: BLE001 - the test reads what it was
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    finally:
        done.set()
        teller.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
