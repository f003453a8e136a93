"""Rides out the blips of a store and of the brokers: hours of comparison are not discarded for seconds of absence."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from threading import Event
from typing import Protocol, TypeVar

from pipeline.binding import Task
from pipeline.errors import TransientError
from pipeline.interfaces import (
    CollectionState,
    Found,
    Inspectable,
    Letters,
    Origin,
    Progress,
    RecordRange,
    Repairable,
    StoredPoint,
    Written,
)
from pipeline.live.retry import Retrier
from pipeline.records.batches import Int64, PointBatch
from pipeline.records.record import Partition, Position

PATIENCE_S = 300.0
"""Longest absence that is waited for; then the error of the last attempt ends the comparison."""

Result = TypeVar("Result")


class ComparedStore(Inspectable, Repairable, Protocol):
    """What a comparison asks of a store."""

    def open(self, tasks: Iterable[Task]) -> None:
        """See `PointStore.open`."""

    def retrieve(self, collection: str, ids: Sequence[bytes], *, with_vectors: bool = False) -> list[StoredPoint]:
        """See `PointReader.retrieve`."""

    def scroll(
        self, collection: str, after: bytes | None, limit: int, *, with_vectors: bool = False
    ) -> list[StoredPoint]:
        """See `PointReader.scroll`."""

    def count(self, collection: str) -> int:
        """See `PointReader.count`."""

    def flush(self) -> None:
        """See `PointWriter.flush`."""


def patient(progress: Progress) -> Retrier:
    """Returns what repeats calls through outages of up to PATIENCE_S, and says so to `progress`."""
    return Retrier(Event(), lambda component: progress(f"waiting for the {component}", 0, 0), limit_s=PATIENCE_S)


class PatientStore:
    """A `ComparedStore` whose calls are repeated through outages: every one of them may be."""

    def __init__(self, store: ComparedStore, retry: Retrier) -> None:
        self._store = store
        self._retry = retry

    def check(self) -> str:
        """See `Inspectable.check`."""
        return self._call(self._store.check)

    def inspect(self, tasks: Iterable[Task]) -> Mapping[str, CollectionState]:
        """See `Inspectable.inspect`."""
        wanted = list(tasks)
        return self._call(lambda: self._store.inspect(wanted))

    def open(self, tasks: Iterable[Task]) -> None:
        """See `PointStore.open`."""
        wanted = list(tasks)
        self._call(lambda: self._store.open(wanted))

    def retrieve(self, collection: str, ids: Sequence[bytes], *, with_vectors: bool = False) -> list[StoredPoint]:
        """See `PointReader.retrieve`."""
        return self._call(lambda: self._store.retrieve(collection, ids, with_vectors=with_vectors))

    def scroll(
        self, collection: str, after: bytes | None, limit: int, *, with_vectors: bool = False
    ) -> list[StoredPoint]:
        """See `PointReader.scroll`."""
        return self._call(lambda: self._store.scroll(collection, after, limit, with_vectors=with_vectors))

    def count(self, collection: str) -> int:
        """See `PointReader.count`."""
        return self._call(lambda: self._store.count(collection))

    def repair(self, batch: PointBatch) -> Written:
        """See `Repairable.repair`."""
        return self._call(lambda: self._store.repair(batch))

    def flush(self) -> None:
        """See `PointWriter.flush`."""
        self._call(self._store.flush)

    def _call(self, call: Callable[[], Result]) -> Result:
        return self._retry("store", call)


class PatientRange:
    """A `RecordRange` that goes on where an outage interrupted it."""

    def __init__(self, source: RecordRange, retry: Retrier) -> None:
        self._source = source
        self._retry = retry
        self.begins = source.begins
        self.ends = source.ends

    @property
    def num_records(self) -> int:
        """See `RecordRange.num_records`."""
        return self._source.num_records

    def origin_of(self, source: str) -> Origin:
        """See `RecordRange.origin_of`."""
        return self._source.origin_of(source)

    def committed(self) -> Mapping[Partition, int] | None:
        """See `RecordRange.committed`."""
        return self._retry("brokers", self._source.committed)

    def letters(self) -> Letters | None:
        """See `RecordRange.letters`."""
        return self._retry("brokers", self._source.letters)

    def read(
        self, wanted: Mapping[tuple[str, int], Int64] | None = None, after: Position | None = None
    ) -> Iterator[Found]:
        """See `RecordRange.read`. After an outage it reads on behind the last record."""
        items = self._source.read(wanted, after)

        def following() -> Found | None:
            nonlocal items
            try:
                return next(items, None)
            except TransientError:
                items = self._source.read(wanted, after)
                raise

        while True:
            try:
                item = following()
            except TransientError:
                item = self._retry("brokers", following)
            if item is None:
                return
            after = item.position
            yield item
