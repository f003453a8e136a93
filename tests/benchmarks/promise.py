"""Cost of the promise: records per second through the worker with and without the version guard and the watermark.

Null engine, two tasks, Edge store, one process, no broker: nothing around them could be smaller, so the
ratio is the lowest there is. Measured for records that are all new, and where half of them update a
stored point. Guard and watermark are swapped off here, by classes of the benchmark; production code has
no switch. Runs alternate, so that a machine that slows down slows both.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Lock
from unittest.mock import patch

from prometheus_client import CollectorRegistry

from pipeline.binding import bind_task
from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.config.pipeline import LimitsConfig
from pipeline.config.source import TopicConfig
from pipeline.config.store import EdgeStoreConfig
from pipeline.engine.null import NullEngine, NullTokenizer, null_identity
from pipeline.live.durability import Durability
from pipeline.live.observer import IngestObserver
from pipeline.live.offsets import OffsetTracker, Watermark, Watermarks
from pipeline.live.refractor import Refractor
from pipeline.live.retry import Retrier
from pipeline.live.routes import Ports, Routes
from pipeline.live.worker import Loop, StreamWorker
from pipeline.metrics import IngestMetrics
from pipeline.records.batches import Embeddings, Priority, TokenBatch
from pipeline.records.decode import TopicDecoder
from pipeline.records.record import Delivery, Partition, PointIds, Position, Receipt, Witness
from pipeline.records.strict_json import parse_object
from pipeline.stores.edge import EdgeStore
from pipeline.stores.edge_shard import EdgeShard
from tests.benchmarks import _harness as harness
from tests.fakes import FakeDeadLetters

RECORDS = 20_000
POLLED = 500
TOPIC = "tickets"
MODEL = ModelConfig(model="null:384")
TASK_CONFIGS = {name: TaskConfig(model="null", instruction=instruction) for name, instruction in harness.TASKS.items()}
LIMITS = LimitsConfig()


class BlindTracker(OffsetTracker):
    """Commits what was delivered, finished or not."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[Partition, int] = {}
        self._receipt = Receipt(Partition(TOPIC, 0), 0, 1, 0.0)

    def add(self, partition: Partition, offset: int) -> Receipt:
        self._last[partition] = offset + 1
        return self._receipt

    def finish(self, receipts: Iterable[Receipt], witnesses: Mapping[Partition, Witness] | None = None) -> None:
        pass

    def watermarks(self) -> Watermarks:
        return Watermarks(dict(self._last), (), ())

    def durable(self) -> dict[Partition, Watermark]:
        return {partition: Watermark(offset) for partition, offset in self._last.items()}


class ListSource:
    """Decodes and hands out ready-made messages; ends the run when all of them are released."""

    def __init__(self, tracker: OffsetTracker, values: Sequence[bytes]) -> None:
        self._tracker = tracker
        self._values = values
        self._next = 0
        self._paused = False
        self._partition = Partition(TOPIC, 0)
        topic = TopicConfig(key="id", text="{text}", version="v", version_type="integer", tasks=list(TASK_CONFIGS))
        parser = partial(parse_object, max_depth=LIMITS.max_depth)
        self._decoder = TopicDecoder(topic, LIMITS, lambda data, _: parser(data), clock_ms=lambda: 1)
        tracker.assign(self._partition, 0)
        self.worker: StreamWorker | None = None

    def poll(self, timeout_s: float) -> list[Delivery]:  # noqa: ARG002 - nothing to wait for
        assert self.worker is not None
        if self._next == len(self._values) and not self.worker._buffer.num_bytes:
            self.worker.stop()
        if self._paused or self._next == len(self._values):
            time.sleep(0.001)
            return []
        start, self._next = self._next, min(self._next + POLLED, len(self._values))
        return [self._deliver(offset) for offset in range(start, self._next)]

    def _deliver(self, offset: int) -> Delivery:
        value, position = self._values[offset], Position(TOPIC, 0, offset, 1)
        receipt = self._tracker.add(self._partition, offset)
        return Delivery(receipt, position, len(value), self._decoder.decode(None, value, position, ()))

    def set_paused(self, *, paused: bool) -> None:
        self._paused = paused

    def commit(self) -> None:
        self._tracker.committed({place: mark.offset for place, mark in self._tracker.durable().items()})

    def joined(self) -> bool:
        return True

    def lag(self) -> Mapping[Partition, int]:
        return {self._partition: len(self._values) - self._next}

    def close(self) -> None:
        pass


class LocalEmbedder:
    """The engine in this process; one call at a time, as its contract says."""

    def __init__(self) -> None:
        self._engine = NullEngine(MODEL, TASK_CONFIGS)
        self._lock = Lock()

    def embed(self, model: str, batch: TokenBatch, priority: Priority) -> Embeddings:  # noqa: ARG002 - one model
        with self._lock:
            return self._engine.embed(batch)


def rate(values: Sequence[bytes], num_keys: int, *, promised: bool) -> float:
    """Returns records per second of one run on an empty store."""
    tracker = OffsetTracker() if promised else BlindTracker()
    tasks = [bind_task(name, config, null_identity(MODEL)) for name, config in TASK_CONFIGS.items()]
    metrics, stop = IngestMetrics(CollectorRegistry()), Event()
    with TemporaryDirectory(prefix="refract-bench-") as folder, ExitStack() as swapped:
        if not promised:
            # Nothing seems to be stored, so everything is written.
            swapped.enter_context(patch.object(EdgeShard, "_versions", lambda *_: {}))
        store = EdgeStore(EdgeStoreConfig(type="edge", path=Path(folder) / "edge"), "bench")
        source = ListSource(tracker, values)
        observer = IngestObserver(metrics)
        ports = Ports(LocalEmbedder(), store, FakeDeadLetters(), Retrier(stop, lambda _: None), observer)
        routes = Routes(PointIds("bench", {TOPIC: TOPIC}), {TOPIC: tasks}, {"null": NullTokenizer(TASK_CONFIGS)})
        durability = Durability(store, tasks, tracker, lambda _: None)
        refractor = Refractor(routes, ports, tracker)
        source.worker = StreamWorker(lambda: source, refractor, durability, observer, Loop(LIMITS, 1.0, stop))
        began_s = time.perf_counter()
        source.worker.run()
        elapsed_s = time.perf_counter() - began_s
        assert store.count(tasks[0].collection) == num_keys
        store.close()
    return len(values) / elapsed_s


def main() -> None:
    """Runs both by turns and prints the table."""
    given = harness.arguments(__doc__)
    rate(messages(4_000, 2_000), 2_000, promised=True)  # warms imports and caches up
    figures: dict[str, float] = {}
    for load, num_keys in (("new_keys", RECORDS), ("half_updates", RECORDS // 2)):
        values = messages(RECORDS, num_keys)
        rates: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(given.runs):
            for promised in (True, False):
                rates[promised].append(rate(values, num_keys, promised=promised))
        with_it, without = harness.median(rates[True]), harness.median(rates[False])
        figures |= {
            f"{load}_records_per_s": with_it,
            f"{load}_records_per_s_without": without,
            f"{load}_ratio": with_it / without,
        }
    harness.report(figures, {"records": RECORDS, "tasks": len(TASK_CONFIGS), "runs": given.runs}, given.json)


def messages(count: int, num_keys: int) -> list[bytes]:
    """Returns record values; keys repeat after `num_keys`, with newer versions."""
    return [
        json.dumps({"id": f"k{number % num_keys}", "v": number, "text": f"ticket {number}"}).encode()
        for number in range(count)
    ]


if __name__ == "__main__":
    main()
