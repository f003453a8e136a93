"""The seams: what the core loop, searches and comparisons ask of a source, an embedder and a store.

Implementations live behind them (`sources`, `engine` through `actors`, `stores`); their contracts
are written here, once. Ask for the smallest protocol that will do.

Every method may raise the classes of `pipeline.errors` and nothing else:
an implementation translates its vendor's exceptions.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pipeline.binding import Task
from pipeline.errors import Reason
from pipeline.filters import Condition
from pipeline.records.batches import Embeddings, Float32, Int64, PointBatch, Priority, TokenBatch
from pipeline.records.record import DeadLetter, Delivery, Partition, Position, Record


class Source(Protocol):
    """An ordered, replayable stream of deliveries. All methods are called from one thread."""

    def poll(self, timeout_s: float) -> Sequence[Delivery]:
        """Returns what has arrived, in offset order per partition, possibly nothing.

        Must be called several times a second, paused or not: it also keeps the membership alive.
        Receipts are registered with the tracker before they are returned.
        """

    def set_paused(self, *, paused: bool) -> None:
        """Stops or resumes fetching for every partition held now or assigned later. Cheap to repeat."""

    def commit(self) -> None:
        """Commits the durable watermark of every partition that moved since the last call.

        Losing a partition is not an error here: its offsets are simply not committed.
        """

    def joined(self) -> bool:
        """Whether this member takes part: the source has said which partitions it reads, possibly none."""

    def lag(self) -> Mapping[Partition, int]:
        """Returns records between the position and the end of each held partition, as last heard from the broker."""

    def close(self) -> None:
        """Commits what is durable, leaves the group and frees the sockets. Safe to call twice."""


class DeadLetters(Protocol):
    """Where records that can never be stored go. Thread-safe."""

    def send(self, letters: Sequence[DeadLetter]) -> None:
        """Returns when every letter is acknowledged by all in-sync replicas.

        Raises TransientError when it is not; the caller sends all of them again, and copies are harmless.
        """

    def close(self) -> None:
        """Flushes and frees the producer."""


class Tokenizer(Protocol):
    """Turns texts into token batches. Thread-safe."""

    def encode(self, texts: Sequence[str], prompts: Sequence[str]) -> TokenBatch:
        """Tokenises every text once and counts what will not fit.

        Raises ConfigError for an unknown prompt name.
        """


class Embedder(Protocol):
    """Computes embeddings, somewhere. Thread-safe: callers overlap work by calling from several threads."""

    def embed(self, model: str, batch: TokenBatch, priority: Priority) -> Embeddings:
        """Returns one (num_texts, dimension) float32 array per prompt of the batch; blocks until they are there.

        A row of NaN is an item without a finite embedding. Raises BatchShapeError (too large),
        TransientError (nobody there) or EnvironmentFault.
        """


@dataclass(frozen=True, slots=True)
class Written:
    """What a write did."""

    stale: Mapping[str, int]
    """Collection -> points that lost against a stored newer version."""


@dataclass(frozen=True, slots=True)
class StoredPoint:
    """A point as read back."""

    id: bytes
    version: int
    deleted: bool
    payload: Mapping[str, Any]
    vector: Float32 | None = None
    score: float = 0.0
    deleted_ms: int | None = None
    """Unix milliseconds of when a tombstone was written; None for a live point, and for a tombstone without a time."""


class PointWriter(Protocol):
    """Takes versioned points. Thread-safe.

    The guarantee of a store's `upsert`: for every id the stored version never goes down, whoever writes, in
    whatever order, however often. Tombstones count as points until they are purged.
    """

    def upsert(self, batch: PointBatch) -> Written:
        """Writes every point whose version is newer than the stored one, into each collection of the batch.

        Returns when the points are readable and logged by the store.

        Raises:
            BatchShapeError: too many or too large points; send halves.
            RecordError: the batch holds one point and the store refuses it for good.
            TransientError, UnknownOutcomeError, EnvironmentFault: see `pipeline.errors`.
        """

    def flush(self) -> None:
        """Returns when everything written so far survives a power loss. Called before offsets may be committed."""


class PointReader(Protocol):
    """Collections that are searched and read. Thread-safe."""

    def search(self, task: Task, vector: Float32, limit: int, conditions: Sequence[Condition]) -> list[StoredPoint]:
        """Returns live points that meet all conditions, by falling cosine similarity, through the task's alias.

        Raises EnvironmentFault when the alias points to a collection of another fingerprint.
        """

    def retrieve(self, collection: str, ids: Sequence[bytes], *, with_vectors: bool = False) -> list[StoredPoint]:
        """Returns the stored points among `ids`, tombstones included, in no particular order."""

    def scroll(
        self, collection: str, after: bytes | None, limit: int, *, with_vectors: bool = False
    ) -> list[StoredPoint]:
        """Returns up to `limit` points with ids above `after`, ascending, tombstones included."""

    def count(self, collection: str) -> int:
        """Returns the number of live points."""


class PointStore(PointWriter, PointReader, Protocol):
    """Collections of points, wherever the store runs: in this process or behind an actor. Thread-safe."""

    def open(self, tasks: Iterable[Task]) -> None:
        """Creates or checks the physical collection and alias of every task.

        Raises EnvironmentFault where a collection exists with another size, distance or fingerprint.
        """

    def close(self) -> None:
        """Flushes and frees everything. Safe to call twice."""


@dataclass(frozen=True, slots=True)
class CollectionState:
    """What a task finds where it will write."""

    exists: bool
    """Whether its physical collection is there."""
    alias: str
    """The name under which the task's readers look."""
    elsewhere: str | None = None
    """The other collection that the alias leads to; None where it leads to the task's own, or does not exist."""
    notes: Sequence[str] = ()
    """What will change when the collection is opened."""

    def __str__(self) -> str:
        state = "exists" if self.exists else "new"
        return state if self.elsewhere is None else f"{state}, but alias {self.alias!r} leads to {self.elsewhere!r}"


