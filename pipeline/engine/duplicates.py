"""Computes equal items once: an engine around an engine, with a bounded cache of the rows it has seen lately.

Two items are equal when prompt and token ids are: then the model would see the same input. One thread.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.engine.engine import Engine, Job, Result
from pipeline.errors import BatchShapeError, RecordError, RefractError
from pipeline.records.batches import Float32, TokenBatch

_KEY_BYTES = 16
"""Of BLAKE2b: among a billion rows, two that differ meet with a probability of 1e-21."""


class RowCache:
    """The rows used last, by content; least recently used leaves first."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._rows: OrderedDict[bytes, Float32] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: bytes) -> Float32 | None:
        """Returns the row, which nobody may change, and counts as its use."""
        row = self._rows.get(key)
        if row is not None:
            self._rows.move_to_end(key)
        return row

    def put(self, key: bytes, row: Float32) -> None:
        """Keeps a copy: a view would hold on to the whole batch it came from."""
        self._rows[key] = row.copy()
        self._rows.move_to_end(key)
        if len(self._rows) > self._capacity:
            self._rows.popitem(last=False)


class DeduplicatingEngine(Engine):
    """Asks the engine inside for what it has not seen; everything else is as there."""

    def __init__(self, engine: Engine, cache_rows: int) -> None:
        self._engine = engine
        self._cache = RowCache(cache_rows)
        self.dimension = engine.dimension

    @property
    def max_batch_tokens(self) -> int:  # type: ignore[override] # moves with the engine's budget
        """Tokens of one forward batch at present."""
        return self._engine.max_batch_tokens

    def begin(self, batches: Sequence[TokenBatch], max_tokens: int | None = None) -> "DeduplicatedJob":
        """Returns a job that computes every item once that is not in the cache."""
        return DeduplicatedJob(self._engine, self._cache, batches, max_tokens)

    def describe(self) -> dict[str, Any]:
        """Returns what the engine inside says, and how full the cache is."""
        return {**self._engine.describe(), "cached_rows": len(self._cache)}


class _Part(NamedTuple):
    """What has to be computed of one batch: some texts under some prompts."""

    number: int
    prompts: tuple[int, ...]
    texts: list[int]


class DeduplicatedJob(Job):
    """Each distinct item is computed for the first batch that has it.

    When that batch fails, those that waited for its rows are computed by themselves: an error is
    about one batch, and nobody else may hear of it. Only finite rows of finished batches are cached.
    """

    def __init__(
        self, engine: Engine, cache: RowCache, batches: Sequence[TokenBatch], max_tokens: int | None = None
    ) -> None:
        self._engine = engine
        self._max_tokens = max_tokens
        self._cache = cache
        self._batches = batches
        self._keys = [_keys(batch) for batch in batches]
        self._rows: dict[bytes, Float32] = {}
        self._errors: dict[int, RefractError] = {}
        items = [key for keys in self._keys for row in keys for key in row]
        for key in dict.fromkeys(items):
            found = cache.get(key)
            if found is not None:
                self._rows[key] = found
        self.num_shared = len(items)
        """Items that need no computing of their own: a row of this job or an earlier one serves them too."""
        claimed: set[bytes] = set()
        self._start([part for number in range(len(batches)) for part in self._missing(number, claimed)])

    @property
    def done(self) -> bool:
        """Whether every batch has its rows or its error."""
        return self._inner is None

    def step(self) -> int:
        """Computes one forward batch of the engine inside."""
        if self._inner is None:
            return 0
        num_tokens = self._inner.step()
        if self._inner.done:
            self._gather(self._inner.results())
        return num_tokens

    def results(self) -> list[Result]:
        """Returns one result per batch."""
        while not self.done:
            self.step()
        return [self._errors.get(number) or self._embeddings(number) for number in range(len(self._batches))]

    def _missing(self, number: int, claimed: set[bytes]) -> Iterable[_Part]:
        """Items of a batch that neither the cache nor `claimed` has; texts that miss the same prompts together."""
        texts_of: dict[tuple[int, ...], list[int]] = {}
        for text in range(self._batches[number].num_texts):
            prompts = []
            for prompt, row in enumerate(self._keys[number]):
                if row[text] not in self._rows and row[text] not in claimed:
                    claimed.add(row[text])
                    prompts.append(prompt)
            if prompts:
                texts_of.setdefault(tuple(prompts), []).append(text)
        return [_Part(number, prompts, texts) for prompts, texts in texts_of.items()]

    def _start(self, parts: Sequence[_Part]) -> None:
        self._parts = parts
        self.num_shared -= sum(len(part.prompts) * len(part.texts) for part in parts)
        cut = [_cut(self._batches[part.number], part.prompts, part.texts) for part in parts]
        self._inner = self._engine.begin(cut, self._max_tokens) if cut else None

    def _gather(self, results: Sequence[Result]) -> None:
        for part, result in zip(self._parts, results, strict=True):
            if isinstance(result, RefractError):
                self._errors[part.number] = _about(self._batches[part.number], result)
                continue
            for prompt, rows in zip(part.prompts, result, strict=True):
                keys = self._keys[part.number][prompt]
                finite = np.asarray(np.isfinite(rows).all(axis=1), np.bool_)
                for i, text in enumerate(part.texts):
                    self._rows[keys[text]] = rows[i]
                    if finite[i]:
                        self._cache.put(keys[text], rows[i])
        waiting = [number for number in range(len(self._batches)) if number not in self._errors]
        self._start([part for number in waiting for part in self._missing(number, set())])

    def _embeddings(self, number: int) -> list[Float32]:
        if not self._batches[number].num_texts:
            return [np.empty((0, self._engine.dimension), np.float32) for _ in self._keys[number]]
        return [np.stack([self._rows[key] for key in row]) for row in self._keys[number]]


def _keys(batch: TokenBatch) -> list[list[bytes]]:
    """Returns a hash of prompt name and token ids: one list per prompt, one key per text."""
    ids = np.ascontiguousarray(batch.ids, np.int32)
    starts = batch.offsets.tolist()
    found = []
    for name, segments in zip(batch.prompts, batch.segments.tolist(), strict=True):
        salted = hashlib.blake2b(f"{len(name)}:{name}".encode(), digest_size=_KEY_BYTES)
        row = []
        for segment in segments:
            state = salted.copy()
            state.update(ids[starts[segment] : starts[segment + 1]].data)
            row.append(state.digest())
        found.append(row)
    return found


def _cut(batch: TokenBatch, prompts: Sequence[int], texts: Sequence[int]) -> TokenBatch:
    """Returns some texts under some prompts; the ids are shared, not copied."""
    chosen = np.ix_(prompts, texts)
    return TokenBatch(
        tuple(batch.prompts[prompt] for prompt in prompts),
        batch.ids,
        batch.offsets,
        batch.segments[chosen],
        batch.truncated[chosen],
        tuple(batch.whole[prompt] for prompt in prompts) if batch.whole else (),
    )


def _about(batch: TokenBatch, error: RefractError) -> RefractError:
    """Returns an error of a part as one of the whole batch: one bad text among several is found by halving."""
    if isinstance(error, RecordError) and batch.num_texts > 1:
        return BatchShapeError(str(error))
    return error
