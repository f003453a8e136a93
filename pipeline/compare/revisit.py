"""Reads chosen records of a source again and embeds them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.binding import Task
from pipeline.compare.source_keys import Entries, SourceKeys, by_partition, places
from pipeline.interfaces import Progress, RecordRange
from pipeline.records.batches import Float32
from pipeline.records.record import Position, Record

CHUNK_RECORDS = 256


class Encoder(Protocol):
    """What turns the texts of records into vectors."""

    def encode(self, task: Task, texts: Sequence[str]) -> Float32:
        """Returns (n, dimension): a row per text, NaN where the model gives no finite vector."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The records to embed for one task."""

    task: Task
    entries: Entries
    """Of the source keys, by id."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some chosen records of one task, embedded."""

    task: Task
    records: Sequence[Record]
    ids: Sequence[bytes]
    """Of the records' points."""
    rows: Float32
    """(n, dimension): a record's vector, zeros for a delete; not finite where the model gave no finite vector."""


class Revisit:
    """A second reading of a source. Use from one thread."""

    def __init__(self, source: RecordRange, keys: SourceKeys, encoder: Encoder, progress: Progress) -> None:
        self._source = source
        self._keys = keys
        self._encoder = encoder
        self._progress = progress

    @property
    def topics(self) -> Sequence[str]:
        """Topics by the numbers that entries have."""
        return self._keys.topics

    def embed(self, choices: Sequence[Chosen], doing: str) -> Iterator[Chunk]:
        """Reads the source once and yields the chosen records in chunks of one task, in no particular order.

        Raises like the range and the encoder.
        """
        waiting: list[list[Record]] = [[] for _ in choices]
        for record in self._records(choices, doing):
            identity = self._keys.id_of(record)
            for chosen, records in zip(choices, waiting, strict=True):
                if self._is_among(chosen.entries, identity, record.position):
                    records.append(record)
                if len(records) == CHUNK_RECORDS:
                    yield self._chunk(chosen.task, records)
                    records.clear()
        for chosen, records in zip(choices, waiting, strict=True):
            if records:
                yield self._chunk(chosen.task, records)

    def _records(self, choices: Sequence[Chosen], doing: str) -> Iterator[Record]:
        """Yields the records at the places that any task chose."""
        total = max((len(chosen.entries) for chosen in choices), default=0)
        if not total:
            return
        wanted = np.concatenate([chosen.entries[["topic", "partition", "offset"]] for chosen in choices])
        num_read = 0
        for found in self._source.read(by_partition(wanted, self._keys.topics)):
            if found.record is not None:
                num_read += 1
                self._progress(doing, num_read, total)
                yield found.record

    def _is_among(self, entries: Entries, identity: bytes, position: Position) -> bool:
        """Whether this very record was chosen, and not another one of its key."""
        [place], [present] = places(entries["id"], np.array([identity], "S16"))
        return bool(
            present
            and self._keys.topics[entries["topic"][place]] == position.topic
            and entries["partition"][place] == position.partition
            and entries["offset"][place] == position.offset
        )

    def _chunk(self, task: Task, records: Sequence[Record]) -> Chunk:
        rows = np.zeros((len(records), task.dimension), np.float32)
        texts = [record.text for record in records if record.text is not None]
        if texts:
            live = [not record.deleted for record in records]
            rows[live] = self._encoder.encode(task, texts)
        return Chunk(task, list(records), [self._keys.id_of(record) for record in records], rows)
