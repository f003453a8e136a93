"""A query on its way to hits: the task's own prompt, one embedding, one search of the task's collection."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import ConfigError, RefractError
from pipeline.filters import Condition, Filters, parse_filters
from pipeline.interfaces import Embedder, PointReader, StoredPoint, Tokenizer
from pipeline.records.batches import Float32, Priority
from pipeline.records.record import point_id, uuid_text
from pipeline.tasks import Task

RESERVED = "_"
"""Payload names that begin with it are the pipeline's own."""


class QueryError(RefractError):
    """The query itself is wrong. `code` is stable, for programs; the message is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Hit:
    """A live point and how similar it is."""

    id: str
    """The point's UUID."""
    key: str
    score: float
    version: int
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Embedded:
    """Rows for texts, with what they cost."""

    rows: Float32
    """(num_texts, dimension)"""
    num_tokens: int
    num_truncated: int


class Searcher:
    """Searches a task's collection with that task's own prompt, so that it cannot be searched with another.

    Thread-safe. Every method raises QueryError for what the caller got wrong, and the classes of
    `pipeline.errors` for what is wrong here.
    """

    def __init__(
        self,
        pipeline: str,
        tasks: Mapping[str, Task],
        *,
        tokenizers: Mapping[str, Tokenizer],
        embedder: Embedder,
        store: PointReader,
        filterable: Sequence[str],
        max_query_bytes: int,
    ) -> None:
        self._pipeline = pipeline
        self._tasks = tasks
        self._tokenizers = tokenizers
        self._embedder = embedder
        self._store = store
        self._filterable = frozenset(filterable)
        self._max_query_bytes = max_query_bytes

    def by_text(self, task_name: str, text: str, limit: int, filters: Filters) -> list[Hit]:
        """Returns the records most similar to a text, by falling score."""
        task = self.task(task_name)
        conditions = self._conditions(filters)
        row = self.embed(task_name, [text]).rows[0]
        return [_hit(point) for point in self._store.search(task, row, limit, conditions)]

    def by_key(self, task_name: str, key: str | int, limit: int, filters: Filters) -> list[Hit]:
        """Returns the records most similar to a stored one, without that one. An int is another key than its text."""
        task = self.task(task_name)
        conditions = self._conditions(filters)
        own = point_id(self._pipeline, f"i:{key}" if isinstance(key, int) else f"s:{key}")
        found = self._store.retrieve(task.collection, [own], with_vectors=True)
        if not found or found[0].deleted or found[0].vector is None:
            raise QueryError("unknown_record", "no live record has this id in this task's collection")
        neighbours = self._store.search(task, found[0].vector, limit + 1, conditions)
        return [_hit(point) for point in neighbours if point.id != own][:limit]

    def embed(self, task_name: str, texts: Sequence[str], *, as_records: bool = False) -> Embedded:
        """Returns the texts' vectors under a task: its query side, or its record side if asked."""
        task = self.task(task_name)
        for text in texts:
            self._check_text(text)
        prompt = task.prompt if as_records else task.query_prompt
        tokens = self._tokenizers[task.config.model].encode(texts, [prompt])
        (rows,) = self._embedder.embed(task.config.model, tokens, Priority.QUERY)
        if not np.isfinite(rows).all():
            raise ArithmeticError("the model gave no finite vector for this query")
        return Embedded(rows, tokens.num_tokens, int(tokens.truncated.sum()))

    def task(self, name: str) -> Task:
        """Returns a task by name."""
        if name not in self._tasks:
            raise QueryError("unknown_task", "there is no such task")
        return self._tasks[name]

    def _check_text(self, text: str) -> None:
        try:
            num_bytes = len(text.encode())
        except UnicodeEncodeError:
            raise QueryError("invalid_text", "the text holds a lone surrogate, which is not a character") from None
        if not text.strip():
            raise QueryError("empty_text", "the text is empty")
        if num_bytes > self._max_query_bytes:
            raise QueryError("text_too_large", f"the text has {num_bytes} bytes, more than {self._max_query_bytes}")

    def _conditions(self, filters: Filters) -> list[Condition]:
        try:
            conditions = parse_filters(filters)
        except ConfigError as error:
            raise QueryError("invalid_filter", str(error)) from None
        for name in filters:
            if name not in self._filterable or name.startswith(RESERVED):
                raise QueryError("unknown_filter", f"no payload field {name[:64]!r} to filter on")
        return conditions


def _hit(point: StoredPoint) -> Hit:
    shown = {name: value for name, value in point.payload.items() if not name.startswith(RESERVED)}
    key = str(point.payload.get("_key", ""))
    return Hit(uuid_text(point.id), key.split(":", 1)[-1], point.score, point.version, shown)
