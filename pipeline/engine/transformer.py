"""The engine over a transformer: packs items into groups, runs them, and survives what does not fit or overflows."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import structlog
import torch
from torch import Tensor

from pipeline.engine.batching import Indices, exact_length_groups, flat_packs, halves
from pipeline.engine.budget import TokenBudget
from pipeline.engine.engine import Engine, Job, Result, Rows
from pipeline.engine.forward import Forward, HostCopy, finish
from pipeline.engine.items import Items, assemble
from pipeline.engine.parallel import Streams
from pipeline.engine.prompts import Content
from pipeline.engine.spec import ModelSpec
from pipeline.engine.tokenizer import PromptIds
from pipeline.errors import BatchShapeError, Reason, RecordError, RefractError
from pipeline.records.batches import Bool, Embeddings, Float32, TokenBatch

log = structlog.get_logger(__name__)


class TransformerEngine(Engine):
    """One loaded model."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of a loaded model; only `pipeline.engine.build` puts them together
        self,
        spec: ModelSpec,
        prompts: Mapping[str, PromptIds],
        forward: Forward,
        budget: TokenBudget,
        facts: Mapping[str, Any],
        streams: Streams | None = None,
    ) -> None:
        self.dimension = spec.dimension
        self.spec = spec
        self.prompts = prompts
        self.forward = forward
        self.budget = budget
        self.streams = streams or Streams(1)
        self._facts = facts
        first: dict[Content, str] = {}
        self._passes = {name: first.setdefault(ids.prompt.content, name) for name, ids in prompts.items()}

    @property
    def max_batch_tokens(self) -> int:  # type: ignore[override] # moves with the budget
        """Tokens of one forward batch at present."""
        return self.budget.tokens

    def begin(self, batches: Sequence[TokenBatch], max_tokens: int | None = None) -> "TransformerJob":
        """Returns the job."""
        max_tokens = min(max_tokens or self.budget.tokens, self.budget.tokens)
        return TransformerJob(self, assemble(batches, self.prompts), max_tokens)

    def pass_of(self, prompt: str) -> str:
        """Returns the first prompt of the same content: same text around it, length, adapter and pooled part."""
        return self._passes.get(prompt, prompt)

    def finish(self, batch: TokenBatch, rows: Rows) -> Embeddings:
        """Returns the embeddings of a batch; a head takes the unit vector of the whole chain."""
        if any(self.prompts[name].prompt.head for name in batch.prompts):
            return self.streams.alone(partial(self._finish, batch, rows))
        return self._finish(batch, rows)

    def _finish(self, batch: TokenBatch, rows: Rows) -> Embeddings:
        units: dict[str, Tensor] = {}
        found = []
        for name, values in zip(batch.prompts, rows, strict=True):
            prompt = self.prompts[name].prompt
            if prompt.head is None:
                found.append(finish(values, prompt.dimension, layer_norm=self.spec.layer_norm_before_truncation))
                continue
            shared = self.pass_of(name)
            if shared not in units:
                units[shared] = self.forward.heads.unit(values)
            found.append(self.forward.heads.run(prompt.head, units[shared], prompt.dimension))
        return found

    def describe(self) -> dict[str, Any]:
        """Returns the resolved model, and what was measured at load."""
        return {
            **self._facts,
            **self.forward.describe(),
            "streams": self.streams.count,
            "max_batch_tokens": self.budget.tokens,
        }


