"""Texts and prompts to token batches: each text once, however many prompts it gets. No torch in here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from pipeline.config.model import TaskConfig
from pipeline.engine.hf_tokenizer import RawTokenizer, open_tokenizer
from pipeline.engine.joins import Cut, Join, Joiner
from pipeline.engine.prompts import Content, Prompt, build_prompts
from pipeline.engine.spec import ModelSpec
from pipeline.errors import ConfigError, nearest
from pipeline.records.batches import Int32, TokenBatch


@dataclass(frozen=True, slots=True)
class PromptIds:
    """One prompt as the engine assembles it: `prefix + text ids + suffix`."""

    prefix: Int32
    """Special tokens and what stands before the text; empty where the prompt is tokenised whole."""
    suffix: Int32
    """What stands after the text, and the end token."""
    room: int
    """Most ids of a run of this prompt."""
    excluded: int
    """How many leading ids stay out of the pooling."""
    prompt: Prompt
    cut: Cut | None


class PromptTokenizer:
    """A model's tokenizer with the prompts of its tasks. Thread-safe: nothing changes after construction."""

    def __init__(self, spec: ModelSpec, tasks: Mapping[str, TaskConfig]) -> None:
        self._spec = spec
        self._raw = open_tokenizer(spec)
        self.prompts = _plan(spec, self._raw, build_prompts(spec, tasks), self._prepare)

    @property
    def whole_prompts(self) -> list[str]:
        """Names of prompts for which no cut could be proven."""
        return [name for name, ids in self.prompts.items() if ids.cut is None]

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """Special ids after every prompt."""
        return self._raw.last

    def encode(self, texts: Sequence[str], prompts: Sequence[str]) -> TokenBatch:
        """Tokenises every text once per way of cutting, and counts what will not fit. Equal prompts share their runs.

        Raises ConfigError for an unknown prompt name.
        """
        plans = [self._plan_of(name) for name in prompts]
        prepared = [self._prepare(text) for text in texts]
        runs: list[list[int]] = []
        first_run: dict[Cut, int] = {}
        first_row: dict[Content, int] = {}
        segments = np.empty((len(plans), len(texts)), np.int32)
        truncated = np.zeros((len(plans), len(texts)), np.int32)
        for row, plan in enumerate(plans):
            same = first_row.setdefault(plan.prompt.content, row)
            if same < row:
                segments[row], truncated[row] = segments[same], truncated[same]
                continue
            if plan.cut is None:
                new, truncated[row] = self._whole_runs(plan, prepared)
                segments[row] = np.arange(len(runs), len(runs) + len(texts))
                runs += new
                continue
            if plan.cut not in first_run:
                first_run[plan.cut] = len(runs)
                runs += self._runs(plan.cut, prepared)
            start = first_run[plan.cut]
            segments[row] = np.arange(start, start + len(texts))
            lengths = np.fromiter(map(len, runs[start : start + len(texts)]), np.int32, len(texts))
            truncated[row] = np.maximum(lengths - plan.room, 0)
        self._shorten(runs, first_run, plans, len(texts))
        offsets = np.zeros(len(runs) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, runs), np.int64, len(runs)), out=offsets[1:])
        ids = np.fromiter(chain.from_iterable(runs), np.int32, int(offsets[-1]))
        whole = tuple(plan.cut is None for plan in plans)
        return TokenBatch(tuple(prompts), ids, offsets, segments, truncated, whole)

    def show(self, prompt: str, text: str) -> tuple[str, list[int]]:
        """Returns the exact prompt of one text before truncation, and the ids the model gets after it."""
        plan = self._plan_of(prompt)
        batch = self.encode([text], [prompt])
        ids = np.concatenate([plan.prefix, batch.ids[: plan.room], plan.suffix])
        return self._compose(plan.prompt.content, self._prepare(text)), ids.tolist()

    def _plan_of(self, name: str) -> PromptIds:
        plan = self.prompts.get(name)
        if plan is None:
            raise ConfigError(
                f"no prompt {name!r} for {self._spec.files.name}.{nearest(name, self.prompts)} "
                f"Known: {', '.join(self.prompts)}"
            )
        return plan

    def _prepare(self, text: str) -> str:
        if self._spec.strip_text:
            text = text.strip()
        return text.lower() if self._spec.lowercase else text

    def _compose(self, content: Content, prepared: str) -> str:
        return self._lowered(content.before) + prepared + self._lowered(content.after)

    def _lowered(self, part: str) -> str:
        return part.lower() if self._spec.lowercase else part

    def _runs(self, cut: Cut, prepared: list[str]) -> list[list[int]]:
        before = cut.anchor + cut.left
        texts = [before + text + cut.right for text in prepared] if before or cut.right else prepared
        encodings = self._raw.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        if cut.num_anchor_ids:
            return [encoding.ids[cut.num_anchor_ids :] for encoding in encodings]
        return [encoding.ids for encoding in encodings]

    def _whole_runs(self, plan: PromptIds, prepared: list[str]) -> tuple[list[list[int]], Int32]:
        """Whole prompts with their special tokens, the text cut where they are too long."""
        content = plan.prompt.content
        texts = [self._compose(content, text) for text in prepared]
        first, last = self._raw.first, self._raw.last
        room = plan.room - len(first) - len(last)
        runs, cut_off = [], np.zeros(len(texts), np.int32)
        for i, encoding in enumerate(self._raw.tokenizer.encode_batch(texts, add_special_tokens=False)):
            ids: list[int] = encoding.ids
            if len(ids) > room:
                after_at = len(texts[i]) - len(content.after)
                num_after = sum(start >= after_at for start, _ in encoding.offsets) if content.after else 0
                cut_off[i] = len(ids) - room
                ids = ids[: room - num_after] + ids[len(ids) - num_after :]
            runs.append([*first, *ids, *last])
        return runs, cut_off

    @staticmethod
    def _shorten(runs: list[list[int]], first_run: Mapping[Cut, int], plans: list[PromptIds], num_texts: int) -> None:
        """Shared runs keep what the roomiest of their prompts can take; the engine cuts the rest per prompt."""
        for cut, start in first_run.items():
            room = max(plan.room for plan in plans if plan.cut == cut)
            for i in range(start, start + num_texts):
                if len(runs[i]) > room:
                    del runs[i][room:]