class Inspectable(Protocol):
    """A store that can be looked at without creating anything."""

    def check(self) -> str:
        """Returns the store's name and version when it answers and can be used. Raises like `PointWriter.upsert`."""

    def inspect(self, tasks: Iterable[Task]) -> Mapping[str, CollectionState]:
        """Returns, by the task's name, what it finds where it will write.

        Raises EnvironmentFault where a collection is of another fingerprint.
        """


class Repairable(Protocol):
    """A store whose points can be replaced by points of the same version."""

    def repair(self, batch: PointBatch) -> Written:
        """Writes like `upsert`, but also over points of the same version; newer ones stay. Raises alike.

        For what the version guard would keep: a vector that is wrong under the right version.
        """


class Purgeable(Protocol):
    """A store whose tombstones can be listed, and removed for good."""

    def tombstones(self, collection: str, after: bytes | None, limit: int) -> list[StoredPoint]:
        """Returns up to `limit` tombstones with ids above `after`, ascending."""

    def purge_tombstones(self, collection: str, ids_versions: Mapping[bytes, int]) -> int:
        """Removes the tombstones among the ids that are no newer than the given versions; returns how many.

        A point that is revived meanwhile, or deleted again by a newer record, stays. Repeating it is safe.
        """


class Store(PointStore, Inspectable, Repairable, Purgeable, Protocol):
    """A store opened in this process (see `pipeline.stores.open`): everything above in one."""


@runtime_checkable
class DeferrableIndex(Protocol):
    """A store that builds its vector index in the background, and can put that off while a collection is filled."""

    def defer_index(self, task: Task) -> bool:
        """Puts building off if the task's collection is empty; whether it is put off now."""

    def restore_index(self, task: Task) -> bool:
        """Resumes building if it was put off, by this process or an earlier one; whether it was."""

    def is_indexed(self, task: Task) -> bool:
        """Whether nothing is left to build."""


PLACE = np.dtype([("offset", "<i8"), ("timestamp_ms", "<i8")])
"""A record within its partition. The timestamp tells it from the record at that offset of a recreated topic."""


@dataclass(frozen=True, slots=True)
class Found:
    """One offset of a range: a record, or the reason why there is no record."""

    position: Position
    record: Record | None
    error: Reason | None = None
    detail: str = ""
    num_bytes: int = 0
    """Size of the record at its source, where that is known."""
    raw: tuple[bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]] = (None, None, ())
    """Key, value and headers where there is no record."""


@dataclass(frozen=True, slots=True)
class Letters:
    """What the dead-letter topic holds of a range."""

    places: Mapping[Partition, npt.NDArray[np.void]]
    """Arrays of PLACE: every record that has a letter."""
    refused: Mapping[tuple[str, int, int], str]
    """Reasons by topic, partition and offset of the sound records that could not be stored."""
    kept_since_ms: float
    """Letters of records older than this may have been removed; 0 where no letter has."""


class Origin(IntEnum):
    """Where the record of a point is, seen from a range."""

    INSIDE = 0
    """In the range, or nowhere that the point could name: the range must have a record of its key."""
    OUTSIDE = 1
    """In the range's source, but too new for the range, or no longer retained."""
    ELSEWHERE = 2
    """In another source: a file, or a topic that is not read. The range says nothing about the point."""


class RecordRange(Protocol):
    """A source with a beginning and an end, which can be read more than once."""

    begins: Mapping[Partition, int]
    """First offset per partition; empty where records have no offsets."""
    ends: Mapping[Partition, int]
    """One past the last offset per partition."""

    @property
    def num_records(self) -> int:
        """An upper bound of the records in the range."""

    def read(
        self, wanted: Mapping[tuple[str, int], Int64] | None = None, after: Position | None = None
    ) -> Iterator[Found]:
        """Yields the range, always in the same order: of each partition by offset.

        Args:
            wanted: Ascending offsets by topic and partition: nothing else is read.
            after: Begins behind this record, as what an earlier iterator would have yielded next.
        """

    def origin_of(self, source: str) -> Origin:
        """Returns where the record is that a point's `_source` names; an empty one names none."""

    def committed(self) -> Mapping[Partition, int] | None:
        """Returns the offsets below which the pipeline has finished everything; None where no more records come."""

    def letters(self) -> Letters | None:
        """Returns the dead letters as of now; None for a source whose records have none."""


Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is (0: not known)."""
