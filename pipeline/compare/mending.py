"""Writes what a comparison found wrong in the store."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from pipeline.binding import Task
from pipeline.compare.findings import DifferenceKind, TaskFindings
from pipeline.compare.patience import ComparedStore
from pipeline.compare.report import RepairedTask
from pipeline.compare.revisit import CHUNK_RECORDS, Chosen, Chunk, Revisit
from pipeline.compare.source_keys import Entries, raw_ids
from pipeline.records.batches import PointBatch

WRITABLE = (
    DifferenceKind.MISSING,
    DifferenceKind.STALE,
    DifferenceKind.WRONG_STATE,
    DifferenceKind.TOMBSTONE_MISSING,
    DifferenceKind.WRONG_VECTOR,
)
"""What writing the source's record again puts right."""


def mend(
    findings: Sequence[TaskFindings], revisit: Revisit, store: ComparedStore, *, delete_extras: bool
) -> dict[str, RepairedTask]:
    """Writes every record that is missing, stale or wrong; returns, by the task's name, what was done.

    Nothing newer is overwritten, whatever happens meanwhile. Extras become tombstones of their own version:
    searches do not see them, and a newer record of the key brings it back. Raises like revisit and store.
    """
    # Opening creates a collection that was lost.
    store.open([found.task for found in findings if not found.fingerprint_fault])
    choices = [Chosen(found.task, found.select(*WRITABLE)) for found in findings]
    written: Counter[str] = Counter()
    for chunk in revisit.embed(choices, "repairing"):
        batch = _points(chunk)
        if len(batch):
            store.repair(batch)
        written[chunk.task.name] += len(batch)
    repaired = {}
    for chosen, found in zip(choices, findings, strict=True):
        extras = found.select(DifferenceKind.EXTRA)
        left = len(chosen.entries) - written[found.task.name]
        if delete_extras:
            for start in range(0, len(extras), CHUNK_RECORDS):
                store.repair(_tombstones(found.task, extras[start : start + CHUNK_RECORDS]))
            repaired[found.task.name] = RepairedTask(written[found.task.name], len(extras), left)
        else:
            repaired[found.task.name] = RepairedTask(written[found.task.name], 0, left + len(extras))
    store.flush()
    return repaired


def _points(chunk: Chunk) -> PointBatch:
    """Returns the records as points, without those that have no finite vector."""
    deleted = np.array([record.deleted for record in chunk.records])
    batch = PointBatch(
        np.frombuffer(b"".join(chunk.ids), np.uint8).reshape(-1, 16),
        np.array([record.version for record in chunk.records], np.int64),
        deleted,
        [record.payload for record in chunk.records],
        {chunk.task.collection: chunk.rows},
    )
    return batch.take(np.flatnonzero(deleted | np.isfinite(chunk.rows).all(axis=1)))


def _tombstones(task: Task, extras: Entries) -> PointBatch:
    return PointBatch(
        np.frombuffer(b"".join(raw_ids(extras["id"])), np.uint8).reshape(-1, 16),
        np.maximum(extras["stored"], 0),
        np.ones(len(extras), np.bool_),
        [{} for _ in extras],
        {task.collection: np.zeros((len(extras), task.dimension), np.float32)},
    )
