"""Labelled texts, as a training takes them."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from pipeline.errors import ConfigError
from pipeline.quality.evaluation import EvaluatedRows
from pipeline.quality.labels import Label, make_label

_FRACTION = re.compile(r"[+-]?\d*[.,]\d+(e[+-]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class LabelledTexts:
    """Distinct texts in the order of their keys, and what was left out."""

    texts: Sequence[str]
    labels: Mapping[str, Label]
    """Of each task, named after its column."""
    contradicted: Mapping[str, int]
    """Texts of each task that other rows give another value; the first counts."""
    rows: EvaluatedRows

    @property
    def sha256(self) -> str:
        """Hash of texts and labels."""
        found = hashlib.sha256()
        labels = [self.labels[task] for task in sorted(self.labels)]
        for number, text in enumerate(self.texts):
            values = [label.classes[code] if (code := label.codes[number]) >= 0 else None for label in labels]
            found.update(orjson.dumps([text, *values]))
        return found.hexdigest()


def make_classes(column: str, values: Sequence[str | None]) -> Label:
    """Returns the label of a column.

    Raises:
        ConfigError: there are too few labelled rows or one value only, or all values are numbers with fractions. A
            CSV's numbers are strings, so these are found by their spelling.
    """
    known = [value for value in values if value is not None]
    if known and all(_FRACTION.fullmatch(value) for value in known):
        raise ConfigError(
            f"label column {column!r}: found numbers with a fraction, expected classes. Sort the numbers into ranges "
            "first"
        )
    return make_label(column, values)
