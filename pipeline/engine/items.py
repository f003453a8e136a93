"""Token batches to items: one item per (text, prompt), with where its ids lie and how long it gets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.engine.tokenizer import PromptIds
from pipeline.errors import ConfigError, nearest
from pipeline.records import Int32, Int64, TokenBatch

Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Items:
    """All items of some token batches, as aligned arrays of length num_items.

    Items of one batch stand together: prompt by prompt, text by text, as its embeddings are laid out.
    """

    batches: Sequence[TokenBatch]
    plans: Sequence[PromptIds]
    """Distinct prompts; `plan` indexes it."""
    batch: Int32
    plan: Int32
    start: Int64
    """Where the text's ids begin in its batch."""
    kept: Int32
    """How many of them fit."""
    lengths: Int32
    """Prefix, text and suffix together."""
    rows: Sequence[tuple[int, int]]
    """Per batch: its first item, and its number of items."""

    def ids(self, group: Indices) -> Int32:
        """Returns the ids of items of one length as a (len(group), length) array."""
        out = np.empty((len(group), int(self.lengths[group[0]])), np.int32)
        for row, item in enumerate(group):
            plan = self.plans[self.plan[item]]
            head = len(plan.prefix)
            kept, start = int(self.kept[item]), int(self.start[item])
            out[row, :head] = plan.prefix
            out[row, head : head + kept] = self.batches[self.batch[item]].ids[start : start + kept]
            out[row, head + kept :] = plan.suffix
        return out

    def excluded(self, group: Indices) -> Int32:
        """Returns how many leading ids of each item stay out of the pooling."""
        return np.array([plan.excluded for plan in self.plans], np.int32)[self.plan[group]]

    def adapters(self) -> Int32:
        """Returns a number per item; items of one number share an adapter."""
        names = [plan.prompt.adapter for plan in self.plans]
        return np.array([names.index(name) for name in names], np.int32)[self.plan]

    def adapter(self, item: int) -> str | None:
        """Returns the adapter of an item."""
        return self.plans[int(self.plan[item])].prompt.adapter


def assemble(batches: Sequence[TokenBatch], prompts: Mapping[str, PromptIds]) -> Items:
    """Lists the items of all batches. Raises ConfigError for a prompt nobody knows."""
    plans: list[PromptIds] = []
    index: dict[str, int] = {}
    columns: list[tuple[Int32, Int32, Int64, Int32, Int32]] = []
    rows, first = [], 0
    for number, batch in enumerate(batches):
        for row, name in enumerate(batch.prompts):
            if name not in prompts:
                raise ConfigError(f"no prompt {name!r} here.{nearest(name, prompts)} Known: {', '.join(prompts)}")
            if name not in index:
                index[name] = len(plans)
                plans.append(prompts[name])
            columns.append(_columns(batch, number, row, index[name], prompts[name]))
        count = batch.num_texts * len(batch.prompts)
        rows.append((first, count))
        first += count
    if not columns:
        none = np.empty(0, np.int32)
        return Items(batches, plans, none, none, np.empty(0, np.int64), none, none, rows)
    batch_of, plan_of, start, kept, lengths = (np.concatenate(column) for column in zip(*columns, strict=True))
    return Items(batches, plans, batch_of, plan_of, start, kept, lengths, rows)


def _columns(
    batch: TokenBatch, number: int, row: int, plan: int, ids: PromptIds
) -> tuple[Int32, Int32, Int64, Int32, Int32]:
    segments = batch.segments[row]
    start = batch.offsets[segments]
    kept = np.minimum(batch.offsets[segments + 1] - start, ids.room).astype(np.int32)
    constant = np.ones(batch.num_texts, np.int32)
    return constant * number, constant * plan, start, kept, kept + np.int32(len(ids.prefix) + len(ids.suffix))
