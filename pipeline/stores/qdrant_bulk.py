"""Postpones building a collection's vector index while it is filled, and resumes it afterwards."""

from typing import Any

from qdrant_client import grpc as qdrant

from pipeline.errors import EnvironmentFault
from pipeline.stores.qdrant_rpc import QdrantConnection
from pipeline.stores.wire import read_payload

DEFERRED = "hnsw_m"
"""Name in the collection's metadata of the links per vector to restore: it survives a crash of this process."""


class DeferredIndex:
    """The HNSW graph of collections: with no links (m = 0) nothing is built, and segments stay small in memory.

    Qdrant's own advice for bulk uploads; `indexing_threshold: 0` would keep everything unindexed and in RAM.
    """

    def __init__(self, connection: QdrantConnection) -> None:
        self._connection = connection

    def defer(self, name: str) -> bool:
        """Stops building in a collection without points; whether it is stopped now, by this call or an earlier one."""
        info = self._info(name)
        if DEFERRED in read_payload(info.config.metadata):
            return True
        if info.points_count or not info.config.hnsw_config.m:
            return False
        self._update(name, 0, qdrant.Value(integer_value=info.config.hnsw_config.m))
        return True

    def restore(self, name: str) -> bool:
        """Resumes building where it was put off; whether it was."""
        links = read_payload(self._info(name).config.metadata).get(DEFERRED)
        if links is None:
            return False
        self._update(name, int(links), qdrant.Value(null_value=qdrant.NullValue.NULL_VALUE))
        return True

    def is_built(self, name: str) -> bool:
        """Whether the optimizer has nothing left to do. Raises EnvironmentFault when it failed.

        Grey: the optimizer waits for the next write, as after a restart, so waiting for it would not help.
        """
        info = self._info(name)
        if info.status == qdrant.CollectionStatus.Red:
            raise EnvironmentFault(f"collection {name!r}: its optimizer failed ({info.optimizer_status.error[:200]})")
        return bool(info.status in {qdrant.CollectionStatus.Green, qdrant.CollectionStatus.Grey})

    def _info(self, name: str) -> Any:
        request = qdrant.GetCollectionInfoRequest(collection_name=name)
        doing = f"looking at the index of collection {name!r}"
        return self._connection.call(self._connection.collections.Get, request, doing).result

    def _update(self, name: str, links: int, note: qdrant.Value) -> None:
        request = qdrant.UpdateCollection(
            collection_name=name, hnsw_config=qdrant.HnswConfigDiff(m=links), metadata={DEFERRED: note}
        )
        self._connection.call(
            self._connection.collections.Update, request, f"changing the index of collection {name!r}"
        )
