"""A query on its way to hits: the task's own prompt, one embedding, one search of the task's collection."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field

from pipeline.binding import Task
from pipeline.config.pipeline import Config
from pipeline.context import Context
from pipeline.errors import ConfigError, RefractError, nearest
from pipeline.filters import Condition, Filters, parse_filters
from pipeline.interfaces import Embedder, PointReader, StoredPoint, Tokenizer
from pipeline.records.batches import Float32, Priority
from pipeline.records.characters import is_text
from pipeline.records.record import PointIds, uuid_text
from pipeline.records.values import INTEGER

_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+")
RESERVED = "_"
"""Payload names that begin with it are the pipeline's own."""


class QueryError(RefractError):
    """The query itself is wrong. `code` is stable, for programs; the message is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Hit:
    """A record that was found. What the HTTP API answers, field by field."""

    id: Annotated[str, Field(description="The point's UUID in Qdrant.")]
    key: Annotated[str | int, Field(description="The record's key; an integer under `key_type: integer`.")]
    score: Annotated[float, Field(description="Cosine similarity.")]
    version: int
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Embedded:
    """Rows for texts, with what they cost."""

    rows: Float32
    """(num_texts, dimension)"""
    num_tokens: int
    num_truncated: int


class Searcher:
    """Searches a task's collection with that task's own prompt, so that nobody can search it with another.

    Thread-safe. Every method raises QueryError for what the caller got wrong, and the classes of
    `pipeline.errors` for what is wrong here.
    """

    def __init__(
        self,
        config: Config,
        tasks: Mapping[str, Task],
        tokenizers: Mapping[str, Tokenizer],
        embedder: Embedder,
        store: PointReader,
    ) -> None:
        self._config = config
        self._tasks = tasks
        self._tokenizers = tokenizers
        self._embedder = embedder
        self._store = store
        self._ids = PointIds(config.pipeline, config.source.key_spaces)

    @classmethod
    def of(cls, context: Context, embedder: Embedder, store: PointReader) -> Self:
        """Returns a searcher of every task of a configuration."""
        return cls(context.config, context.tasks, context.tokenizers(), embedder, store)

    def by_text(self, task_name: str, text: str, limit: int, filters: Filters) -> list[Hit]:
        """Returns the records most similar to a text, by falling score."""
        task = self.task(task_name)
        conditions = _conditions(task, filters)
        row = self.embed(task_name, [text]).rows[0]
        return [_hit(point) for point in self._neighbours(task, row, limit, conditions)]

    def by_key(self, task_name: str, key: str | int, limit: int, filters: Filters) -> list[Hit]:
        """Returns the records most similar to a stored one, without that one.

        The key is read as the task's topics spell theirs: `17` finds the integer 17 where `key_type` says so, and hex
        digits find a binary key. Where several topics have a record of the key, the topic named first in the
        configuration counts.
        """
        task = self.task(task_name)
        conditions = _conditions(task, filters)
        if isinstance(key, str):
            _check_characters(key)
        own = [self._ids.of(topic, spelled) for topic, spelled in self._spellings(task_name, key)]
        stored = {point.id: point for point in self._store.retrieve(task.collection, own, with_vectors=True)}
        found = next((stored[raw] for raw in own if raw in stored and not stored[raw].deleted), None)
        if found is None or found.vector is None:
            raise QueryError("unknown_record", "no live record has this id in this task's collection")
        neighbours = self._neighbours(task, found.vector, limit + 1, conditions)
        return [_hit(point) for point in neighbours if point.id != found.id][:limit]

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

    def _spellings(self, task_name: str, key: str | int) -> list[tuple[str, str]]:
        """Returns the topics of a task, each with a canonical key that a given key may stand for, likeliest first."""
        topics = {name: topic for name, topic in self._config.source.topics.items() if task_name in topic.tasks}
        spellings = [(name, f"i:{key}") for name in topics] if isinstance(key, int) else []
        for name, topic in topics.items():
            if topic.binary_key and _HEX.fullmatch(str(key)):
                spellings.append((name, f"b:{str(key).lower()}"))
            elif len(topic.key_paths) > 1:
                spellings.append((name, f"c:{key}"))
            elif topic.key_types == ("integer",) and INTEGER.fullmatch(str(key)):
                spellings.append((name, f"i:{key}"))
            elif isinstance(key, str):
                spellings.append((name, f"s:{key}"))
        return list(dict.fromkeys(spellings))

    def _check_text(self, text: str) -> None:
        _check_characters(text)
        num_bytes = len(text.encode())
        if not text.strip():
            raise QueryError("empty_text", "the text is empty")
        if num_bytes > self._config.api.max_query_bytes:
            raise QueryError(
                "text_too_large", f"the text has {num_bytes} bytes, more than {self._config.api.max_query_bytes}"
            )

    def _neighbours(
        self, task: Task, vector: Float32, limit: int, conditions: Sequence[Condition]
    ) -> Sequence[StoredPoint]:
        try:
            return self._store.search(task, vector, limit, conditions)
        except ConfigError as error:  # what this store, as it is set up, cannot be asked
            raise QueryError("refused_by_store", str(error)) from None


def _check_characters(text: str) -> None:
    if not is_text(text):
        raise QueryError("invalid_text", "the text holds a lone surrogate, which is not a character")


def _conditions(task: Task, filters: Filters) -> list[Condition]:
    for name in filters:
        if name not in task.payload or name.startswith(RESERVED):
            raise QueryError(
                "unknown_filter",
                f"no payload field {name[:64]!r} to filter on.{nearest(name[:64], task.payload)}",
            )
    try:
        return parse_filters(filters, task.payload)
    except ConfigError as error:
        raise QueryError("invalid_filter", str(error)) from None


def _hit(point: StoredPoint) -> Hit:
    shown = {name: value for name, value in point.payload.items() if not name.startswith(RESERVED)}
    kind, _, text = str(point.payload.get("_key", "")).partition(":")
    return Hit(uuid_text(point.id), int(text) if kind == "i" else text, point.score, point.version, shown)
