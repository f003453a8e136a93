"""Topics, and files beside them, as the one range that a comparison reads."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.interfaces import Found, Letters, Origin, RecordRange
from pipeline.records.batches import Int64
from pipeline.records.record import MAX_VERSION, Partition, Position

if TYPE_CHECKING:
    from pipeline.compare.file_range import FileRange  # pyarrow


@dataclass(frozen=True, slots=True)
class SomeFiles:
    """Files that are compared, and the tasks whose collections should hold their rows."""

    rows: "FileRange"
    tasks: Collection[str]


class JoinedRange:
    """Implements `pipeline.interfaces.RecordRange` over the range of some topics, and over files."""

    def __init__(self, topics: RecordRange | None, files: Sequence[SomeFiles]) -> None:
        """Takes the topics' range, if any, and the files; no two of them share a partition."""
        self._topics = topics
        self._files = files
        self._ranges: list[RecordRange] = [*([] if topics is None else [topics]), *(some.rows for some in files)]
        self.begins: Mapping[Partition, int] = {} if topics is None else topics.begins
        self.ends: Mapping[Partition, int] = {} if topics is None else topics.ends

    @property
    def num_records(self) -> int:
        """See `RecordRange.num_records`."""
        return sum(one.num_records for one in self._ranges)

    def origin_of(self, source: str) -> Origin:
        """See `RecordRange.origin_of`: the nearest of all answers."""
        return min(one.origin_of(source) for one in self._ranges)

    def committed(self) -> Mapping[Partition, int] | None:
        """See `RecordRange.committed`. Every row of a file should be stored."""
        found = None if self._topics is None else self._topics.committed()
        if found is None:
            return None
        rows = (Partition(some.rows.topic, number) for some in self._files for number in some.rows.partitions)
        return {**found, **dict.fromkeys(rows, MAX_VERSION)}

    def letters(self) -> Letters | None:
        """See `RecordRange.letters`: those of the topics."""
        return None if self._topics is None else self._topics.letters()

    def read(
        self, wanted: Mapping[tuple[str, int], Int64] | None = None, after: Position | None = None
    ) -> Iterator[Found]:
        """See `RecordRange.read`: the topics first, so that of equal versions theirs count."""
        ranges = self._ranges
        if after is not None:
            at = self._index_of(after)
            yield from ranges[at].read(wanted, after)
            ranges = ranges[at + 1 :]
        for one in ranges:
            yield from one.read(wanted)

    def of(self, task: str, topics: Sequence[str]) -> "Reading":
        """Returns what of this range counts for a task that embeds records of the given topics."""
        files = [some.rows for some in self._files if task in some.tasks]
        ranges = [*([] if self._topics is None else [self._topics]), *files]
        return Reading(topics, [number for rows in files for number in rows.partitions], ranges)

    def place(self, topic: str, partition: int, offset: int) -> str:
        """Names a record by its place, in reports: `topic:partition:offset`, or `file:row`."""
        for some in self._files:
            if partition in some.rows.partitions:
                return some.rows.place(partition, offset)
        return f"{topic}:{partition}:{offset}"

    def _index_of(self, position: Position) -> int:
        """Returns which of the ranges holds a record."""
        if position.partition >= 0:
            return 0
        number = next(at for at, some in enumerate(self._files) if position.partition in some.rows.partitions)
        return number + len(self._ranges) - len(self._files)


@dataclass(frozen=True, slots=True)
class Reading:
    """What of a source a task's collection is held against."""

    topics: Sequence[str]
    """Those whose records the task embeds."""
    files: Sequence[int]
    """Partitions of the files whose rows it embeds."""
    ranges: Sequence[RecordRange]

    def origin_of(self, source: str) -> Origin:
        """See `RecordRange.origin_of`, for points of the task."""
        return min((one.origin_of(source) for one in self.ranges), default=Origin.ELSEWHERE)
