"""Pairs of queries and documents: lines of a file, the near copies among them, and how many queries find theirs."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from pipeline.config.model import TaskConfig
from pipeline.errors import ConfigError, nearest
from pipeline.quality.estimates import Estimate, Resampler
from pipeline.quality.retrieval import measure_retrieval
from pipeline.records.batches import Int64
from pipeline.tuning.encoder import LoraEncoder

K = 10
"""Ranks that count for nDCG."""

MAX_DOCUMENTS = 1_000
"""Documents that a fold's queries are asked of, beyond the fold's own."""

_FIELDS = ("query", "positive", "negatives", "instruction", "task")
_EXAMPLE = '{"query": "…", "positive": "…"}'


@dataclass(frozen=True, slots=True)
class QueryPair:
    """One query, and what it should find and what not."""

    task: str
    query: str
    query_prompt: str
    """Name of the prompt that carries its instruction."""
    document_prompt: str
    positives: tuple[int, ...]
    """Places of documents."""
    negatives: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PairTexts:
    """Pairs, each query once per instruction, and their documents, each once."""

    pairs: Sequence[QueryPair]
    documents: Sequence[str]
    tasks: Mapping[str, TaskConfig]
    """Every task of the pairs by name, and one for every instruction that no task has."""
    num_lines: int

    @property
    def sha256(self) -> str:
        """Hash of pairs and documents."""
        found = hashlib.sha256(orjson.dumps(list(self.documents)))
        for pair in self.pairs:
            asked = self.tasks[pair.query_prompt.removesuffix(":query")]
            instruction = asked.query_instruction or asked.instruction
            found.update(orjson.dumps([pair.task, instruction, pair.query, pair.positives, pair.negatives]))
        return found.hexdigest()


def read_pairs(origin: str, lines: Iterable[bytes], tasks: Mapping[str, TaskConfig]) -> PairTexts:
    """Returns the pairs of JSON Lines, such as `{"query": "…", "positive": "…"}`.

    A line may also have `negatives`, an `instruction` and a `task`; `positive` and `negatives` are a text or a list of
    texts. An instruction is that of a task, or taken as it is; without one, it is the task's own. Lines that ask the
    same add up to one pair.

    Args:
        origin: Of the lines, for messages.
        lines: Blank ones are skipped.
        tasks: Retrieval tasks by name; a line that fits none by its instruction belongs to the only one.

    Raises:
        ConfigError: a line is something else; the message has its number.
    """
    gathering = _Gathering(tasks)
    for number, line in enumerate(lines, start=1):
        if line.strip():
            gathering.add(f"{origin}, line {number}", number, line)
    if not gathering.found:
        raise ConfigError(f"{origin}: holds no pair")
    return gathering.pairs()


class _Gathering:
    """Takes lines, one after another."""

    def __init__(self, tasks: Mapping[str, TaskConfig]) -> None:
        self._own = dict(tasks)
        self._tasks = dict(tasks)
        self._by_instruction = {asked: name for name, task in reversed(list(tasks.items())) if (asked := _asked(task))}
        self._names: dict[tuple[str, str], str] = {}
        self._documents: dict[str, int] = {}
        self.found: dict[tuple[str, str, str], tuple[list[int], list[int]]] = {}
        """(task, name of the asking task, query) -> positives and negatives."""
        self._num_lines = 0

    def add(self, place: str, number: int, line: bytes) -> None:
        fields = _fields(place, line)
        query = _text(place, "query", fields.get("query"))
        positives = [self._document(text) for text in _texts(place, "positive", fields.get("positive"))]
        if not positives:
            raise ConfigError(f"{place}: positive is missing; expected a text or a list of texts")
        negatives = [self._document(text) for text in _texts(place, "negatives", fields.get("negatives"))]
        task, asking = self._task(place, number, fields)
        known = self.found.setdefault((task, asking, query), ([], []))
        known[0].extend(positives)
        known[1].extend(negatives)
        self._num_lines += 1
        if set(known[0]) & set(known[1]):
            raise ConfigError(f"{place}: a text is positive and negative for one query; expected one of the two")

    def pairs(self) -> PairTexts:
        pairs = [
            QueryPair(
                task, query, f"{asking}:query", task, tuple(dict.fromkeys(wanted)), tuple(dict.fromkeys(unwanted))
            )
            for (task, asking, query), (wanted, unwanted) in self.found.items()
        ]
        return PairTexts(pairs, list(self._documents), self._tasks, self._num_lines)

    def _document(self, text: str) -> int:
        return self._documents.setdefault(text, len(self._documents))

    def _task(self, place: str, number: int, fields: Mapping[str, Any]) -> tuple[str, str]:
        """Returns the task whose documents are asked, and the task that has the instruction."""
        instruction, task = fields.get("instruction"), fields.get("task")
        if instruction is not None:
            instruction = _text(place, "instruction", instruction)
        if task is not None and task not in self._own:
            raise ConfigError(
                f"{place}: no retrieval task {task!r}.{nearest(str(task), self._own)} Tasks: {', '.join(self._own)}"
            )
        if task is None and instruction in self._by_instruction:
            task = self._by_instruction[instruction]
        if task is None and len(self._own) > 1:
            raise ConfigError(
                f'{place}: fits no task by its instruction; name one with "task". Tasks: {", ".join(self._own)}'
            )
        task = str(task or next(iter(self._own)))
        if instruction is None or instruction == _asked(self._own[task]):
            return task, task
        name = self._names.setdefault((task, instruction), f"{task}, line {number}")
        self._tasks[name] = self._own[task].model_copy(update={"query_instruction": instruction})
        return task, name


def pair_groups(pairs: Sequence[QueryPair], copies: Int64) -> Int64:
    """Returns a number per pair, (n,); pairs that share a query, or positives that are near copies, share one.

    Args:
        pairs: At least one.
        copies: A number per document that its near copies share.
    """
    groups: dict[object, int] = {}
    parents = list(range(len(pairs)))
    for number, pair in enumerate(pairs):
        for key in (pair.query, *(int(copies[place]) for place in pair.positives)):
            first, second = _root(parents, groups.setdefault(key, number)), _root(parents, number)
            parents[max(first, second)] = min(first, second)
    return np.array([_root(parents, number) for number in range(len(pairs))], np.int64)


@dataclass(frozen=True, slots=True)
class PairScore:
    """How well a fold's queries find their positives."""

    recall_at_1: Mapping[str, Estimate]
    """Of each task."""
    ndcg_at_10: Mapping[str, Estimate]
    num_queries: Mapping[str, int]
    num_documents: int
    """That each query is asked of."""

    @property
    def value(self) -> float:
        """What is compared: mean nDCG@10 of the queries."""
        total = sum(self.num_queries.values())
        return sum(found.value * self.num_queries[task] for task, found in self.ndcg_at_10.items()) / total


