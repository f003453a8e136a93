"""Labelled records for an evaluation: a sample of the rows that the backfill reads, each distinct text once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import orjson

from pipeline.backfill.inputs import Fragment, Inputs, list_inputs
from pipeline.backfill.rows import FragmentReader, check_key
from pipeline.config.payload_fields import PayloadField
from pipeline.config.pipeline import Config
from pipeline.config.source import TopicConfig
from pipeline.errors import ConfigError, Reason, RefractError, nearest
from pipeline.interfaces import Progress
from pipeline.quality.evaluation import EvaluatedRows
from pipeline.quality.labels import Label, label_text, make_label
from pipeline.quality.sampling import KeySample, distinct_texts
from pipeline.records.files.folders import hive_columns
from pipeline.records.files.listing import FilePart
from pipeline.records.files.reader import read_rows
from pipeline.records.files.reading import Reading
from pipeline.records.files.schema import check_columns, columns_of
from pipeline.records.record import Record

_LABEL = "_label."
"""Labels travel in the payload of the records read, under names that no configuration can give."""

_REPORT_ROWS = 5_000


@dataclass(frozen=True, slots=True)
class LabelledInput:
    """Rows with labels."""

    topic: str
    """Whose rules the rows follow."""
    inputs: Sequence[str]
    """Files, folders, globs or Kafka ranges, as of a backfill."""
    columns: Sequence[str]
    """Paths of the labels."""


@dataclass(frozen=True, slots=True)
class Draw:
    """Which records an evaluation looks at."""

    max_texts: int
    seed: int
    always: Sequence[str] = ()
    """Keys kept in any case."""


@dataclass(frozen=True, slots=True)
class Material:
    """Records to evaluate with; lists are aligned."""

    keys: Sequence[str]
    texts: Sequence[str]
    """Empty where only vectors are known."""
    labels: Mapping[str, Sequence[str | None]]
    """Values of each label column."""
    contradicted: Mapping[str, int]
    """Texts of each label that another record gives another value."""
    rows: EvaluatedRows
    places: Mapping[str, int] = field(default_factory=dict)
    """Place of the text of every record that was kept, by key; equal texts share one."""

    def make_labels(self) -> list[Label]:
        """Returns the labels. Raises ConfigError for one that cannot be measured."""
        return [make_label(name, values) for name, values in self.labels.items()]

    def take(self, rows: Sequence[int]) -> "Material":
        """Returns the given texts, the others counted as refused."""
        moved = {row: place for place, row in enumerate(rows)}
        num_left_out = self.rows.num_texts - len(rows)
        return replace(
            self,
            keys=[self.keys[row] for row in rows],
            texts=[self.texts[row] for row in rows],
            labels={name: [values[row] for row in rows] for name, values in self.labels.items()},
            rows=replace(self.rows, num_texts=len(rows), num_refused=self.rows.num_refused + num_left_out),
            places={key: moved[place] for key, place in self.places.items() if place in moved},
        )


class _Row(NamedTuple):
    key: str
    text: str
    labels: Mapping[str, str | None]


def read_labelled(config: Config, source: LabelledInput, draw: Draw, progress: Progress) -> Material:
    """Returns the newest live records of files or Kafka ranges, read by their topic's rules.

    Args:
        config: The pipeline's.
        source: What to read.
        draw: How many records, and which.
        progress: Hears how many rows are read.

    Raises:
        ConfigError: An input does not match, a label column is missing or cannot be one.
        RefractError: No row makes a record, or a file cannot be read to its end.
    """
    settings = config.source.topics[source.topic]
    found = list_inputs(source.inputs, config)
    if found.parts:
        check_key(source.topic, settings)
        check_columns(found.parts, settings)
    reading = _Reading(config, source, draw)
    for fragment in found.fragments:
        reading.add(fragment, progress)
    return reading.material(found)


class _Reading:
    """Takes one fragment after another into the draw."""

    def __init__(self, config: Config, source: LabelledInput, draw: Draw) -> None:
        self._config = config
        self._columns = source.columns
        self._draw = draw
        self._reader = FragmentReader(_with_labels(config, source), source.topic)
        topic = config.source.topics[source.topic]
        kind = "c" if len(topic.key_paths) > 1 else "i" if topic.key_types == ("integer",) else "s"
        always = [f"{kind}:{key}".encode() for key in draw.always]
        self._sample: KeySample[_Row] = KeySample(draw.max_texts, seed=draw.seed, always=always)
        self._found: set[str] = set()
        """Columns that some row has."""
        self._num_rows = self._num_refused = self._num_empty = 0

    def add(self, fragment: Fragment, progress: Progress) -> None:
        for batch in self._reader.batches(fragment):
            for delivery in batch:
                if delivery.record is None:
                    self._num_refused += 1
                    self._num_empty += delivery.error is Reason.TEXT_EMPTY
                else:
                    self._offer(delivery.record)
            before, self._num_rows = self._num_rows, self._num_rows + len(batch)
            if before // _REPORT_ROWS < self._num_rows // _REPORT_ROWS:
                progress("reading rows", self._num_rows, 0)

    def _offer(self, record: Record) -> None:
        row = None if record.text is None else _Row(_bare(record.key), record.text, self._labels(record))
        self._sample.offer(record.key.encode(), record.version, row)

    def _labels(self, record: Record) -> dict[str, str | None]:
        self._found.update(name for name in self._columns if _LABEL + name in record.payload)
        return {name: label_text(record.payload.get(_LABEL + name), f"label column {name!r}") for name in self._columns}

    def material(self, inputs: Inputs) -> Material:
        kept = self._sample.contents()
        if not kept:
            raise RefractError(f"no row of the input makes a record ({self._num_rows:,} rows); nothing to evaluate")
        for name in self._columns:
            if name not in self._found:
                raise ConfigError(_missing(name, inputs, self._config))
        texts = [row.text for row in kept]
        distinct = distinct_texts(texts, {name: [row.labels[name] for row in kept] for name in self._columns})
        places = {text: place for place, text in enumerate(texts[row] for row in distinct.rows)}
        counts = EvaluatedRows(
            num_read=self._num_rows,
            num_texts=len(distinct.rows),
            is_whole=self._sample.is_whole,
            seed=self._draw.seed,
            num_refused=self._num_refused,
            num_empty=self._num_empty,
            num_equal=len(kept) - len(distinct.rows),
        )
        return Material(
            keys=[kept[row].key for row in distinct.rows],
            texts=[texts[row] for row in distinct.rows],
            labels=distinct.labels,
            contradicted=distinct.contradicted,
            rows=counts,
            places={row.key: places[row.text] for row in kept},
        )


def _with_labels(config: Config, source: LabelledInput) -> Config:
    """The configuration, with a topic whose payload also holds the labels."""
    settings: TopicConfig = config.source.topics[source.topic]
    payload = settings.payload | {_LABEL + name: PayloadField(path=name) for name in source.columns}
    topics = config.source.topics | {source.topic: settings.model_copy(update={"payload": payload})}
    return config.model_copy(update={"source": config.source.model_copy(update={"topics": topics})})


def _missing(name: str, inputs: Inputs, config: Config) -> str:
    known = _fields_of(inputs.parts[0], config.limits.max_record_bytes) if inputs.parts else []
    columns = f"Columns: {', '.join(known)}. " if known else ""
    return (
        f"label column {name!r}: no row of the input has it.{nearest(name, known)} {columns}"
        "Name it with --label TASK=COLUMN, or choose --tasks"
    )


def _fields_of(part: FilePart, max_bytes: int) -> list[str]:
    """The columns of a file, or the fields of the first row of one without columns."""
    if columns := columns_of(part):
        return [name for name, _ in columns] + list(hive_columns(part.uri))
    first = next(read_rows(part, Reading(frozenset(), {}, max_bytes, max_depth=64)), None)
    try:
        fields = orjson.loads(first.text) if first is not None and first.text is not None else {}
    except orjson.JSONDecodeError:
        return []
    return list(fields) if isinstance(fields, dict) else []


def _bare(key: str) -> str:
    """The key as its record spells it."""
    return key.partition(":")[2]
