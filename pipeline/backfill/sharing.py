"""Embeds beside live traffic: in calls so short that a live record which comes meanwhile hardly waits."""

import threading
import time
from collections.abc import Mapping

import numpy as np

from pipeline.interfaces import Clock, Embedder
from pipeline.records import Embeddings, Priority, TokenBatch

CALL_S = 0.02
"""What one call should take. Between two forward batches an embedder serves live records first, and a small call is one
forward batch: so long they wait at most."""

SHARED_BATCH_RECORDS = 64
"""Records of one write, beside which live writes wait as well."""


class PoliteEmbedder:
    """Cuts batches into calls of about `CALL_S`, by the time the last ones took, as many at once as there are replicas.

    More would be merged into larger forward batches by the embedder's queue. Thread-safe.
    """

    def __init__(self, embedder: Embedder, replicas: Mapping[str, int], clock: Clock = time.monotonic) -> None:
        self._embedder = embedder
        self._turns = {model: threading.Semaphore(count) for model, count in replicas.items()}
        self._texts = dict.fromkeys(replicas, 1.0)
        self._clock = clock

    def embed(self, model: str, batch: TokenBatch, priority: Priority) -> Embeddings:
        """See Embedder."""
        rows: list[Embeddings] = []
        start = 0
        while start < batch.num_texts:
            with self._turns[model]:
                end = min(start + max(int(self._texts[model]), 1), batch.num_texts)
                began_s = self._clock()
                rows.append(self._embedder.embed(model, texts_of(batch, start, end), priority))
                taken_s = max(self._clock() - began_s, 1e-6)
            # Half-way to what would have been right: one long text, or a busy moment, is no reason to crawl.
            self._texts[model] += ((end - start) * min(CALL_S / taken_s, 4.0) - self._texts[model]) / 2
            start = end
        return [np.concatenate(parts) for parts in zip(*rows, strict=True)]


def texts_of(batch: TokenBatch, start: int, end: int) -> TokenBatch:
    """Returns the batch of texts start to end, with their ids alone."""
    segments = batch.segments[:, start:end]
    used = np.unique(segments)
    first, last = batch.offsets[used], batch.offsets[used + 1]
    offsets = np.zeros(len(used) + 1, np.int64)
    np.cumsum(last - first, out=offsets[1:])
    ids = np.concatenate(
        [batch.ids[begin:stop] for begin, stop in zip(first.tolist(), last.tolist(), strict=True)] or [batch.ids[:0]]
    )
    return TokenBatch(
        batch.prompts,
        ids,
        offsets,
        np.searchsorted(used, segments).astype(np.int32),
        batch.truncated[:, start:end],
        batch.whole,
    )