def score_pairs(
    encoder: LoraEncoder, data: PairTexts, rows: Int64, *, seed: int, replicates: int = 0
) -> PairScore | None:
    """Asks a fold's queries of its documents and of others; None where a vector is not finite.

    Args:
        encoder: Of the model.
        data: All pairs.
        rows: The fold's pairs.
        seed: Of the other documents.
        replicates: Resamples of the queries behind an interval.
    """
    pairs = [data.pairs[row] for row in rows.tolist()]
    places = _corpus(data, pairs, seed)
    row_of = {place: row for row, place in enumerate(places)}
    texts = [data.documents[place] for place in places]
    recall, ndcg, num_queries = {}, {}, {}
    for task in dict.fromkeys(pair.task for pair in pairs):
        of_task = [pair for pair in pairs if pair.task == task]
        documents = encoder.embed(texts, [task])[task]
        asked = np.empty((len(of_task), documents.shape[1]), np.float32)
        for prompt, chosen in _by_prompt(of_task):
            asked[chosen] = encoder.embed([of_task[number].query for number in chosen], [prompt])[prompt]
        if not (np.isfinite(documents).all() and np.isfinite(asked).all()):
            return None
        relevant = [np.array(sorted(row_of[place] for place in pair.positives), np.int64) for pair in of_task]
        resampler = Resampler(len(of_task), replicates=replicates, seed=seed)
        recall[task] = measure_retrieval(asked, documents, relevant, 1, resampler).recall
        ndcg[task] = measure_retrieval(asked, documents, relevant, K, resampler).ndcg
        num_queries[task] = len(of_task)
    return PairScore(recall, ndcg, num_queries, len(places))


def _corpus(data: PairTexts, pairs: Sequence[QueryPair], seed: int) -> list[int]:
    own = {place for pair in pairs for place in (*pair.positives, *pair.negatives)}
    others = np.setdiff1d(np.arange(len(data.documents)), sorted(own))
    drawn = np.random.default_rng([seed, 5]).permutation(others)[: max(0, MAX_DOCUMENTS - len(own))]
    return sorted([*own, *drawn.tolist()])


def _by_prompt(pairs: Sequence[QueryPair]) -> Iterator[tuple[str, list[int]]]:
    for prompt in dict.fromkeys(pair.query_prompt for pair in pairs):
        yield prompt, [number for number, pair in enumerate(pairs) if pair.query_prompt == prompt]


def _asked(task: TaskConfig) -> str | None:
    return task.query_instruction if task.query_instruction is not None else task.instruction


def _fields(place: str, line: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError:
        fields = None
    if not isinstance(fields, dict):
        raise ConfigError(f"{place}: expected a JSON object such as {_EXAMPLE}")
    for name in fields:
        if name not in _FIELDS:
            raise ConfigError(f"{place}: unknown field {name!r}.{nearest(name, _FIELDS)} Valid: {', '.join(_FIELDS)}")
    return fields


def _text(place: str, name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{place}: {name} is missing or blank; expected a text")
    return value.strip() if name == "instruction" else value


def _texts(place: str, name: str, value: object) -> list[str]:
    found = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(text, str) and text.strip() for text in found):
        raise ConfigError(f"{place}: {name}: expected a text or a list of texts, none of them blank")
    return found


def _root(parents: list[int], row: int) -> int:
    while parents[row] != row:
        parents[row] = parents[parents[row]]
        row = parents[row]
    return row
