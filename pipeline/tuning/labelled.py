"""Labelled texts from files: the topic's template makes the text, a column the label."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from pipeline.config.source import TopicConfig
from pipeline.errors import ConfigError, RecordError, RefractError, nearest
from pipeline.quality.labels import Label, label_text, make_label
from pipeline.quality.sampling import Sample
from pipeline.records.files.record_files import SUFFIXES, Keys, read_records
from pipeline.records.values import MISSING, Template, field_at, split_path

_ROW = "_row"
_FRACTION = re.compile(r"[+-]?\d*[.,]\d+(e[+-]?\d+)?", re.IGNORECASE)
_MAX_MISSING_SHOWN = 12


@dataclass(frozen=True, slots=True)
class LabelledTexts:
    """Distinct texts in the order of their files, and what was left out."""

    texts: Sequence[str]
    labels: Mapping[str, Label]
    """Of each task, named after its column."""
    num_rows: int
    num_empty: int
    """Rows with a blank text."""
    num_refused: int
    """Rows without a text: a field of the template is missing, or not a string."""
    num_equal: int
    """Rows left out because another row has the same text."""
    contradicted: Mapping[str, int]
    """Texts of each task that other rows give another value; the first counts."""
    is_whole: bool
    """Whether these are all distinct texts; else they are a seeded sample."""

    @property
    def sha256(self) -> str:
        """Hash of texts and labels."""
        found = hashlib.sha256()
        for number, text in enumerate(self.texts):
            values = [label.classes[code] if (code := label.codes[number]) >= 0 else None for label in self._labels]
            found.update(orjson.dumps([text, *values]))
        return found.hexdigest()

    @property
    def _labels(self) -> list[Label]:
        return [self.labels[task] for task in sorted(self.labels)]


@dataclass(slots=True)
class _Counts:
    rows: int = 0
    empty: int = 0
    refused: int = 0


def read_labelled(
    files: Sequence[Path], topic: TopicConfig, columns: Mapping[str, str], *, max_texts: int, seed: int
) -> LabelledTexts:
    """Reads files, and folders of files, as labelled texts.

    Args:
        files: CSV, JSON Lines and Parquet; of a folder, all files that end so, by name.
        topic: Says how a row becomes a text.
        columns: Task -> column of its label.
        max_texts: Above, a seeded sample is taken.
        seed: Of the sample.

    Raises:
        ConfigError: a file cannot be read, no row has a label's column, or a label is none: one value, numbers with
            fractions, too few rows.
    """
    template, counts, seen = Template(topic.text), _Counts(), set[str]()
    paths = {column: split_path(column) for column in columns.values()}
    found_columns: set[str] = set()
    sample: Sample[tuple[int, str]] = Sample(max_texts, seed=seed)
    for row in (row for file in _expand(files) for row in _rows(file)):
        counts.rows += 1
        seen.update(row)
        values = {column: field_at(row, path) for column, path in paths.items()}
        found_columns |= {column for column, value in values.items() if value is not MISSING}
        text = _text(template, row, counts)
        if text is not None:
            known = {
                column: label_text(None if value is MISSING else value, f"label column {column!r}")
                for column, value in values.items()
            }
            sample.offer(text.encode(), known, (counts.rows, text))
    _check_columns(columns, found_columns, seen, counts.rows)
    kept = sorted(sample.texts(), key=lambda one: one.content[0])
    labels = {}
    for task, column in columns.items():
        values_of = [one.labels[column] for one in kept]
        _check_fractions(column, (value for value in values_of if value is not None))
        labels[task] = make_label(column, values_of)
    return LabelledTexts(
        [one.content[1] for one in kept],
        labels,
        num_rows=counts.rows,
        num_empty=counts.empty,
        num_refused=counts.refused,
        num_equal=sum(one.num_rows - 1 for one in kept),
        contradicted={task: sum(column in one.contradicted for one in kept) for task, column in columns.items()},
        is_whole=sample.is_whole,
    )


def _expand(files: Sequence[Path]) -> Iterator[Path]:
    for file in files:
        if not file.is_dir():
            yield file
            continue
        inside = sorted(path for path in file.iterdir() if path.suffix in SUFFIXES)
        if not inside:
            raise ConfigError(f"{file}: no file in it ends in {', '.join(SUFFIXES)}")
        yield from inside


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    """Yields a file's rows as mappings. The only place that knows how files are read."""
    for record in read_records(file, Keys(_ROW, _ROW)):
        row = orjson.loads(record.value) if record.value is not None else None
        if not isinstance(row, dict):
            raise RefractError(f"{file}: a row is not an object; labelled texts need fields")
        row.pop(_ROW, None)
        yield row


def _text(template: Template, row: dict[str, Any], counts: _Counts) -> str | None:
    try:
        text = template.fill(row)
    except RecordError:
        counts.refused += 1
        return None
    counts.empty += text is None
    return text


def _check_columns(columns: Mapping[str, str], found: set[str], seen: set[str], num_rows: int) -> None:
    for task, column in columns.items():
        if num_rows and column not in found:
            shown = ", ".join(sorted(seen)[:_MAX_MISSING_SHOWN])
            raise ConfigError(
                f"task {task!r}: no row has a column {column!r}.{nearest(column, seen)} Columns: {shown}. Name "
                f"another with --label {task}=COLUMN"
            )


def _check_fractions(column: str, values: Iterable[str]) -> None:
    """A CSV's numbers are strings, so fractions are found by their spelling."""
    known = list(values)
    if known and all(_FRACTION.fullmatch(value) for value in known):
        raise ConfigError(
            f"label column {column!r}: found numbers with a fraction, expected classes. Sort the numbers into ranges "
            "first"
        )
