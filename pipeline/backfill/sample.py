"""A sample of an input: how many rows there are, what they look like, and how many tokens each task makes of them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

import numpy as np
import orjson

from pipeline.backfill.inputs import Fragment
from pipeline.backfill.rows import FragmentFault, FragmentReader
from pipeline.binding import Task
from pipeline.config.pipeline import Config
from pipeline.context import Context
from pipeline.engine.items import assemble
from pipeline.engine.tokenizer import PromptTokenizer
from pipeline.interfaces import Progress, Tokenizer
from pipeline.records.files.listing import FilePart
from pipeline.records.files.row_counts import count_rows, is_broken
from pipeline.records.record import Delivery, Record

NUM_PLACES = 16
"""Places in the input at which rows are taken, evenly spread: files are often sorted."""

MAX_SKIPPED_ROWS = 200_000
"""Rows of one fragment that are read over to reach a place in it; skipping costs time."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much input there is."""

    num_files: int
    """Kafka partitions count as one each."""
    num_bytes: int
    """Of files."""
    rows: Sequence[float]
    """By fragment."""
    exact: bool
    """Whether the rows are counted; else they are estimated from bytes, or are offsets, at most so many records."""

    @property
    def num_rows(self) -> int:
        """Rows of all fragments."""
        return round(sum(self.rows))


@dataclass(slots=True)
class Sample:
    """What the rows taken look like."""

    num_rows: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    """Rows that can never be stored, by reason."""
    records: list[Record] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """Fragments that cannot be read, and why."""
    unresolved_paths: Sequence[str] = ()
    """Paths of the topic's configuration that no row taken had."""
    tokens: Mapping[str, "Tokens"] = field(default_factory=dict)
    """By task; empty where the sample has no text."""

    @property
    def texts(self) -> list[str]:
        """Texts of the records that are not deletes."""
        return [record.text for record in self.records if record.text is not None]

    @property
    def stored_share(self) -> float:
        """Share of the rows that become embeddings."""
        return len(self.texts) / self.num_rows if self.num_rows else 0.0

    @property
    def duplicate_texts(self) -> float:
        """Share of the texts that an earlier one of the sample equals. The whole input has more, not fewer."""
        return _repeated(self.texts)

    @property
    def duplicate_keys(self) -> float:
        """The same of the keys of all records."""
        return _repeated([record.key for record in self.records])

    @property
    def payload_bytes(self) -> float:
        """Mean size of a payload as JSON."""
        sizes = [len(orjson.dumps(record.payload, default=str)) for record in self.records if not record.deleted]
        return float(np.mean(sizes)) if sizes else 0.0


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of one task's prompts: means over the sampled texts."""

    prompt: float
    """Of the whole prompt, after truncation."""
    instruction: float
    """Of them, those that every prompt of the task has: instruction, template and special tokens; 0 where a prompt is
    tokenised whole."""
    reusable: float
    """Of them, those in front of the text, which a model that reads from left to right may compute once."""
    truncated_share: float
    """Share of the texts that are cut."""
    num_sharing: int = 1
    """Tasks whose prompts are equal, this one counted: a text goes through the model once for all of them."""


def measure_size(fragments: Sequence[Fragment]) -> Size:
    """Counts the rows by footers, and estimates them by bytes where there are none; 0 of what cannot be read."""
    parts = [fragment for fragment in fragments if isinstance(fragment, FilePart)]
    counted = count_rows(parts)
    rows = dict(zip((part.name for part in parts), counted.rows, strict=True))
    ranges = [fragment for fragment in fragments if not isinstance(fragment, FilePart)]
    files = {part.uri: part.size for part in parts}
    return Size(
        num_files=len(files) + len({(found.uri, found.part) for found in ranges}),
        num_bytes=sum(files.values()),
        rows=[rows.get(fragment.name, fragment.size) for fragment in fragments],
        exact=counted.exact and not ranges,
    )


