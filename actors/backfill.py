"""Runs a backfill on Ray: reader tasks, one embedder actor, and one owner of the store.

Plain Ray with a bounded number of fragments in flight, not Ray Data: its executor fuses and splits
blocks as it sees fit and tells nobody which input row group is durable, and that is what resuming needs.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from prometheus_client import CollectorRegistry
from ray.exceptions import RayActorError, RayError, RayTaskError

from actors.context import ConfigTree, Context
from pipeline.backfill.fragments import Fragment
from pipeline.backfill.rows import read_deliveries
from pipeline.engine.load import load_tokenizer
from pipeline.engine.local import LocalEmbedder
from pipeline.errors import EnvironmentFault, RefractError, TransientError
from pipeline.metrics import IngestMetrics, snapshot, total
from pipeline.offsets import OffsetTracker
from pipeline.records import DeadLetter, Delivery, Partition
from pipeline.refractor import Plan, Refractor
from pipeline.retry import Retrier
from pipeline.stores.open import open_store

MAX_IN_FLIGHT = 3
"""Fragments read or embedded at once: one embedded, the next ones read meanwhile."""

MAX_ATTEMPTS = 3
BATCH_ROWS = 512
LOCK_WAIT_S = 10.0
"""A killed run lets go of an embedded store within seconds."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one fragment."""

    num_rows: int
    num_stale: int
    rejects: Sequence[tuple[int, str, str, str]]
    """(row, reason, task, detail)"""


class _Rejects:
    """Implements `pipeline.interfaces.DeadLetters` by keeping where and why."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, str, str, str]] = []

    def send(self, letters: Sequence[DeadLetter]) -> None:
        """See DeadLetters."""
        self.rows += [(letter.position.offset, str(letter.reason), letter.task, letter.detail) for letter in letters]

    def close(self) -> None:
        """Nothing is open."""


@ray.remote(num_cpus=0)
def _read(source: ConfigTree, fragment: Fragment, topic: str) -> list[Delivery]:
    return read_deliveries(fragment, topic, source.load())


class _Worker:
    """Embeds and writes; holds the engines and, as its only process, the store."""

    def __init__(self, source: ConfigTree) -> None:
        self._context = Context(source)
        self._store: Any = None

    def open(self, names: Sequence[str]) -> None:
        """Opens the store and the tasks' collections. Raises EnvironmentFault."""
        if self._store is not None:
            return
        config = self._context.config
        deadline_s = time.monotonic() + LOCK_WAIT_S
        while self._store is None:
            try:
                self._store = open_store(config.store, config.pipeline, self._context.filterable)
            except EnvironmentFault:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.5)
        self._store.open([self._context.tasks[name] for name in names])
        self._embedder = LocalEmbedder(config)
        self._tokenizers = {
            name: load_tokenizer(model, {task: s for task, s in config.tasks.items() if s.model == name})
            for name, model in config.models.items()
        }

    def process(self, deliveries: list[Delivery], topic: str, names: Sequence[str], opened: Sequence[str]) -> Outcome:
        """Makes a fragment durable in the named tasks' collections. Raises RefractError."""
        self.open(opened)
        registry = CollectorRegistry()
        tracker, rejects, metrics = OffsetTracker(), _Rejects(), IngestMetrics(registry)
        tracker.assign(Partition(topic, 0))
        refractor = Refractor(
            Plan(
                self._context.config.pipeline,
                {topic: [self._context.tasks[name] for name in names]},
                self._tokenizers,
            ),
            embedder=self._embedder,
            store=self._store,
            dead_letters=rejects,
            tracker=tracker,
            retry=Retrier(threading.Event(), lambda _component: None),
            metrics=metrics,
        )
        for delivery in deliveries:
            delivery.receipt.epoch = 1  # the tracker's first assignment
        for start in range(0, len(deliveries), BATCH_ROWS):
            refractor.process(deliveries[start : start + BATCH_ROWS])
        self._store.flush()
        num_stale = total([snapshot("backfill", "0", 0.0, registry)], "refract_points_stale_total")
        return Outcome(len(deliveries), int(num_stale), rejects.rows)

    def close(self) -> None:
        """Closes the store."""
        if self._store is not None:
            self._store.close()


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """Joins a cluster or starts one here. Raises TransientError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(
            address, include_dashboard=None if address else False, logging_level=logging.ERROR, log_to_driver=False
        )
    except (ConnectionError, RuntimeError, RayError) as error:
        raise TransientError(f"Ray cannot be reached or started ({type(error).__name__})") from None
    try:
        yield
    finally:
        ray.shutdown()


def run_fragments(
    source: ConfigTree,
    topic: str,
    work: Mapping[Fragment, Sequence[str]],
    on_done: Callable[[Fragment, Outcome], None],
    on_failed: Callable[[Fragment, str], None],
) -> None:
    """Carries every fragment through, calling back in this thread. Raises EnvironmentFault for the store."""
    opened = sorted({name for names in work.values() for name in names})
    worker: Any = ray.remote(num_cpus=0, max_restarts=-1)(_Worker).remote(source)
    _unwrap(lambda: ray.get(worker.open.remote(opened)))
    waiting = [(fragment, 1) for fragment in work][::-1]
    running: dict[Any, tuple[Fragment, int]] = {}
    while waiting or running:
        while waiting and len(running) < MAX_IN_FLIGHT:
            fragment, attempt = waiting.pop()
            rows = _read.remote(source, fragment, topic)
            running[worker.process.remote(rows, topic, work[fragment], opened)] = (fragment, attempt)
        (ref,), _ = ray.wait(list(running))
        fragment, attempt = running.pop(ref)
        try:
            on_done(fragment, ray.get(ref))
        except RayTaskError as error:
            cause = error.cause if isinstance(error.cause, RefractError) else error
            on_failed(fragment, str(cause).splitlines()[0] if str(cause) else type(cause).__name__)
        except RayActorError as error:
            if attempt == MAX_ATTEMPTS:
                on_failed(fragment, f"its worker died {MAX_ATTEMPTS} times ({type(error).__name__})")
            else:
                waiting.append((fragment, attempt + 1))
    ray.get(worker.close.remote())


def _unwrap(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except RayTaskError as error:
        if isinstance(error.cause, RefractError):
            raise error.cause from None
        raise
