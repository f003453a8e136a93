"""Embeds chosen records again: to check the stored vectors, and to write what a comparison found to be wrong."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from pipeline.compare.comparison import FAULT, Kind, TaskReport
from pipeline.compare.keyspace import Entries, KeySpace, by_partition, places, raw_ids
from pipeline.interfaces import Embedder, Progress, RecordRange, Store, Tokenizer
from pipeline.records.batches import Bool, Float32, PointBatch, Priority
from pipeline.records.record import Record, point_id
from pipeline.tasks import Task

CHUNK_RECORDS = 256
MIN_COSINE = 0.999
"""Between a stored vector and the same text's new one: other precisions and batches stay far above it."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """What turns records into vectors, here or in the running app."""

    pipeline: str
    tokenizers: Mapping[str, Tokenizer]
    """By model."""
    embedder: Embedder


@dataclass(slots=True)
class Mended:
    """What a repair did to one task."""

    num_written: int = 0
    num_deleted_extras: int = 0
    num_left: int = 0
    """Faults that stand: extras without leave to delete them, and records without a finite vector."""


class Revisit:
    """Reads chosen records again and embeds them. Use from one thread."""

    def __init__(self, source: RecordRange, keys: KeySpace, encoder: Encoder, store: Store, progress: Progress) -> None:
        self._source = source
        self._keys = keys
        self._encoder = encoder
        self._store = store
        self._progress = progress

    def check_vectors(self, reports: Sequence[TaskReport]) -> None:
        """Compares the vectors of each report's sample with new ones, and adds the wrong ones to its faults."""
        chosen = {report.task.name: (report.task, report.sample) for report in reports}
        by_name = {report.task.name: report for report in reports}
        for task, records, rows in self._embedded(chosen, "checking vectors"):
            report = by_name[task.name]
            ids = [point_id(self._encoder.pipeline, record.key) for record in records]
            points = {point.id: point for point in self._store.retrieve(task.collection, ids, with_vectors=True)}
            entries = report.sample[places(report.sample["id"], np.array(ids, "S16"))[0]]
            for entry, raw, record, row in zip(entries, ids, records, rows, strict=True):
                point = points.get(raw)
                # Anything but the sampled version is the comparison's to judge, not this one's.
                if point is None or point.version != record.version or point.deleted or not np.isfinite(row).all():
                    continue
                report.num_checked += 1
                if not _alike(point.vector, row):
                    fault = np.array([(*entry.tolist(), Kind.WRONG_VECTOR, point.version)], FAULT)
                    report.faults.append(fault)

    def repair(self, reports: Sequence[TaskReport], *, delete_extras: bool) -> dict[str, Mended]:
        """Writes every record found missing, stale or wrong; returns by task what was done.

        Nothing newer is overwritten, whatever happens meanwhile. Extras become tombstones of their own
        version: unseen by searches, and a newer record of the key brings it back.
        """
        mended = {report.task.name: Mended() for report in reports}
        writable = (Kind.MISSING, Kind.STALE, Kind.WRONG_STATE, Kind.TOMBSTONE_MISSING, Kind.WRONG_VECTOR)
        chosen = {report.task.name: (report.task, report.select(*writable)) for report in reports}
        # Writers check the collection, or make it where it was lost.
        self._store.open([report.task for report in reports if not report.fingerprint_fault])
        for task, records, rows in self._embedded(chosen, "repairing"):
            done = mended[task.name]
            deleted = np.array([record.deleted for record in records])
            finite = np.flatnonzero(deleted | np.isfinite(rows).all(axis=1))
            batch = self._batch(task, records, deleted, rows).take(finite)
            if len(batch):
                self._store.repair(batch)
            done.num_written += len(batch)
        for report in reports:
            done = mended[report.task.name]
            done.num_left = len(chosen[report.task.name][1]) - done.num_written
            extras = report.select(Kind.EXTRA)
            if delete_extras:
                self._delete(report.task, extras)
                done.num_deleted_extras = len(extras)
            else:
                done.num_left += len(extras)
        self._store.flush()
        return mended

    def _embedded(
        self, chosen: Mapping[str, tuple[Task, Entries]], doing: str
    ) -> Iterator[tuple[Task, list[Record], Float32]]:
        """Yields the chosen records of each task in chunks, with a row each; a delete's row is zero."""
        total = max((len(entries) for _, entries in chosen.values()), default=0)
        if not total:
            return
        names = ["topic", "partition", "offset"]
        every = np.concatenate([entries[names] for _, entries in chosen.values()])
        num_read = 0
        waiting: dict[str, list[Record]] = {name: [] for name in chosen}
        for found in chain(self._source.read(by_partition(every, self._keys.topics)), [None]):
            if found is not None and found.record is not None:
                num_read += 1
                self._progress(doing, num_read, total)
                self._sort_out(found.record, chosen, waiting)
            for name, records in waiting.items():
                if records and (found is None or len(records) >= CHUNK_RECORDS):
                    task = chosen[name][0]
                    yield task, records, self._embed(task, records)
                    waiting[name] = []

    def _sort_out(
        self, record: Record, chosen: Mapping[str, tuple[Task, Entries]], waiting: Mapping[str, list[Record]]
    ) -> None:
        """Queues the record for the tasks that chose it: this one, not another record of its key."""
        identity = np.array([point_id(self._encoder.pipeline, record.key)], "S16")
        position = record.position
        for name, (_, entries) in chosen.items():
            [place], [present] = places(entries["id"], identity)
            if (
                present
                and self._keys.topics[entries["topic"][place]] == position.topic
                and entries["partition"][place] == position.partition
                and entries["offset"][place] == position.offset
            ):
                waiting[name].append(record)

    def _embed(self, task: Task, records: Sequence[Record]) -> Float32:
        rows = np.zeros((len(records), task.dimension), np.float32)
        texts = [record.text for record in records if record.text is not None]
        if texts:
            model = task.config.model
            tokens = self._encoder.tokenizers[model].encode(texts, [task.prompt])
            live = [not record.deleted for record in records]
            [rows[live]] = self._encoder.embedder.embed(model, tokens, Priority.BACKFILL)
        return rows

    def _batch(self, task: Task, records: Sequence[Record], deleted: Bool, rows: Float32) -> PointBatch:
        ids = b"".join(point_id(self._encoder.pipeline, record.key) for record in records)
        return PointBatch(
            np.frombuffer(ids, np.uint8).reshape(-1, 16),
            np.array([record.version for record in records], np.int64),
            deleted,
            [record.payload for record in records],
            {task.collection: rows},
        )

    def _delete(self, task: Task, extras: Entries) -> None:
        for start in range(0, len(extras), CHUNK_RECORDS):
            part = extras[start : start + CHUNK_RECORDS]
            batch = PointBatch(
                np.frombuffer(b"".join(raw_ids(part["id"])), np.uint8).reshape(-1, 16),
                np.maximum(part["stored"], 0),
                np.ones(len(part), np.bool_),
                [{} for _ in part],
                {task.collection: np.zeros((len(part), task.dimension), np.float32)},
            )
            self._store.repair(batch)


def _alike(stored: Float32 | None, computed: Float32) -> bool:
    if stored is None or stored.shape != computed.shape:
        return False
    length = float(np.linalg.norm(stored) * np.linalg.norm(computed))
    return length > 0 and float(stored @ computed) / length >= MIN_COSINE
