"""One queue per priority before an engine: merges what waits, lets queries overtake between forward batches."""

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from threading import Condition, Thread

import numpy as np

from pipeline.engine.duplicates import DeduplicatedJob, DeduplicatingEngine
from pipeline.engine.engine import MERGED_ITEMS, Engine, Job
from pipeline.errors import RefractError
from pipeline.metrics import EmbedMetrics
from pipeline.records.batches import Embeddings, Priority, TokenBatch

WINDOW_S = 2.0

BRIEF_S = 0.02
"""What a forward batch of a backfill should take where it shares an embedder: a live record waits for one at most."""

_BRIEF_PART = 16
"""It may always hold this part of the engine's budget: what is smaller hardly takes less."""

Waiting = tuple[TokenBatch, "Future[Embeddings]"]


class EmbedScheduler:
    """Runs an engine in a thread of its own. `submit` may be called from any thread.

    Batches of one priority that wait together are computed together, packed by length across all
    their tasks. Between two forward batches a higher priority is served first, so a query waits for
    one forward batch, not for a backlog.
    """

    def __init__(
        self, model: str, engine: Engine, metrics: EmbedMetrics, *, cache_rows: int = 0, shared: bool = False
    ) -> None:
        """Starts the thread.

        Args:
            model: The model's name in the configuration, a label of the metrics.
            engine: What computes; called from the scheduler's thread only.
            metrics: Where to count.
            cache_rows: Rows kept so that equal items are computed once; 0: every item is computed.
            shared: Whether live traffic may come: forward batches of a backfill are brief then, see `BRIEF_S`.
        """
        self._model = model
        self._engine = DeduplicatingEngine(engine, cache_rows) if cache_rows else engine
        self._metrics = metrics
        self._changed = Condition()
        self._waiting: dict[Priority, deque[Waiting]] = {priority: deque() for priority in Priority}
        self._closed = False
        self._window = _Window(metrics, model)
        self._brief = _Brief() if shared else None
        self.busy_since_s: float | None = None
        """Monotonic time at which the current forward batch began; None while nothing is computed."""
        self._thread = Thread(target=self._run, name=f"engine-{model}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the engine's thread runs."""
        return self._thread.is_alive()

    def submit(self, batch: TokenBatch, priority: Priority) -> "Future[Embeddings]":
        """Returns a future of the batch's embeddings; it fails with the engine's errors for this batch alone."""
        future: Future[Embeddings] = Future()
        with self._changed:
            self._waiting[priority].append((batch, future))
            self._observe()
            self._changed.notify()
        return future

    def close(self) -> None:
        """Ends the thread after the current job; what waits is cancelled."""
        with self._changed:
            self._closed = True
            for waiting in self._waiting.values():
                for _, future in waiting:
                    future.cancel()
                waiting.clear()
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not any(self._waiting.values()):
                    self._changed.wait(WINDOW_S)
                    self._window.close_if_due()
                if self._closed:
                    return
            self._serve(below=None)

    def _serve(self, below: Priority | None) -> bool:
        """Computes one job of the highest priority that waits, if it is higher than `below`; else returns False."""
        taken, priority = self._take(below)
        if not taken:
            return False
        try:
            brief = self._brief if priority is Priority.BACKFILL else None
            max_tokens = None if brief is None else brief.max_tokens(self._engine.max_batch_tokens)
            job = self._engine.begin([batch for batch, _ in taken], max_tokens)
            while not job.done:
                self.busy_since_s = began_s = time.monotonic()
                num_tokens = job.step()
                self.busy_since_s = None
                busy_s = time.monotonic() - began_s
                self._window.add(busy_s=busy_s)
                if brief is not None:
                    brief.add(num_tokens, busy_s)
                self._metrics.batches.labels(self._model).inc()
                while self._serve(below=priority):
                    pass
            results = self._finished([batch for batch, _ in taken], job)
        except BaseException as error:  # noqa: BLE001 - every waiting caller must hear of it
            self.busy_since_s = None
            for _, future in taken:
                future.set_exception(error)
            return True
        self._count([batch for batch, _ in taken], priority, job)
        for (_, future), result in zip(taken, results, strict=True):
            if isinstance(result, RefractError):
                future.set_exception(result)
            else:
                self._metrics.invalid.labels(self._model).inc(sum(int(np.isnan(rows[:, 0]).sum()) for rows in result))
                future.set_result(result)
        return True

    def _take(self, below: Priority | None) -> tuple[list[Waiting], Priority]:
        with self._changed:
            for priority in Priority:
                if priority is below:
                    break
                waiting, num_items = self._waiting[priority], 0
                taken: list[Waiting] = []
                while waiting and (not taken or num_items + self._num_items(waiting[0][0]) <= MERGED_ITEMS):
                    entry = waiting.popleft()
                    if entry[1].set_running_or_notify_cancel():
                        taken.append(entry)
                        num_items += self._num_items(entry[0])
                if taken:
                    self._observe()
                    return taken, priority
        return [], Priority.BACKFILL

    def _observe(self) -> None:
        for priority, waiting in self._waiting.items():
            self._metrics.queued.labels(self._model, priority).set(len(waiting))

    def _num_items(self, batch: TokenBatch) -> int:
        """Texts that go through the model for a batch, if none of them is cached."""
        return len({self._engine.pass_of(prompt) for prompt in batch.prompts}) * batch.num_texts

    def _finished(self, batches: Sequence[TokenBatch], job: Job) -> list[Embeddings | RefractError]:
        return [
            result if isinstance(result, RefractError) else self._engine.finish(batch, result)
            for batch, result in zip(batches, job.results(), strict=True)
        ]

    def _count(self, batches: Sequence[TokenBatch], priority: Priority, job: Job) -> None:
        num_embeddings = sum(len(batch.prompts) * batch.num_texts for batch in batches)
        num_tokens = sum(batch.num_tokens * len(batch.prompts) for batch in batches)
        num_shared = job.num_shared if isinstance(job, DeduplicatedJob) else 0
        self._metrics.items.labels(self._model, priority).inc(num_embeddings)
        self._metrics.forward_items.labels(self._model).inc(job.num_forward_items)
        self._metrics.tokens.labels(self._model).inc(num_tokens)
        self._metrics.cache_hits.labels(self._model).inc(num_shared)
        self._window.add(num_tokens=num_tokens, num_items=job.num_forward_items + num_shared, num_shared=num_shared)


class _Brief:
    """How many tokens make a forward batch of about `BRIEF_S`, by what the last ones took. One thread."""

    def __init__(self) -> None:
        self._tokens = self._seconds = 0.0

    def add(self, num_tokens: int, seconds: float) -> None:
        self._tokens = 0.9 * self._tokens + num_tokens
        self._seconds = 0.9 * self._seconds + seconds

    def max_tokens(self, budget: int) -> int:
        fitting = BRIEF_S * self._tokens / self._seconds if self._seconds else 0.0
        return min(max(int(fitting), budget // _BRIEF_PART, 1), budget)


class _Window:
    """Occupancy, token rate and the cache's hit rate over the last couple of seconds. One thread."""

    def __init__(self, metrics: EmbedMetrics, model: str) -> None:
        self._metrics = metrics
        self._model = model
        self._began_s = time.monotonic()
        self._busy_s = 0.0
        self._num_tokens = self._num_items = self._num_shared = 0

    def add(self, *, busy_s: float = 0.0, num_tokens: int = 0, num_items: int = 0, num_shared: int = 0) -> None:
        self._busy_s += busy_s
        self._num_tokens += num_tokens
        self._num_items += num_items
        self._num_shared += num_shared
        self._metrics.busy.labels(self._model).inc(busy_s)
        self.close_if_due()

    def close_if_due(self) -> None:
        elapsed_s = time.monotonic() - self._began_s
        if elapsed_s >= WINDOW_S:
            self._metrics.occupancy.labels(self._model).set(min(self._busy_s / elapsed_s, 1.0))
            self._metrics.tokens_per_s.labels(self._model).set(self._num_tokens / elapsed_s)
            hit_rate = self._num_shared / self._num_items if self._num_items else 0.0
            self._metrics.cache_hit_rate.labels(self._model).set(hit_rate)
            self._began_s, self._busy_s = time.monotonic(), 0.0
            self._num_tokens = self._num_items = self._num_shared = 0
