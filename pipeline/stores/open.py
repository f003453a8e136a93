"""Opens the store that a configuration names, importing only its client."""

from collections.abc import Sequence

from pipeline.config.store import EdgeStoreConfig, QdrantStoreConfig
from pipeline.errors import ConfigError
from pipeline.interfaces import Store


def open_store(
    config: EdgeStoreConfig | QdrantStoreConfig, pipeline: str, filterable: Sequence[str], *, shared: bool = False
) -> Store:
    """Returns the store, with no collection opened yet.

    `filterable` names the stored payload fields that searches filter on: a server indexes them in the
    collections it creates, the embedded store needs no index. With `shared` several processes may open an
    embedded store's directory, each for collections of its own; on a server they always may.

    Raises ConfigError when the store's client is not installed, EnvironmentFault when an embedded
    store's directory, or a collection used, belongs to another process.
    """
    if isinstance(config, QdrantStoreConfig):
        from pipeline.stores.qdrant import QdrantStore  # noqa: PLC0415 - gRPC only where a server is used

        return QdrantStore(config, pipeline, filterable)
    try:
        from pipeline.stores.edge import EdgeStore  # noqa: PLC0415 - an optional dependency
    except ModuleNotFoundError as error:
        if error.name != "qdrant_edge":
            raise
        raise ConfigError("store.type edge needs Qdrant Edge: pip install 'refract[edge]'") from error
    return EdgeStore(config, pipeline, shared=shared)
