"""Plain actors behind the face of a Serve handle, so that the same remote store and embedder serve both; and pools."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import ray

from actors.remote import EMBED_TIMEOUT_S, call
from pipeline.errors import TransientError
from pipeline.records import Embeddings, Priority, TokenBatch

NOBODY_READY_S = 5.0
"""How long one attempt waits for an embedder; the caller repeats it."""


class PlainHandle:
    """An actor whose methods are called like those of a Serve deployment: `handle.f.remote(x).result(timeout_s)`."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> "_Method":
        if name.startswith("_"):
            raise AttributeError(name)
        return _Method(getattr(self._actor, name))


class _Method:
    def __init__(self, method: Any) -> None:
        self._method = method

    def remote(self, *args: Any, **kwargs: Any) -> "_Answer":
        return _Answer(self._method.remote(*args, **kwargs))


class _Answer:
    def __init__(self, ref: Any) -> None:
        self._ref = ref

    def result(self, timeout_s: float | None = None) -> Any:
        return ray.get(self._ref, timeout=timeout_s)


class EmbedderPool:
    """`pipeline.interfaces.Embedder` over the actors of each model. Thread-safe.

    An actor takes part once it has said that it is ready, and again after its restart: one that waits for a free GPU,
    or for a node that the cluster's autoscaler brings, joins when it is there.
    """

    def __init__(self, actors: Mapping[str, Sequence[Any]]) -> None:
        self._members = {model: [_Member(actor) for actor in some] for model, some in actors.items()}
        self._lock = threading.Lock()

    def embed(self, model: str, batch: TokenBatch, priority: Priority) -> Embeddings:
        """See Embedder."""
        member = self._take(model)
        try:
            rows: Embeddings = call(
                f"embedder {model}", EMBED_TIMEOUT_S, lambda: PlainHandle(member.actor).embed.remote(batch, priority)
            )
        except TransientError:
            member.ask()
            raise
        finally:
            with self._lock:
                member.under_way -= 1
        return rows

    def _take(self, model: str) -> "_Member":
        members = self._members[model]
        ray.wait([member.answer for member in members], timeout=NOBODY_READY_S)
        with self._lock:
            ready = [member for member in members if member.ready()]
            if not ready:
                raise TransientError(f"embedder {model}: none is ready yet")
            chosen = min(ready, key=lambda member: member.under_way)
            chosen.under_way += 1
        return chosen


class _Member:
    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.under_way = 0
        self.ask()

    def ask(self) -> None:
        """Asks whether it is ready; until it answers it gets nothing."""
        self.answer = self.actor.ready.remote()
        self._is_ready = False

    def ready(self) -> bool:
        if not self._is_ready and ray.wait([self.answer], timeout=0)[0]:
            try:
                ray.get(self.answer)
            except ray.exceptions.RayError:
                self.ask()
            else:
                self._is_ready = True
        return self._is_ready
