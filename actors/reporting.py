"""Sends a replica's metrics to the monitor, about once a second, from a thread of its own."""

import time
from collections.abc import Callable
from threading import Event, Thread
from typing import Any

from prometheus_client import CollectorRegistry
from ray import serve
from ray.serve.handle import DeploymentHandle

from pipeline.metrics import ProcessMetrics, ReplicaReport, snapshot

REPORT_INTERVAL_S = 1.0


class Reporter:
    """Reports until closed. Nothing stops because the monitor is away."""

    def __init__(
        self,
        process: str,
        monitor: DeploymentHandle[Any],
        registry: CollectorRegistry,
        state: Callable[[], tuple[bool, str]],
        on_drain: Callable[[], None] = lambda: None,
    ) -> None:
        self._process = process
        self._replica = serve.get_replica_context().replica_tag
        self._monitor = monitor
        self._registry = registry
        self._metrics = ProcessMetrics(registry)
        self._state = state
        self._on_drain = on_drain
        self._started_s = time.time()
        self._closed = Event()
        self._thread = Thread(target=self._run, name="report", daemon=True)
        self._thread.start()

    def send(self, *, drained: bool = False) -> None:
        """Reports now. Blocks for a few milliseconds."""
        ready, detail = self._state()
        self._metrics.ready.set(ready)
        taken = snapshot(self._process, self._replica, self._started_s, self._registry)
        try:
            draining = self._monitor.report.remote(ReplicaReport(taken, ready, detail, drained)).result(timeout_s=5)
        except Exception:  # noqa: BLE001 - observability must not stop what it observes
            return
        if draining:
            self._on_drain()

    def close(self) -> None:
        """Stops reporting."""
        self._closed.set()

    def _run(self) -> None:
        while True:
            self.send()
            if self._closed.wait(REPORT_INTERVAL_S):
                return
