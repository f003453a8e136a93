"""Compares stored vectors with new ones of the same records."""

from collections.abc import Sequence

import numpy as np

from pipeline.compare.findings import FAULT, DifferenceKind, TaskFindings
from pipeline.compare.patience import ComparedStore
from pipeline.compare.revisit import Chosen, Chunk, Revisit
from pipeline.compare.source_keys import places
from pipeline.records.batches import Float32

MIN_COSINE = 0.999
"""Between a stored vector and a new one of the same text: other precisions and batches stay far above it."""


def check_vectors(findings: Sequence[TaskFindings], revisit: Revisit, store: ComparedStore) -> None:
    """Embeds each task's sample again and adds the wrong vectors to its faults. Raises like revisit and store."""
    by_task = {found.task.name: found for found in findings}
    for chunk in revisit.embed([Chosen(found.task, found.sample) for found in findings], "checking vectors"):
        _check(chunk, by_task[chunk.task.name], store)


def _check(chunk: Chunk, findings: TaskFindings, store: ComparedStore) -> None:
    points = {point.id: point for point in store.retrieve(chunk.task.collection, chunk.ids, with_vectors=True)}
    entries = findings.sample[places(findings.sample["id"], np.array(chunk.ids, "S16"))[0]]
    for entry, raw, record, row in zip(entries, chunk.ids, chunk.records, chunk.rows, strict=True):
        point = points.get(raw)
        # Any other version than the sampled one is the comparison's to judge.
        if point is None or point.version != record.version or point.deleted or not np.isfinite(row).all():
            continue
        findings.num_checked += 1
        if not _alike(point.vector, row):
            findings.faults.append(np.array([(*entry.tolist(), DifferenceKind.WRONG_VECTOR, point.version)], FAULT))


def _alike(stored: Float32 | None, computed: Float32) -> bool:
    if stored is None or stored.shape != computed.shape:
        return False
    length = float(np.linalg.norm(stored) * np.linalg.norm(computed))
    return length > 0 and float(stored @ computed) / length >= MIN_COSINE
