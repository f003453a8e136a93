"""The embedders of a backfill: plain actors, several of a model, of which the least busy one is asked."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import ray

from actors.callers import ActorCaller
from actors.remote import ask_embedder
from pipeline.errors import TransientError
from pipeline.records.batches import Embeddings, Priority, TokenBatch

NOBODY_READY_S = 60.0
"""How long one attempt waits for an embedder; the caller repeats it. Models load in less, and waiting for that should
not be counted as a failure."""


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
            return ask_embedder(model, member.caller, batch, priority)
        except TransientError:
            member.ask()
            raise
        finally:
            with self._lock:
                member.under_way -= 1

    def _take(self, model: str) -> "_Member":
        members = self._members[model]
        ray.wait([member.answer for member in members], timeout=NOBODY_READY_S)
        with self._lock:
            ready = [member for member in members if member.ready()]
            if not ready:
                raise TransientError(f"embedder {model}: no replica is ready yet")
            chosen = min(ready, key=lambda member: member.under_way)
            chosen.under_way += 1
        return chosen


class _Member:
    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self.caller = ActorCaller(actor)
        self.under_way = 0
        self.ask()

    def ask(self) -> None:
        """Asks whether it is ready; until it answers it gets nothing."""
        self.answer = self._actor.ready.remote()
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
