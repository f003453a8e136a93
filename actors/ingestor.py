"""One member of the consumer group: the core loop in a thread, its health seen by Serve."""

import time
from functools import partial
from threading import Event, Thread
from typing import Any

import structlog
from ray import serve
from ray.serve.handle import DeploymentHandle

from actors.process import start_context
from actors.remote import RemoteEmbedder, RemoteStore
from actors.reporting import Reporter
from pipeline.config.load import ConfigTree
from pipeline.context import Context
from pipeline.interfaces import Source, Store
from pipeline.live.offsets import OffsetTracker
from pipeline.live.refractor import Plan, Refractor
from pipeline.live.retry import Retrier
from pipeline.live.witness import confirm
from pipeline.live.worker import StreamWorker
from pipeline.metrics import IngestMetrics
from pipeline.sources.group.kafka_source import KafkaSource
from pipeline.sources.letters.dead_letters import KafkaDeadLetters

STALL_S = 120.0
"""A loop that has not turned for so long hangs; polls take a fraction of a second, repeated calls report in between."""

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
        self._metrics = IngestMetrics(context.registry)
        self._store: Store = RemoteStore(store) if store is not None else context.open_store()
        self._worker = self._build(context, RemoteEmbedder(embedders))
        self._thread = Thread(target=self._run, name="ingest", daemon=True)
        self._thread.start()
        self._reporter = Reporter("ingestor", monitor, context.registry, self._state, self._stop.set)

    def check_health(self) -> None:
        """Raises when the loop has ended with an error or no longer turns; Serve then replaces the replica."""
        if self._error is not None:
            raise RuntimeError(f"the ingestor stopped: {self._error}") from self._error
        stalled_s = time.monotonic() - self._worker.turned_s
        if self._thread.is_alive() and self._worker.ready and stalled_s > STALL_S:
            raise RuntimeError(f"the ingestor's loop has not turned for {stalled_s:.0f} s")

    def __del__(self) -> None:
        # Serve calls this before the process ends: the place to finish, commit and leave the group.
        self._worker.stop()
        self._thread.join(DRAIN_S)

    def _build(self, context: Context, embedder: RemoteEmbedder) -> StreamWorker:
        config = context.config
        tracker = OffsetTracker()
        used = {name: [context.tasks[task] for task in topic.tasks] for name, topic in config.source.topics.items()}
        tasks = list({task.name: task for tasks in used.values() for task in tasks}.values())
        tokenizers = context.tokenizers({task.config.model for task in tasks})
        self._dead_letters = KafkaDeadLetters(config.source, config.pipeline)
        refractor = Refractor(
            Plan(config.pipeline, used, tokenizers),
            embedder=embedder,
            store=self._store,
            dead_letters=self._dead_letters,
            tracker=tracker,
            retry=Retrier(self._stop, lambda component: self._metrics.retries.labels(component).inc()),
            metrics=self._metrics,
        )
        instance = serve.get_replica_context().rank.rank
        held = partial(confirm, self._store, used, config.source.group_id)

        def open_source() -> Source:
            return KafkaSource(config.source, config.limits, tracker, instance=instance, confirm=held)

        return StreamWorker(
            source=open_source,
            tracker=tracker,
            refractor=refractor,
            store=self._store,
            confirm=held,
            tasks=tasks,
            limits=config.limits,
            commit_interval_s=config.source.commit_interval_s,
            metrics=self._metrics,
            stop=self._stop,
        )

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
