"""The store and the embedders as the core loop sees them, when they live in other actors.

Ray's failures become the classes of `pipeline.errors` here and nowhere else.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from pipeline.errors import DiedError, EnvironmentFault, RefractError, TransientError, UnknownOutcomeError
from pipeline.filters import Condition
from pipeline.interfaces import StoredPoint, Written
from pipeline.records.batches import Embeddings, Float32, PointBatch, Priority, TokenBatch
from pipeline.tasks import Task

STORE_TIMEOUT_S = 60.0
EMBED_TIMEOUT_S = 600.0
"""A batch waits behind others; a hung model is found by the embedder's own health check, long before."""


def translate(error: BaseException, what: str) -> NoReturn:
    """Raises the pipeline's class for a failed actor call.

    An actor that died or an answer that did not come leaves the outcome unknown: the call may have run.
    """
    if isinstance(error, RayTaskError):
        cause = error.cause
        if isinstance(cause, RefractError):
            raise cause from None
        raise EnvironmentFault(f"{what} failed unexpectedly: {type(cause).__name__}") from error
    if isinstance(error, RefractError):
        raise error
    if isinstance(error, (BackPressureError, DeploymentUnavailableError)):
        raise TransientError(f"{what} has no room or no replica") from error
    if isinstance(error, RayActorError) and not isinstance(error, ActorUnavailableError):
        raise DiedError(f"{what} died while it worked on a call") from error
    if isinstance(error, (TimeoutError, GetTimeoutError, RayActorError, RayError, RayServeException)):
        raise UnknownOutcomeError(f"{what} did not answer: {type(error).__name__}") from error
    raise error


def call(what: str, timeout_s: float, remote: Callable[[], Any]) -> Any:
    """Returns the answer of a Serve handle call made from a plain thread, its failures translated."""
    try:
        return remote().result(timeout_s=timeout_s)
    except Exception as error:  # noqa: BLE001 - `translate` raises everything again, under the right name
        translate(error, what)


async def call_async(what: str, remote: Callable[[], Any]) -> Any:
    """The same from an event loop."""
    try:
        return await remote()
    except Exception as error:  # noqa: BLE001 - as above
        translate(error, what)


class RemoteStore:
    """`pipeline.interfaces.PointStore` over the actor that owns an embedded store's directory."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    def open(self, tasks: Iterable[Task]) -> None:
        """See PointStore."""
        call("store", STORE_TIMEOUT_S, lambda: self._handle.open.remote(list(tasks)))

    def upsert(self, batch: PointBatch) -> Written:
        """See PointStore."""
        written: Written = call("store", STORE_TIMEOUT_S, lambda: self._handle.upsert.remote(batch))
        return written

    def flush(self) -> None:
        """See PointStore."""
        call("store", STORE_TIMEOUT_S, self._handle.flush.remote)

    def search(self, task: Task, vector: Float32, limit: int, conditions: Sequence[Condition]) -> list[StoredPoint]:
        """See PointStore."""
        found: list[StoredPoint] = call(
            "store", STORE_TIMEOUT_S, lambda: self._handle.search.remote(task, vector, limit, list(conditions))
        )
        return found

    def retrieve(self, collection: str, ids: Sequence[bytes], *, with_vectors: bool = False) -> list[StoredPoint]:
        """See PointStore."""
        found: list[StoredPoint] = call(
            "store",
            STORE_TIMEOUT_S,
            lambda: self._handle.retrieve.remote(collection, list(ids), with_vectors=with_vectors),
        )
        return found

    def scroll(
        self, collection: str, after: bytes | None, limit: int, *, with_vectors: bool = False
    ) -> list[StoredPoint]:
        """See PointStore."""
        found: list[StoredPoint] = call(
            "store",
            STORE_TIMEOUT_S,
            lambda: self._handle.scroll.remote(collection, after, limit, with_vectors=with_vectors),
        )
        return found

    def count(self, collection: str) -> int:
        """See PointStore."""
        return int(call("store", STORE_TIMEOUT_S, lambda: self._handle.count.remote(collection)))

    def close(self) -> None:
        """The owner closes itself; this end holds nothing."""


class RemoteEmbedder:
    """`pipeline.interfaces.Embedder` over one Serve deployment per model."""

    def __init__(self, handles: Mapping[str, DeploymentHandle[Any]]) -> None:
        self._handles = handles

    def embed(self, model: str, batch: TokenBatch, priority: Priority) -> Embeddings:
        """See Embedder."""
        rows: Embeddings = call(
            f"embedder {model}", EMBED_TIMEOUT_S, lambda: self._handles[model].embed.remote(batch, priority)
        )
        return rows
