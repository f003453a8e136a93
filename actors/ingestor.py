"""One member of the consumer group: the core loop in a thread, its health seen by Serve."""

import os
from threading import Event, Thread
from typing import Any

import structlog
from ray import serve
from ray.serve.handle import DeploymentHandle

from actors.callers import DeploymentCaller
from actors.process import start_context
from actors.remote import RemoteEmbedder, RemoteStore
from actors.reporting import Reporter
from pipeline.config.load import ConfigTree
from pipeline.context import Context
from pipeline.interfaces import PointStore
from pipeline.live.observer import IngestObserver
from pipeline.live.retry import Retrier
from pipeline.live.routes import Ports
from pipeline.live.worker import StreamWorker
from pipeline.metrics import IngestMetrics
from pipeline.sources.group.member import member_name
from pipeline.sources.letters.dead_letters import KafkaDeadLetters
from pipeline.usecases.ingest import build_member

STALL_S = 120.0
"""A loop that has not turned for so long hangs; polls take a fraction of a second, repeated calls report in between."""

CLUSTER_NAME = "RAY_CLUSTER_NAME"
"""The variable in which KubeRay tells each pod the name of its Ray cluster."""

DRAIN_S = 25.0

log = structlog.get_logger(__name__)


class Ingestor:
    """A Serve replica that runs a StreamWorker. Serve restarts it when its loop ends or stalls."""

    def __init__(
        self,
        source: ConfigTree,
        embedders: dict[str, DeploymentHandle[Any]],
        store: DeploymentHandle[Any] | None,
        monitor: DeploymentHandle[Any],
    ) -> None:
        context = start_context(source)
        self._error: BaseException | None = None
        self._stop = Event()
        self._store: PointStore = RemoteStore(DeploymentCaller(store)) if store is not None else context.open_store()
        self._worker = self._build(context, RemoteEmbedder(embedders))
        self._thread = Thread(target=self._run, name="ingest", daemon=True)
        self._thread.start()
        self._reporter = Reporter("ingestor", monitor, context.registry, self._state, self._stop.set)

    def check_health(self) -> None:
        """Raises when the loop has ended with an error or no longer turns; Serve then replaces the replica."""
        if self._error is not None:
            raise RuntimeError(f"the ingestor stopped: {self._error}") from self._error
        stalled_s = self._worker.stalled_s()
        if self._thread.is_alive() and stalled_s > STALL_S:
            raise RuntimeError(f"the ingestor's loop has not turned for {stalled_s:.0f} s")

    def __del__(self) -> None:
        # Serve calls this before the process ends: the place to finish, commit and leave the group.
        self._worker.stop()
        self._thread.join(DRAIN_S)

    def _build(self, context: Context, embedder: RemoteEmbedder) -> StreamWorker:
        config = context.config
        observer = IngestObserver(IngestMetrics(context.registry))
        self._dead_letters = KafkaDeadLetters(config.source, config.pipeline)
        ports = Ports(embedder, self._store, self._dead_letters, Retrier(self._stop, observer.retried), observer)
        replica = serve.get_replica_context()
        rank = getattr(replica.rank, "rank", None)
        if rank is None and config.source.group_instance_id:
            log.warning("Serve gave this ingestor no rank: its group_instance_id changes when it is restarted.")
        name = member_name(rank, replica.replica_tag, os.environ.get(CLUSTER_NAME))
        worker, _ = build_member(context, self._store, ports, self._stop, name)
        return worker

    def _run(self) -> None:
        try:
            self._worker.run()
        except BaseException as error:  # noqa: BLE001 - shown by check_health, whatever it is
            self._error = error
        finally:
            self._dead_letters.close()
            self._store.close()
        self._reporter.send(drained=self._error is None)

    def _state(self) -> tuple[bool, str]:
        if self._error is not None:
            return False, f"an ingestor stopped: {self._error}"
        return (
            self._worker.ready,
            "" if self._worker.ready else "an ingestor waits for its store, its brokers or its group",
        )
