"""Texts to vectors in this process, by a task of the configuration."""

from collections.abc import Sequence

import numpy as np

from pipeline.context import Context
from pipeline.records.batches import Float32


def embed(context: Context, task_name: str, texts: Sequence[str], *, as_queries: bool = False) -> Float32:
    """Returns a (num_texts, dimension) float32 array, rows L2-normalised; NaN where a text has no finite vector.

    Raises ConfigError for an unknown task or a model that cannot work, TransientError where its files cannot be had.
    """
    task = context.task(task_name)
    rows = np.empty((len(texts), task.dimension), np.float32)
    size = context.config.limits.max_batch_records
    for begin in range(0, len(texts), size):
        rows[begin : begin + size] = context.encode(task, texts[begin : begin + size], as_queries=as_queries)
    return rows
