"""Labelled points for an evaluation: what stands in the collections already, so that nothing is embedded."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.binding import Task
from pipeline.errors import ConfigError, RefractError, nearest
from pipeline.interfaces import Progress, Store, StoredPoint
from pipeline.quality.evaluation import EvaluatedRows
from pipeline.quality.labels import label_text
from pipeline.quality.neighbours import find_neighbours
from pipeline.quality.sampling import KeySample
from pipeline.records.batches import Float32, Int64
from pipeline.usecases.labelled import Draw, Material

PAGE_POINTS = 1_000
"""Points of one read."""

_EQUAL = 1 - 1e-5
"""Similarity, under every task, from which two points are taken for one text: rounding moves vectors less."""


def read_stored(
    store: Store, tasks: Sequence[Task], columns: Sequence[str], draw: Draw, progress: Progress
) -> tuple[Material, dict[str, Float32]]:
    """Returns a sample of the points that live in every task's collection, and their vectors by task.

    Args:
        store: Open.
        tasks: At least one.
        columns: Stored names of the labels.
        draw: How many points, and which; its keys are not looked for.
        progress: Hears how many points are read.

    Raises:
        ConfigError: A collection does not exist, or no point has one of the labels.
        EnvironmentFault, TransientError: like the store.
    """
    for name, state in store.inspect(tasks).items():
        if not state.exists:
            raise ConfigError(f"--stored: task {name!r} has no collection yet; run or backfill the pipeline first")
    ids, rows = _chosen(store, tasks[0], columns, draw, progress)
    found = {task.name: dict(_vectors(store, task, ids, progress)) for task in tasks}
    everywhere = [place for place, point in enumerate(ids) if all(point in known for known in found.values())]
    if not everywhere:
        raise RefractError("--stored: no live point is in the collections of all these tasks; nothing to evaluate")
    vectors = {name: np.stack([known[ids[place]] for place in everywhere]) for name, known in found.items()}
    kept = _first_of_equals(list(vectors.values()))
    places = np.array(everywhere)[kept].tolist()
    material = Material(
        keys=[rows.kept[place].key for place in places],
        texts=(),
        labels={name: [rows.kept[place].labels[name] for place in places] for name in columns},
        contradicted={},
        rows=EvaluatedRows(
            num_read=rows.num_read,
            num_texts=len(places),
            is_whole=rows.is_whole,
            seed=draw.seed,
            num_absent=len(ids) - len(everywhere),
            num_equal=len(everywhere) - len(places),
        ),
    )
    return material, {name: known[kept] for name, known in vectors.items()}


class _Row(NamedTuple):
    id: bytes
    key: str
    labels: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class _Rows:
    kept: Sequence[_Row]
    num_read: int
    is_whole: bool


def _chosen(
    store: Store, task: Task, columns: Sequence[str], draw: Draw, progress: Progress
) -> tuple[list[bytes], _Rows]:
    """Draws live points of a task's collection; vectors are read later, of these alone."""
    sample: KeySample[_Row] = KeySample(draw.max_texts, seed=draw.seed)
    names: set[str] = set()
    total, after = store.count(task.collection), None
    while page := store.scroll(task.collection, after, PAGE_POINTS):
        after = page[-1].id
        for point in page:
            names |= point.payload.keys()
            if not point.deleted:
                sample.offer(point.id, point.version, _row(point, columns))
        progress("reading labels", sample.num_offered, total)
    for name in columns:
        if name not in names and sample.num_offered:
            known = sorted(known for known in names if not known.startswith("_"))
            raise ConfigError(
                f"label column {name!r}: no stored point has it in its payload.{nearest(name, known)} "
                f"Stored: {', '.join(known) or 'nothing'}. Name it with --label TASK=NAME, or choose --tasks"
            )
    kept = sample.contents()
    return [row.id for row in kept], _Rows(kept, sample.num_offered, sample.is_whole)


def _row(point: StoredPoint, columns: Sequence[str]) -> _Row:
    labels = {name: label_text(point.payload.get(name), f"label column {name!r}") for name in columns}
    return _Row(point.id, str(point.payload.get("_key", "")).partition(":")[2], labels)


def _vectors(store: Store, task: Task, ids: Sequence[bytes], progress: Progress) -> Iterator[tuple[bytes, Float32]]:
    for begin in range(0, len(ids), PAGE_POINTS):
        for point in store.retrieve(task.collection, ids[begin : begin + PAGE_POINTS], with_vectors=True):
            if point.vector is not None and not point.deleted:
                yield point.id, np.asarray(point.vector, np.float32)
        progress(f"reading vectors of {task.name}", begin, len(ids))


def _first_of_equals(vectors: Sequence[Float32]) -> Int64:
    """Returns the rows that are left when, of rows equal under every task, the first stays."""
    joined = np.hstack(vectors) / np.float32(np.sqrt(len(vectors)))
    kept = np.arange(len(joined))
    while len(kept) > 1:
        nearest_row = find_neighbours(joined[kept], 1)
        copies = (nearest_row.similarities[:, 0] > _EQUAL) & (nearest_row.rows[:, 0] < np.arange(len(kept)))
        if not copies.any():
            break
        kept = kept[~copies]
    return kept
