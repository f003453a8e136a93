"""What a comparison asks of a source and a store beyond what the core loop does. Implemented behind the seams."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pipeline.errors import Reason
from pipeline.interfaces import Store, Written
from pipeline.records import Int64, Partition, PointBatch, Position, Record
from pipeline.tasks import Task

PLACE = np.dtype([("offset", "<i8"), ("timestamp_ms", "<i8")])
"""A record within its partition. The timestamp tells it from one of a topic that was recreated since."""


@dataclass(frozen=True, slots=True)
class Found:
    """One offset of a range: a record, or the reason why it is none."""

    position: Position
    record: Record | None
    error: Reason | None = None
    detail: str = ""
    num_bytes: int = 0
    """Size of the record at its source, where that is known."""
    raw: tuple[bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]] = (None, None, ())
    """Key, value and headers of what is no record."""


@dataclass(frozen=True, slots=True)
class Letters:
    """What the dead-letter topic holds of a range."""

    places: Mapping[Partition, npt.NDArray[np.void]]
    """Arrays of PLACE: every record that has a letter."""
    refused: Mapping[tuple[str, int, int], str]
    """Reasons by topic, partition and offset of the sound records that could not be stored."""
    kept_since_ms: float
    """Letters of records older than this may have been removed; 0 where none has."""


class RecordRange(Protocol):
    """A source with a beginning and an end, which can be read more than once."""

    begins: Mapping[Partition, int]
    """First offset per partition; empty where records have no offsets."""
    ends: Mapping[Partition, int]
    """One past the last offset per partition."""

    @property
    def num_records(self) -> int:
        """At most so many records are in the range."""

    def read(self, wanted: Mapping[tuple[str, int], Int64] | None = None) -> Iterator[Found]:
        """Yields the range in offset order per partition; of `wanted`, ascending offsets, nothing else."""

    def committed(self) -> Mapping[Partition, int] | None:
        """Returns the offsets below which the pipeline has finished everything; None where nothing is to come."""

    def letters(self) -> Letters | None:
        """Returns the dead letters as of now; None for a source whose records have none."""


class ComparableStore(Store, Protocol):
    """A store that can be looked at without creating anything, and mended."""

    def inspect(self, tasks: Iterable[Task]) -> Mapping[str, str]:
        """Returns by task what stands where it writes: `new` at the beginning means that nothing does.

        Raises EnvironmentFault where a collection is of another fingerprint.
        """

    def repair(self, batch: PointBatch) -> Written:
        """Writes like `upsert`, but over points of the same version too; newer ones stay. Raises alike.

        For what the version guard would keep: a vector that is wrong under the right version.
        """


Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""
