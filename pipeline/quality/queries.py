"""Queries whose relevant records are known, as lines of a file."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import orjson

from pipeline.errors import ConfigError, nearest

_BOM = b"\xef\xbb\xbf"
_FIELDS = ("query", "relevant", "task", "instruction")


@dataclass(frozen=True, slots=True)
class Query:
    """One query, and what it should find."""

    task: str
    text: str
    relevant: tuple[str, ...]
    """Keys of records."""
    instruction: str | None
    """In place of the task's own."""


def read_queries(origin: str, lines: Iterable[bytes], tasks: Sequence[str]) -> list[Query]:
    """Returns the queries of JSON Lines, such as `{"query": "…", "relevant": [KEY, …]}`.

    A line may also name its `task`, and an `instruction` to take instead of the task's own.

    Args:
        origin: Of the lines, for messages.
        lines: Blank ones are skipped.
        tasks: Retrieval tasks; a line without a task belongs to the only one.

    Raises:
        ConfigError: A line is something else; the message has its number.
    """
    found = [
        _query(f"{origin}, line {number}", line, tasks) for number, line in enumerate(lines, start=1) if line.strip()
    ]
    if not found:
        raise ConfigError(f"{origin}: holds no query")
    return found


def _query(place: str, line: bytes, tasks: Sequence[str]) -> Query:
    try:
        fields = orjson.loads(line.removeprefix(_BOM))
    except orjson.JSONDecodeError:
        fields = None
    if not isinstance(fields, dict):
        raise ConfigError(f'{place}: expected a JSON object such as {{"query": "…", "relevant": ["KEY"]}}')
    for name in fields:
        if name not in _FIELDS:
            raise ConfigError(f"{place}: unknown field {name!r}.{nearest(name, _FIELDS)} Valid: {', '.join(_FIELDS)}")
    text, relevant, instruction = fields.get("query"), fields.get("relevant"), fields.get("instruction")
    if not isinstance(text, str) or not text.strip():
        raise ConfigError(f"{place}: query is missing or blank; expected a text")
    if not isinstance(relevant, list) or not relevant or not all(_is_key(key) for key in relevant):
        raise ConfigError(f"{place}: relevant: expected a list of at least one key")
    if instruction is not None and not isinstance(instruction, str):
        raise ConfigError(f"{place}: instruction: expected a text")
    return Query(_task(place, fields.get("task"), tasks), text, tuple(map(str, relevant)), instruction)


def _task(place: str, name: object, tasks: Sequence[str]) -> str:
    if name is None and len(tasks) == 1:
        return tasks[0]
    if name is None:
        raise ConfigError(f"{place}: task is missing; expected one of {', '.join(tasks)}")
    if name not in tasks:
        raise ConfigError(f"{place}: no retrieval task {name!r}.{nearest(str(name), tasks)} Tasks: {', '.join(tasks)}")
    return str(name)


def _is_key(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)
