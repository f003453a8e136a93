"""Starts the app on a Ray cluster, watches it, and takes it down in order: what `refract run` does."""

import contextlib
import io
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.context import _get_global_client  # the only place that knows the address in use
from ray.serve.handle import DeploymentHandle

from actors.app import APP_NAME, build_app
from actors.boot import start_ray
from actors.callers import DeploymentCaller
from actors.cluster import root_cause
from actors.ingestor import DRAIN_S
from actors.remote import RemoteStore
from pipeline.api.status import readiness, status
from pipeline.binding import Task, bind_tasks
from pipeline.config.load import ConfigTree
from pipeline.config.pipeline import Config
from pipeline.engine.entry import identify
from pipeline.errors import RefractError, TransientError
from pipeline.interfaces import PointReader
from pipeline.metrics import ReplicaReport
from pipeline.stores.open import open_store
from pipeline.usecases.running import Note

GONE_S = 60.0
"""Serve replaces what dies within seconds; a cluster that is silent for so long does not come back to this process."""


class RunningApp:
    """The app of one configuration file, on a cluster of its own or on one that is there.

    Use from one thread: `start`, then `state` as often as wanted, then `stop`.
    """

    def __init__(self, path: Path, address: str | None = None) -> None:
        self._source = ConfigTree.read(path)
        self.config: Config = self._source.load()
        self._address = address or self.config.ray.address
        self._monitor: DeploymentHandle[Any] | None = None
        self._silent_since_s: float | None = None
        self._gone = False
        self.url = f"http://{self.config.api.host}:{self.config.api.port}"
        """Where the API listens."""

    def start(self, note: Note) -> None:
        """Starts Ray if need be, deploys, and returns once every replica is up.

        Raises:
            ConfigError: nothing was started; the message says what to mend.
            TransientError: the cluster cannot be reached.
            RefractError: a replica could not start, with its reason.
        """
        if not ray.is_initialized():
            start_ray(self.config, self._address, note)
        note("starting the actors and loading the models")
        try:
            application = build_app(self._source)  # before the proxy is up, which answers 404 until it has a route
            serve.start(
                proxy_location="HeadOnly",
                http_options={"host": self.config.api.host, "port": self.config.api.port},
                logging_config={"log_level": "WARNING", "enable_access_log": False},
            )
            self._note_url(note)
            serve.run(application, name=APP_NAME, route_prefix="/")
        except RefractError:
            self.stop(note)
            raise
        except (RuntimeError, RayError) as error:
            self.stop(note)
            raise RefractError(root_cause(str(error))) from None
        self._monitor = serve.get_deployment_handle("Monitor", APP_NAME)

    def ready(self) -> tuple[bool, str]:
        """Returns whether records flow and queries are answered, and what is missing if not.

        Raises TransientError while the app does not answer, RefractError once it has not for a minute. `state` too.
        """
        return readiness(self.config, self._reports())

    def state(self) -> dict[str, Any]:
        """Returns what `/v1/status` answers."""
        return status(self.config, self._reports())

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """All tasks by name, with their physical collections."""
        return bind_tasks(
            self.config,
            {name: identify(model, self.config.tasks_of(name)) for name, model in self.config.models.items()},
        )

    def store(self) -> PointReader:
        """Returns the app's store, for reading: through its owner where it is embedded."""
        if self.config.store.type == "edge":
            return RemoteStore(DeploymentCaller(serve.get_deployment_handle("StoreOwner", APP_NAME)))
        return open_store(self.config.store, self.config.pipeline)

    def stop(self, note: Note) -> None:
        """Lets the ingestors finish what is in flight, commit and leave the group; then takes everything down."""
        if not ray.is_initialized():
            return
        if self._gone:
            ray.shutdown()  # there is nobody left to ask
            return
        if self._monitor is not None:
            note("finishing what is in flight")
            self._drain()
        note("stopping the actors")
        # While Ray ends it prints its own end as a series of failures, on either stream.
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            serve.delete(APP_NAME)
            if not self._address:
                serve.shutdown()  # type: ignore[no-untyped-call]  # Ray's
            ray.shutdown()

    def _note_url(self, note: Note) -> None:
        """A cluster has one HTTP proxy for all apps: when it runs already, our host and port are ignored."""
        client = _get_global_client() if self._address else None
        url = client.root_url if client else self.url
        if url != self.url:
            note(f"Serve listens at {url} already; api.host and api.port ({self.url}) are not used")
            self.url = url

    def _reports(self) -> list[ReplicaReport]:
        if self._monitor is None:
            return []
        try:
            reports: list[ReplicaReport] = self._monitor.reports.remote().result(timeout_s=5)
        except Exception as error:  # noqa: BLE001 - Serve is restarting it, or the cluster is gone: time tells
            now_s = time.monotonic()
            self._silent_since_s = self._silent_since_s or now_s
            if now_s - self._silent_since_s > GONE_S:
                self._gone = True
                raise RefractError(
                    f"Ray has not answered for {GONE_S:.0f} s ({type(error).__name__}): its processes are gone. "
                    "Start again; what was unfinished is read again"
                ) from None
            raise TransientError(f"the app's monitor does not answer: {type(error).__name__}") from None
        self._silent_since_s = None
        return reports

    def _drain(self) -> None:
        """Waits until every ingestor has reported that it left the group, or the grace period is over."""
        try:
            self._monitor.drain.remote().result(timeout_s=5)  # type: ignore[union-attr]  # checked by the caller
            deadline_s = time.monotonic() + DRAIN_S
            while time.monotonic() < deadline_s:
                ingestors = [report for report in self._reports() if report.snapshot.process == "ingestor"]
                if all(report.drained for report in ingestors):
                    return
                time.sleep(0.2)
        except (RayError, RefractError, RuntimeError, TimeoutError):
            return  # whatever is unfinished is read again by the next run
