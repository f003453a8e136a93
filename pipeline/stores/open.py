"""Opens the store that a configuration names, importing only its client."""

from pipeline.config.store import EdgeStoreConfig, QdrantStoreConfig
from pipeline.errors import ConfigError
from pipeline.interfaces import Store


def open_store(config: EdgeStoreConfig | QdrantStoreConfig, pipeline: str, *, shared: bool = False) -> Store:
    """Returns the store, with no collection opened yet.

    With `shared` several processes may open an embedded store's directory, each for collections of its own; on a
    server they always may.

    Raises ConfigError when the store's client is not installed, EnvironmentFault when an embedded
    store's directory, or a collection used, belongs to another process.
    """
    if isinstance(config, QdrantStoreConfig):
        from pipeline.stores.qdrant import QdrantStore  # noqa: PLC0415 - gRPC only where a server is used

        return QdrantStore(config, pipeline)
    try:
        from pipeline.stores.edge import EdgeStore  # noqa: PLC0415 - an optional dependency
    except ModuleNotFoundError as error:
        if error.name != "qdrant_edge":
            raise
        raise ConfigError("store.type edge needs Qdrant Edge: pip install 'refract[edge]'") from error
    return EdgeStore(config, pipeline, shared=shared)
