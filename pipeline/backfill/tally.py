"""The embedder, the store and the rejects of one fragment, which count what passes through them."""

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from pipeline.backfill.fragments import Fragment
from pipeline.backfill.outcome import Counts, Reject
from pipeline.backfill.rows import FragmentFault
from pipeline.interfaces import Embedder, PointWriter, Written
from pipeline.records.batches import Embeddings, PointBatch, Priority, TokenBatch
from pipeline.records.record import DeadLetter

MAX_REJECTS = 100_000
"""Of one fragment. More of them mean a wrong configuration, not bad rows; and they are held in memory."""


class Tally:
    """Implements `Embedder`, `PointWriter` and `DeadLetters` of `pipeline.interfaces` for one fragment. Thread-safe."""

    def __init__(self, fragment: Fragment, num_tasks: int, embedder: Embedder, store: PointWriter) -> None:
        self.rejects: list[Reject] = []
        self._fragment = fragment
        self._num_tasks = num_tasks
        self._embedder = embedder
        self._store = store
        self._lock = threading.Lock()
        self._counts = Counts()

    def embed(self, model: str, batch: TokenBatch, priority: Priority) -> Embeddings:
        """See Embedder."""
        rows = self._embedder.embed(model, batch, priority)
        self._add(
            Counts(embedded=batch.num_texts * len(batch.prompts), tokens=batch.num_tokens * len(batch.prompts)),
        )
        return rows

    def upsert(self, batch: PointBatch) -> Written:
        """See PointWriter."""
        written = self._store.upsert(batch)
        deleted = int(batch.deleted.sum())
        self._add(
            Counts(
                written=(len(batch) - deleted) * self._num_tasks,
                deleted=deleted * self._num_tasks,
                stale=sum(written.stale.values()),
            )
        )
        return written

    def flush(self) -> None:
        """See PointWriter."""
        self._store.flush()

    def send(self, letters: Sequence[DeadLetter]) -> None:
        """See DeadLetters. Keeps where and why; raises FragmentFault when they are too many."""
        rows = [Reject(letter.position.offset, str(letter.reason), letter.task, letter.detail) for letter in letters]
        self._add(Counts(rejected=Counter(row.reason for row in rows)))
        self.rejects += rows
        if len(self.rejects) > MAX_REJECTS:
            last = self.rejects[-1]
            raise FragmentFault(
                f"{self._fragment.name}: more than {MAX_REJECTS:,} rows were refused, the last with {last.reason} "
                f"({last.detail}): is it this topic's input?"
            )

    def close(self) -> None:
        """Nothing is open."""

    def read(self, num_rows: int) -> None:
        """Counts rows that were read."""
        self._add(Counts(rows=num_rows))

    def finish(self, num_rows: int) -> None:
        """Counts rows that are written, stale or rejected."""
        self._add(Counts(finished=num_rows))

    def retry(self, _component: str) -> None:
        """Counts a repeated call."""
        self._add(Counts(retries=1))

    def counts(self) -> Counts:
        """Returns a copy of the counts.

        The store never sees a row that another of its batch supersedes: what was to be written and was not is stale.
        """
        with self._lock:
            counts = replace(self._counts, rejected=self._counts.rejected.copy())
        counts.points = max(counts.finished - counts.num_rejected, 0) * self._num_tasks
        counts.stale += max(counts.points - counts.written - counts.deleted, 0)
        return counts

    def _add(self, counts: Counts) -> None:
        with self._lock:
            self._counts.add(counts)
