"""What a filter may say; what the stores make of it is in tests/contract/test_store_reads.py."""

from collections.abc import Mapping
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.filters import parse_filters


@pytest.mark.parametrize(
    "filters",
    [
        *({"a": 1.5}, {"a": None}, {"a": 2**64}, {"": "x"}, {'a"b': "x"}),
        *({"a": []}, {"a": ["x", 1]}, {"a": [True]}, {"a": [["x"]]}),
        *({"a": {}}, {"a": {"gtt": 1}}, {"a": {"gt": "1"}}, {"a": {"gt": float("nan")}}),
    ],
)
def test_a_filter_of_no_known_form_is_refused(filters: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigError, match="filter on"):
        parse_filters(filters)
