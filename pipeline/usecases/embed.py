"""Texts to vectors in this process, by a task of the configuration."""

from collections.abc import Sequence

import numpy as np

from pipeline.context import Context
from pipeline.errors import ConfigError
from pipeline.records.batches import Float32
from pipeline.records.characters import is_text


def embed(context: Context, task_name: str, texts: Sequence[str], *, as_queries: bool = False) -> Float32:
    """Returns a (num_texts, dimension) float32 array, rows L2-normalised; NaN where a text has no finite vector.

    Raises ConfigError for an unknown task, for what is not a text and for a model that cannot work; TransientError
    where its files cannot be had.
    """
    _check(texts)
    task = context.task(task_name)
    rows = np.empty((len(texts), task.dimension), np.float32)
    size = context.config.limits.max_batch_records
    for begin in range(0, len(texts), size):
        rows[begin : begin + size] = context.encode(task, texts[begin : begin + size], as_queries=as_queries)
    return rows


def _check(texts: Sequence[object]) -> None:
    if isinstance(texts, str):
        raise ConfigError("texts: expected a list of texts, found one text")
    for number, text in enumerate(texts):
        if not isinstance(text, str) or not is_text(text):
            raise ConfigError(f"texts: number {number} is not a text, or holds a lone surrogate, which is no character")
