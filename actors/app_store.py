"""The embedded store of the running app, for who joins its cluster."""

from collections.abc import Iterator
from contextlib import contextmanager

from ray import serve
from ray.serve.exceptions import RayServeException

from actors.app import APP_NAME
from actors.callers import DeploymentCaller
from actors.cluster import cluster
from actors.remote import RemoteStore
from pipeline.config.pipeline import Config
from pipeline.errors import ConfigError


@contextmanager
def app_store(config: Config, address: str | None = None) -> Iterator[RemoteStore]:
    """Joins the cluster at the address, else that of `ray.address`, else the one on this machine; leaves it afterwards.

    Raises:
        TransientError: the cluster cannot be reached.
        ConfigError: no app with an embedded store runs on it.
    """
    with cluster(address or config.ray.address or "auto", config.ray.namespace, {}):
        try:
            handle = serve.get_deployment_handle("StoreOwner", APP_NAME)
        except RayServeException:
            raise ConfigError(
                "no app of Refract with an embedded store runs on this cluster; name its cluster with --address"
            ) from None
        yield RemoteStore(DeploymentCaller(handle))