class TransformerJob(Job):
    """Groups of items, most tokens first.

    On CUDA the rows of one group are fetched while the next one computes; on a CPU groups run beside each other.
    """

    def __init__(self, engine: TransformerEngine, items: Items, max_tokens: int) -> None:
        self._engine = engine
        self._items = items
        self._reuse = engine.forward.reuses_prefixes
        self._computed = items.computed(reuse=self._reuse)
        self._groups = self._pack(max_tokens)[::-1]
        self._running: list[tuple[Indices, HostCopy]] = []
        self._rows = np.full((len(items.lengths), engine.dimension), np.nan, np.float32)
        self._errors: dict[int, RefractError] = {}

    @property
    def done(self) -> bool:
        """Whether every item has its row or its error."""
        return not self._groups and not self._running

    @property
    def num_forward_items(self) -> int:
        """All items but those without tokens."""
        return int((self._items.lengths > 0).sum())

    def step(self) -> int:
        """Starts the next groups, then fetches the rows of those before them (CUDA) or of these (CPU)."""
        engine = self._engine
        groups = [self._next_group() for _ in range(min(engine.streams.count, len(self._groups)))]
        computed = engine.streams.run([partial(self._compute, group) for group in groups])
        started = [
            (group, rows) for group, found in zip(groups, computed, strict=True) if (rows := self._settle(group, found))
        ]
        if engine.forward.device.type == "cuda":
            started, self._running = self._running, started
        for group, rows in started:
            self._fetch(group, rows)
        return max((int(self._computed[group].sum()) for group in groups), default=0)

    def results(self) -> list[Result]:
        """Returns one result per batch: its rows, or the error of an item that fits nowhere."""
        while not self.done:
            self.step()
        return [
            self._errors[number] if number in self._errors else self._rows_of(number)
            for number in range(len(self._items.batches))
        ]

    def _pack(self, budget: int) -> list[Indices]:
        """Items of one adapter within the budget, of any lengths or of one. Empty items keep their NaN."""
        adapters = self._items.adapters()
        cut = flat_packs if self._engine.forward.flat else exact_length_groups
        groups = []
        for adapter in np.unique(adapters):
            members = np.flatnonzero((adapters == adapter) & (self._items.lengths > 0))
            members = members[np.argsort(self._items.plan[members], kind="stable")]
            lengths = self._computed[members]
            if len(members):
                max_tokens = self._engine.streams.share(int(lengths.sum()), int(lengths.max()), budget)
                groups += [members[group] for group in cut(lengths, max_tokens)]
        return groups

    def _next_group(self) -> Indices:
        """Groups packed before the budget shrank are cut down to what it is now."""
        group = self._groups.pop()
        while len(group) > 1 and int(self._computed[group].sum()) > self._engine.budget.tokens:
            group, rest = halves(group)
            self._groups.append(rest)
        return group

    def _compute(self, group: Indices) -> HostCopy:
        """Runs a group; called from several threads at a time, and changes nothing."""
        items = self._items
        return HostCopy(self._engine.forward.run(items.pack(group, reuse=self._reuse), items.adapter(group[0])))

    def _settle(self, group: Indices, computed: HostCopy | BaseException) -> HostCopy | None:
        """Counts a group. One that did not fit goes back in halves; one item that does not is its batch's error."""
        engine, num_tokens = self._engine, int(self._computed[group].sum())
        if isinstance(computed, HostCopy):
            engine.budget.succeeded(num_tokens)
            return computed
        if not _out_of_memory(computed):
            raise computed
        log.warning(
            "A forward batch did not fit in memory",
            model=engine.spec.files.name,
            num_items=len(group),
            num_tokens=num_tokens,
        )
        engine.budget.failed(num_tokens)
        if engine.forward.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(group) > 1:
            self._groups += halves(group)
        else:
            self._too_large(int(group[0]))
        return None

    def _too_large(self, item: int) -> None:
        number, num_tokens = int(self._items.batch[item]), int(self._items.lengths[item])
        detail = f"one prompt of {num_tokens} tokens does not fit in the memory of {self._engine.forward.device}"
        if self._items.batches[number].num_texts == 1:
            self._errors[number] = RecordError(Reason.TOO_LARGE_FOR_MODEL, detail)
        else:
            self._errors[number] = BatchShapeError(detail)

    def _fetch(self, group: Indices, rows: HostCopy) -> None:
        self._rows[group] = rows.numpy()
        bad = group[~_finite(self._rows[group])]
        for item in bad:
            self._alone(int(item))

    def _alone(self, item: int) -> None:
        """A row that is not finite is computed once more, alone and in float32, before it is called bad."""
        group = np.array([item])
        items = self._items
        try:
            rows = self._engine.forward.run_in_float32(items.pack(group, reuse=False), items.adapter(item))
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
            self._too_large(item)
            return
        self._rows[item] = rows.cpu().numpy()[0]
        finite = bool(_finite(self._rows[group])[0])
        log.warning(
            "A row was not finite and was computed again in float32",
            model=self._engine.spec.files.name,
            num_tokens=int(items.lengths[item]),
            finite_now=finite,
        )

    def _rows_of(self, number: int) -> Rows:
        return [self._rows[self._items.of(number, row)] for row in range(len(self._items.batches[number].prompts))]


def _finite(rows: Float32) -> Bool:
    """Returns which rows can be normalised."""
    return np.asarray(np.isfinite(rows).all(axis=1) & rows.any(axis=1), np.bool_)


def _out_of_memory(error: BaseException) -> bool:
    """CUDA has a class for it; torch's CPU allocator only a message (c10/core/impl/alloc_cpu.cpp)."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return "can't allocate memory" in str(error) or "not enough memory" in str(error)
