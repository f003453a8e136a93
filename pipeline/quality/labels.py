"""Labels as users have them: strings, numbers or nothing, for some of the rows; and what cannot be a label."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import ConfigError
from pipeline.records.batches import Int64

MIN_ROWS = 10
"""Labelled rows below which nothing is measured: one text more or less would move accuracy by over 0.1."""

THIN_ROWS = 8
"""Classes with fewer rows are named: with five neighbours, a few odd texts decide about them."""

_SHOWN = 40
"""Characters of a label's value in a message."""


@dataclass(frozen=True, slots=True)
class Label:
    """One way of sorting the rows into classes."""

    name: str
    classes: tuple[str, ...]
    """Values, the most frequent first, then by name."""
    codes: Int64
    """Place of each row's value in `classes`, -1 for a row without one; (num_rows,)."""

    @property
    def counts(self) -> Int64:
        """Rows of each class."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.classes))

    @property
    def rows(self) -> Int64:
        """Rows that have a value."""
        return np.flatnonzero(self.codes >= 0)

    @property
    def scored(self) -> Int64:
        """Rows whose class has another row; alone in its class, a row can never be told by its neighbours."""
        return np.flatnonzero((self.codes >= 0) & (self.counts[self.codes] > 1))

    @property
    def thin(self) -> tuple[tuple[str, int], ...]:
        """Classes of fewer than THIN_ROWS rows, and how many they have."""
        return tuple(
            (value, count) for value, count in zip(self.classes, self.counts.tolist(), strict=True) if count < THIN_ROWS
        )


def label_text(value: Any, place: str) -> str | None:
    """Returns a field's value as the name of a class, None where the row has no label.

    Whole numbers and truth values name classes by their text (7.0 is 7, as tables store integers with gaps);
    null, NaN and blank strings are no label.

    Args:
        value: As read from a file or a payload.
        place: What an error names, such as "label column 'urgency'".

    Raises:
        ConfigError: The value measures something (a fraction) or has parts (a list, a mapping).
    """
    match value:
        case None:
            return None
        case str():
            return value.strip() or None
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return _whole(value, place)
        case _:
            raise ConfigError(f"{place}: found {_kind(value)}, expected a string, a whole number, or true or false")


def make_label(name: str, values: Sequence[str | None]) -> Label:
    """Returns the label of values by row.

    Raises:
        ConfigError: There are too few labelled rows, or fewer than two classes have two rows.
    """
    counts = Counter(value for value in values if value is not None)
    classes = tuple(sorted(counts, key=lambda value: (-counts[value], value)))
    num_rows = counts.total()
    if len(classes) == 1:
        raise ConfigError(
            f"label {name!r}: all {num_rows:,} labelled rows say {classes[0][:_SHOWN]!r}; expected at least two values"
        )
    if num_rows < MIN_ROWS:
        raise ConfigError(
            f"label {name!r}: {num_rows} of {len(values):,} rows have a value; expected at least {MIN_ROWS}"
        )
    if sum(count > 1 for count in counts.values()) < 2:  # noqa: PLR2004 - one class has nothing to be told from
        raise ConfigError(
            f"label {name!r}: {len(classes):,} values in {num_rows:,} rows; expected at least two values that "
            "several rows share"
        )
    place = {value: code for code, value in enumerate(classes)}
    codes = np.fromiter((-1 if value is None else place[value] for value in values), np.int64, len(values))
    return Label(name, classes, codes)


def _whole(value: float, place: str) -> str | None:
    if math.isnan(value):
        return None
    if not value.is_integer():
        raise ConfigError(
            f"{place}: found a number with a fraction, expected classes: strings, whole numbers, or true or false. "
            "Sort the numbers into ranges first"
        )
    return str(int(value))


def _kind(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "a list"
    return "a mapping" if isinstance(value, dict) else f"a {type(value).__name__}"
