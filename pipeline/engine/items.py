"""Token batches to items: one per text and distinct prompt, with where its ids lie and how long it gets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.engine.layout import Pack
from pipeline.engine.prompts import Content
from pipeline.engine.tokenizer import PromptIds
from pipeline.errors import ConfigError, nearest
from pipeline.records.batches import Int32, Int64, TokenBatch

Indices = npt.NDArray[np.intp]

_FEWEST_REUSED = 8
"""Below this, gathering an instruction's keys and values costs what computing it does."""


@dataclass(frozen=True, slots=True)
class Items:
    """All items of some token batches, as aligned arrays of length num_items.

    An item is one pass of one text through the model, for all prompts of a batch that are equal in content. Items of
    one batch stand together: prompt by prompt, text by text.
    """

    batches: Sequence[TokenBatch]
    plans: Sequence[PromptIds]
    """Prompts that differ in content; `plan` indexes it."""
    batch: Int32
    plan: Int32
    start: Int64
    """Where the text's ids begin in its batch."""
    kept: Int32
    """How many of them fit."""
    lengths: Int32
    """Prefix, text and suffix together."""
    first: Sequence[Sequence[int]]
    """Per batch and prompt: the item of its first text. Prompts that share a pass have the same."""

    def of(self, number: int, row: int) -> slice:
        """Returns the items of a batch's texts under its prompt number `row`, in order of the texts."""
        first = self.first[number][row]
        return slice(first, first + self.batches[number].num_texts)

    def computed(self, *, reuse: bool) -> Int32:
        """Returns how many tokens each item costs.

        Args:
            reuse: Whether keys and values of the instructions in front are computed once for all items.
        """
        return self.lengths - self._reusable()[self.plan] if reuse else self.lengths

    def pack(self, group: Indices, *, reuse: bool) -> Pack:
        """Returns the items of a group as one forward batch, in its order."""
        plan_of = self.plan[group]
        reusable = self._reusable() if reuse else np.zeros(len(self.plans), np.int32)
        parts: list[Int32] = []
        for item, number in zip(group.tolist(), plan_of.tolist(), strict=True):
            plan = self.plans[number]
            start = int(self.start[item])
            parts.append(plan.prefix[reusable[number] :])
            parts.append(self.batches[self.batch[item]].ids[start : start + int(self.kept[item])])
            parts.append(plan.suffix)
        lengths = self.lengths[group] - reusable[plan_of]
        excluded = np.array([plan.excluded for plan in self.plans], np.int32)[plan_of]
        if not reusable[plan_of].any():
            return Pack(np.concatenate(parts), lengths, excluded)
        used, prefix = np.unique(plan_of, return_inverse=True)
        prefixes = tuple(self.plans[number].prefix[: reusable[number]] for number in used)
        return Pack(np.concatenate(parts), lengths, excluded, prefixes, prefix.astype(np.int32))

    def _reusable(self) -> Int32:
        """Per plan: leading ids that every item of it has. At least one id of an item must be left to compute."""
        counts = [len(plan.prefix) - (len(plan.suffix) == 0) for plan in self.plans]
        return np.array([count if count >= _FEWEST_REUSED else 0 for count in counts], np.int32)

    def adapters(self) -> Int32:
        """Returns a number per item; items of one number share an adapter."""
        names = [plan.prompt.content.adapter for plan in self.plans]
        return np.array([names.index(name) for name in names], np.int32)[self.plan]

    def adapter(self, item: int) -> str | None:
        """Returns the adapter of an item."""
        return self.plans[int(self.plan[item])].prompt.content.adapter


def assemble(batches: Sequence[TokenBatch], prompts: Mapping[str, PromptIds]) -> Items:
    """Lists the items of all batches. Raises ConfigError for a prompt nobody knows."""
    plans: list[PromptIds] = []
    index: dict[Content, int] = {}
    columns: list[tuple[Int32, Int32, Int64, Int32, Int32]] = []
    first: list[list[int]] = []
    num_items = 0
    for number, batch in enumerate(batches):
        first_of: dict[Content, int] = {}
        for row, name in enumerate(batch.prompts):
            if name not in prompts:
                raise ConfigError(f"no prompt {name!r} here.{nearest(name, prompts)} Known: {', '.join(prompts)}")
            content = prompts[name].prompt.content
            if content not in index:
                index[content] = len(plans)
                plans.append(prompts[name])
            if content not in first_of:
                first_of[content] = num_items
                columns.append(_columns(batch, number, row, index[content], prompts[name]))
                num_items += batch.num_texts
        first.append([first_of[prompts[name].prompt.content] for name in batch.prompts])
    if not columns:
        empty = np.empty(0, np.int32)
        return Items(batches, plans, empty, empty, np.empty(0, np.int64), empty, empty, first)
    batch_of, plan_of, start, kept, lengths = (np.concatenate(column) for column in zip(*columns, strict=True))
    return Items(batches, plans, batch_of, plan_of, start, kept, lengths, first)


def _columns(
    batch: TokenBatch, number: int, row: int, plan: int, ids: PromptIds
) -> tuple[Int32, Int32, Int64, Int32, Int32]:
    segments = batch.segments[row]
    start = batch.offsets[segments]
    kept = np.minimum(batch.offsets[segments + 1] - start, ids.room).astype(np.int32)
    constant = np.ones(batch.num_texts, np.int32)
    return constant * number, constant * plan, start, kept, kept + np.int32(len(ids.prefix) + len(ids.suffix))