def _plan(
    spec: ModelSpec, raw: RawTokenizer, prompts: Mapping[str, Prompt], prepare: Callable[[str], str]
) -> dict[str, PromptIds]:
    joiner = Joiner(raw)
    joins: dict[tuple[str, str], Join] = {}
    plans: dict[str, PromptIds] = {}
    for name, prompt in prompts.items():
        content = prompt.content
        before, after = (part.lower() if spec.lowercase else part for part in (content.before, content.after))
        if (before, after) not in joins:
            joins[before, after] = joiner.join(before, after, prepare)
        join = joins[before, after]
        excluded = _excluded(spec, raw, content.excluded)
        if join.cut is None:
            needed = len(raw.first) + len(raw.ids(before + after)) + len(raw.last)
            plan = PromptIds(np.empty(0, np.int32), np.empty(0, np.int32), content.max_length, excluded, prompt, None)
        else:
            prefix = np.array([*raw.first, *join.head], np.int32)
            suffix = np.array([*join.tail, *raw.last], np.int32)
            needed = len(prefix) + len(suffix)
            plan = PromptIds(prefix, suffix, content.max_length - needed, excluded, prompt, join.cut)
        if needed >= content.max_length:
            raise ConfigError(
                f"tasks.{name.partition(':')[0]}: its instruction takes {needed} tokens of {content.max_length}; no "
                "text fits beside it, and an instruction is never cut. Shorten it or raise max_tokens"
            )
        plans[name] = plan
    return plans


def _excluded(spec: ModelSpec, raw: RawTokenizer, instruction: str) -> int:
    """Counts as the authors do: the instruction tokenised alone, its end token not counted.

    InstructorEmbedding 1.0.1 masks nothing when that has at most one token.
    """
    if not instruction:
        return 0
    count = len(raw.first) + len(raw.ids(instruction.lower() if spec.lowercase else instruction))
    return 0 if spec.strip_text and count <= 1 else count
