"""What becomes of one fragment's rows: counted as the core loop tells it, and the rejects kept."""

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from pipeline.backfill.inputs import Fragment
from pipeline.backfill.outcome import Counts, Reject
from pipeline.backfill.rows import FragmentFault
from pipeline.binding import Task
from pipeline.interfaces import Written
from pipeline.live.observer import Observer
from pipeline.records.batches import PointBatch, TokenBatch
from pipeline.records.record import DeadLetter, Delivery

MAX_REJECTS = 100_000
"""Of one fragment. More of them mean a wrong configuration, not bad rows; and they are held in memory."""


class Tally(Observer):
    """Counts, and implements `pipeline.interfaces.DeadLetters` by keeping where and why. Thread-safe."""

    def __init__(self, fragment: Fragment, num_tasks: int) -> None:
        self.rejects: list[Reject] = []
        self._fragment = fragment
        self._num_tasks = num_tasks
        self._lock = threading.Lock()
        self._counts = Counts()

    def counts(self) -> Counts:
        """Returns a copy of the counts."""
        with self._lock:
            counts = replace(self._counts, rejected=self._counts.rejected.copy(), dropped=self._counts.dropped.copy())
        counts.points = max(counts.finished - counts.num_rejected, 0) * self._num_tasks
        return counts

    # -- the carrier

    def read(self, rows: Sequence[Delivery]) -> None:
        """Counts rows that were read."""
        records = (row.record for row in rows if row.record is not None)
        dropped = Counter(name for record in records for name in record.dropped)
        self._add(Counts(rows=len(rows), dropped=dropped))

    def finished(self, num_rows: int) -> None:
        """Counts rows that are written, stale or rejected."""
        self._add(Counts(finished=num_rows))

    def resolved(self, paths: Iterable[str]) -> None:
        """Counts the paths of the configuration that some record had."""
        self._add(Counts(resolved=Counter(paths)))

    # -- DeadLetters

    def send(self, letters: Sequence[DeadLetter]) -> None:
        """See DeadLetters. Raises FragmentFault when they are too many."""
        self.rejects += [
            Reject(letter.position.offset, str(letter.reason), letter.task, letter.detail) for letter in letters
        ]
        if len(self.rejects) > MAX_REJECTS:
            last = self.rejects[-1]
            raise FragmentFault(
                f"{self._fragment.name}: more than {MAX_REJECTS:,} rows were refused, the last with {last.reason} "
                f"({last.detail}): is it this topic's input?"
            )

    def close(self) -> None:
        """Nothing is open."""

    # -- Observer

    def retried(self, component: str) -> None:  # noqa: ARG002 - all are counted together
        """See Observer."""
        self._add(Counts(retries=1))

    def embedded(self, topic: str, tasks: Iterable[Task], tokens: TokenBatch) -> None:  # noqa: ARG002 - a fragment has one topic
        """See Observer."""
        num_prompts = len(tokens.prompts)
        self._add(Counts(embedded=tokens.num_texts * num_prompts, tokens=tokens.num_tokens * num_prompts))

    def written(self, topic: str, tasks: Iterable[Task], points: PointBatch, written: Written) -> None:  # noqa: ARG002 - a fragment has one topic
        """See Observer."""
        num_deleted = int(points.deleted.sum())
        self._add(
            Counts(
                written=(len(points) - num_deleted) * self._num_tasks,
                deleted=num_deleted * self._num_tasks,
                stale=sum(written.stale.values()),
            )
        )

    def superseded(self, topic: str, tasks: Iterable[Task], num_records: int) -> None:  # noqa: ARG002 - a fragment has one topic
        """See Observer."""
        self._add(Counts(stale=num_records * self._num_tasks))

    def dead_lettered(self, topic: str, letters: Iterable[DeadLetter]) -> None:  # noqa: ARG002 - a fragment has one topic
        """See Observer."""
        self._add(Counts(rejected=Counter(str(letter.reason) for letter in letters)))

    def _add(self, counts: Counts) -> None:
        with self._lock:
            self._counts.add(counts)
