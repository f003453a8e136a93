"""The replica that answers HTTP: Serve's ingress in front of `pipeline.api`."""

from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from actors.callers import DeploymentCaller
from actors.process import start_context
from actors.remote import RemoteEmbedder, RemoteStore
from actors.reporting import Reporter
from pipeline.api.http_app import build_api
from pipeline.api.service import ApiService
from pipeline.config.load import ConfigTree
from pipeline.interfaces import PointReader
from pipeline.metrics import ReplicaReport


@serve.deployment
@serve.ingress()
class Api:
    """One Serve replica of the HTTP API."""

    def __init__(
        self,
        source: ConfigTree,
        embedders: dict[str, DeploymentHandle[Any]],
        store: DeploymentHandle[Any] | None,
        monitor: DeploymentHandle[Any],
        ingestor: DeploymentHandle[Any],  # noqa: ARG002 - binding it makes Serve deploy it
    ) -> None:
        context = start_context(source)
        remote: PointReader = RemoteStore(DeploymentCaller(store)) if store is not None else context.open_store()

        async def reports() -> list[ReplicaReport]:
            latest: list[ReplicaReport] = await monitor.reports.remote()
            return latest

        self._service = ApiService(context, RemoteEmbedder(embedders), remote, reports)
        self._reporter = Reporter("api", monitor, context.registry, lambda: (True, ""))

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Returns the app of this replica's configuration."""
        return build_api(self._service)