def take_sample(
    parts: Sequence[tuple[Fragment, float]], topic: str, config: Config, num_rows: int, step: Progress
) -> Sample:
    """Returns about so many rows from places spread over the input; all of them where there are no more.

    `parts` are the fragments, each with its number of rows.
    """
    broken = [found.uri for found, _ in parts if isinstance(found, FilePart) and is_broken(found)]
    sample = Sample(faults=[f"{uri}: damaged, or cut short; it is in no figure here" for uri in broken])
    places = spread([rows for _, rows in parts], num_rows)
    reader = FragmentReader(config, topic)
    for number, (index, start, count) in enumerate(places):
        step("sampling", number, len(places))
        fragment, _ = parts[index]
        begin = start + fragment.begin
        try:
            rows = chain.from_iterable(reader.batches(fragment, begin))
            for delivery in islice(rows, count):
                _add(sample, delivery)
        except FragmentFault as error:
            sample.faults.append(str(error))
    resolved = reader.resolved
    sample.unresolved_paths = [path for path in config.source.topics[topic].watched_paths if path not in resolved]
    return sample


def spread(rows: Sequence[float], wanted: int) -> list[tuple[int, int, int]]:
    """Returns (fragment, first row, rows to take) of every place."""
    total = sum(rows)
    if total <= wanted:
        return [(index, 0, wanted) for index, count in enumerate(rows) if count]
    ends = np.cumsum(rows)
    count = -(-wanted // NUM_PLACES)
    places = []
    for place in (np.arange(NUM_PLACES) + 0.5) * total / NUM_PLACES:
        index = int(np.searchsorted(ends, place, side="right"))
        start = int(place - (ends[index] - rows[index]))
        latest = max(int(rows[index]) - count, 0)
        places.append((index, min(start, latest, MAX_SKIPPED_ROWS), count))
    return list(dict.fromkeys(places))


def count_tokens(tokenizer: Tokenizer, texts: Sequence[str], prompts: Sequence[str]) -> list[Tokens]:
    """Returns the tokens of each prompt around the texts, of which there is at least one."""
    batch = tokenizer.encode(texts, prompts)
    shape = batch.segments.shape
    if isinstance(tokenizer, PromptTokenizer):
        items = assemble([batch], tokenizer.prompts)
        lengths, computed = (
            np.stack([values[items.of(0, row)] for row in range(len(prompts))])
            for values in (items.lengths, items.computed(reuse=True))
        )
        reusable = lengths - computed
        plans = [tokenizer.prompts[name] for name in prompts]
        instructions = [len(plan.prefix) + len(plan.suffix) for plan in plans]
        contents = [plan.prompt.content for plan in plans]
        sharing = [contents.count(content) for content in contents]
    else:
        lengths = batch.offsets[batch.segments + 1] - batch.offsets[batch.segments]
        reusable = np.zeros(shape, np.int64)
        instructions, sharing = [0] * len(prompts), [1] * len(prompts)
    return [
        Tokens(float(row.mean()), float(instruction), float(shared.mean()), float((cut > 0).mean()), count)
        for row, instruction, shared, cut, count in zip(
            lengths, instructions, reusable, batch.truncated, sharing, strict=True
        )
    ]


def prompt_tokens(context: Context, tasks: Iterable[Task], texts: Sequence[str]) -> dict[str, Tokens]:
    """Returns the tokens of each task's prompts around the texts; nothing without texts."""
    prompts: dict[str, list[str]] = {}
    for task in tasks:
        prompts.setdefault(task.config.model, []).append(task.prompt)
    found: dict[str, Tokens] = {}
    if texts:
        for model, tokenizer in context.tokenizers(prompts).items():
            found |= zip(prompts[model], count_tokens(tokenizer, texts, prompts[model]), strict=True)
    return found


def _add(sample: Sample, delivery: Delivery) -> None:
    sample.num_rows += 1
    if delivery.record is None:
        sample.bad[str(delivery.error)] += 1
    else:
        sample.records.append(delivery.record)


def _repeated(values: Sequence[str]) -> float:
    return 1 - len(set(values)) / len(values) if values else 0.0
