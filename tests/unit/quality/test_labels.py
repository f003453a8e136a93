"""Labels as users have them."""

import math
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.quality.labels import label_text, make_label


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("high", "high"),
        (" high\n", "high"),
        ("", None),
        (" ", None),
        (None, None),
        (math.nan, None),
        (3, "3"),
        (3.0, "3"),
        (True, "true"),
        (False, "false"),
    ],
)
def test_values_name_classes(value: Any, expected: str | None) -> None:
    assert label_text(value, "label column 'urgency'") == expected


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.5, "fraction"), (math.inf, "fraction"), (["a"], "a list"), ({"a": 1}, "a mapping"), (b"a", "a bytes")],
)
def test_what_is_no_class_is_refused_with_its_place_and_without_its_value(value: Any, words: str) -> None:
    with pytest.raises(ConfigError, match="label column 'urgency'.*" + words):
        label_text(value, "label column 'urgency'")


def test_classes_stand_by_falling_frequency_then_by_name() -> None:
    label = make_label("l", ["b", "a", None, "c", "c", "c", "a", "b", "a", "b", "c", "c"])
    assert label.classes == ("c", "a", "b")
    assert label.counts.tolist() == [5, 3, 3]
    assert label.codes.tolist() == [2, 1, -1, 0, 0, 0, 1, 2, 1, 2, 0, 0]
    assert label.rows.tolist() == [0, 1, *range(3, 12)]


def test_thin_classes_are_named_and_a_class_of_one_row_is_not_judged() -> None:
    label = make_label("l", ["a"] * 9 + ["b"] * 7 + ["c"] + [None])
    assert label.thin == (("b", 7), ("c", 1))
    assert label.scored.tolist() == list(range(16))


def test_one_value_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="label 'urgency': all 640 labelled rows say 'low'; expected at least two"):
        make_label("urgency", ["low"] * 640 + [None])


@pytest.mark.parametrize("values", [["a", "b"], [None] * 50, ["a", "b"] * 4])
def test_too_few_labelled_rows_are_refused_with_their_number(values: list[str | None]) -> None:
    labelled = sum(value is not None for value in values)
    with pytest.raises(ConfigError, match=f"{labelled} of {len(values)} rows have a value; expected at least 10"):
        make_label("l", values)


def test_values_that_no_rows_share_are_refused() -> None:
    with pytest.raises(ConfigError, match="40 values in 41 rows; expected at least two values that several rows share"):
        make_label("id", ["0", *map(str, range(40))])


def test_two_hundred_classes_are_a_label() -> None:
    label = make_label("l", [str(row % 200) for row in range(2_000)])
    assert len(label.classes) == 200
    assert label.thin == ()
