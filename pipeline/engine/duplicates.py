"""Computes equal items once: an engine around an engine, with a bounded cache of the rows it has seen lately.

Two items are equal when pass and token ids are: then the model would see the same input. One thread.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.engine.engine import Engine, Job, Result, Rows
from pipeline.errors import BatchShapeError, RecordError, RefractError
from pipeline.records.batches import Embeddings, Float32, TokenBatch

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

    def pass_of(self, prompt: str) -> str:
        """Returns what the engine inside says."""
        return self._engine.pass_of(prompt)

    def finish(self, batch: TokenBatch, rows: Rows) -> Embeddings:
        """Returns what the engine inside makes of the rows, cached or not."""
        return self._engine.finish(batch, rows)

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
        self._passes = [[engine.pass_of(prompt) for prompt in batch.prompts] for batch in batches]
        self._keys = [_keys(batch, passes) for batch, passes in zip(batches, self._passes, strict=True)]
        self._rows: dict[bytes, Float32] = {}
        self._errors: dict[int, RefractError] = {}
        for key in dict.fromkeys(key for keys in self._keys for row in keys for key in row):
            found = cache.get(key)
            if found is not None:
                self._rows[key] = found
        self._num_items = sum(
            len(set(passes)) * batch.num_texts for batch, passes in zip(batches, self._passes, strict=True)
        )
        self._num_forward_items = 0
        claimed: set[bytes] = set()
        self._start([part for number in range(len(batches)) for part in self._missing(number, claimed)])

    @property
    def done(self) -> bool:
        """Whether every batch has its rows or its error."""
        return self._inner is None

    @property
    def num_forward_items(self) -> int:
        """Items that the engine inside has been asked for."""
        return self._num_forward_items

    @property
    def num_shared(self) -> int:
        """Items that need no computing of their own: a row of this job or an earlier one serves them too."""
        return self._num_items - self._num_forward_items

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
        return [self._errors.get(number) or self._rows_of(number) for number in range(len(self._batches))]

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
        self._num_forward_items += sum(len(part.prompts) * len(part.texts) for part in parts)
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

    def _rows_of(self, number: int) -> Rows:
        """Prompts that share a pass share an array, too."""
        if not self._batches[number].num_texts:
            return [np.empty((0, self._engine.dimension), np.float32) for _ in self._keys[number]]
        stacked: dict[str, Float32] = {}
        for name, row in zip(self._passes[number], self._keys[number], strict=True):
            if name not in stacked:
                stacked[name] = np.stack([self._rows[key] for key in row])
        return [stacked[name] for name in self._passes[number]]


def _keys(batch: TokenBatch, passes: Sequence[str]) -> list[list[bytes]]:
    """Returns a hash of pass and token ids: one list per prompt, one key per text."""
    ids = np.ascontiguousarray(batch.ids, np.int32)
    starts = batch.offsets.tolist()
    found: dict[str, list[bytes]] = {}
    for name, segments in zip(passes, batch.segments.tolist(), strict=True):
        if name in found:
            continue
        salted = hashlib.blake2b(f"{len(name)}:{name}".encode(), digest_size=_KEY_BYTES)
        found[name] = []
        for segment in segments:
            state = salted.copy()
            state.update(ids[starts[segment] : starts[segment + 1]].data)
            found[name].append(state.digest())
    return [found[name] for name in passes]


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
