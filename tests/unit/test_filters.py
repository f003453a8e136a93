"""What a filter may say of a field of each type; the stores' side is in tests/contract/test_store_reads.py."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from pipeline.config.payload_fields import TYPES, PayloadField
from pipeline.errors import ConfigError
from pipeline.filters import AnyOf, Between, Condition, During, Equals, HasWords, IsNull, parse_filters

FIELDS: Mapping[str, PayloadField] = {str(kind): PayloadField(type=kind) for kind in TYPES}
NUMBER = "6f7a1c9e-2f0b-5a43-9a55-7be6a2f5c0de"
EIGHT = datetime(2026, 1, 31, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    "filters",
    [
        *({"a": 1.5}, {"a": None}, {"a": 2**64}, {"": "x"}, {'a"b': "x"}),
        *({"a": []}, {"a": ["x", 1]}, {"a": [True]}, {"a": [["x"]]}),
        *({"a": {}}, {"a": {"gtt": 1}}, {"a": {"gt": "1"}}, {"a": {"gt": float("nan")}}, {"a": {"gt": 10**400}}),
    ],
)
def test_a_filter_of_no_known_form_is_refused(filters: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigError, match="filter on"):
        parse_filters(filters)


@pytest.mark.parametrize(
    ("field", "value", "condition"),
    [
        ("untyped", "x", Equals("untyped", "x")),
        ("untyped", 7, Equals("untyped", 7)),
        ("untyped", True, Equals("untyped", True)),
        ("untyped", [1, 2], AnyOf("untyped", (1, 2))),
        ("untyped", {"gt": 1}, Between("untyped", gt=1.0)),
        ("untyped", {"text": "a b"}, HasWords("untyped", "a b")),
        ("keyword", "7", Equals("keyword", "7")),
        ("keyword[]", ["a", "b"], AnyOf("keyword[]", ("a", "b"))),
        ("uuid", NUMBER.upper(), Equals("uuid", NUMBER)),
        ("uuid", [NUMBER.replace("-", "")], AnyOf("uuid", (NUMBER,))),
        ("integer", 7, Equals("integer", 7)),
        ("integer", {"gte": 7, "lt": 9.5}, Between("integer", gte=7.0, lt=9.5)),
        ("float", 7, Between("float", gte=7.0, lte=7.0)),
        ("float", 1.5, Between("float", gte=1.5, lte=1.5)),
        ("bool", False, Equals("bool", False)),
        ("datetime", "2026-01-31T09:00:00+01:00", During("datetime", gte=EIGHT, lte=EIGHT)),
        ("datetime[]", {"lt": "2026-01-31t08:00:00z"}, During("datetime[]", lt=EIGHT)),
        ("text", {"text": "login fails"}, HasWords("text", "login fails")),
        *((kind, {"is_null": True}, IsNull(kind)) for kind in TYPES),
        ("untyped", {"is_null": False}, IsNull("untyped", negated=True)),
    ],
)
def test_what_each_type_can_be_asked(field: str, value: Any, condition: Condition) -> None:
    assert parse_filters({field: value}, FIELDS) == [condition]


@pytest.mark.parametrize(
    ("field", "value", "takes"),
    [
        ("keyword", 7, "a keyword field takes a text or a list of texts"),
        ("keyword", {"gt": 1}, "a keyword field takes"),
        ("keyword", {"text": "x"}, "a keyword field takes"),
        ("keyword", [1], "a keyword field takes"),
        ("uuid", "x", "a uuid field takes a UUID or a list of UUIDs"),
        ("integer", "7", "an integer field takes an integer, a list of integers, or a range"),
        ("integer", 1.5, "an integer field takes"),
        ("integer", True, "an integer field takes"),
        ("integer", [True], "an integer field takes"),
        ("integer", ["7"], "an integer field takes"),
        ("float", [1.5], "a float field takes a number, or a range"),
        ("float", "1.5", "a float field takes"),
        ("bool", 1, "a bool field takes true or false"),
        ("bool", {"gt": 1}, "a bool field takes"),
        ("datetime", 7, "a datetime field takes a time such as 2026-01-31T08:00:00Z, or a range"),
        ("datetime", {"gt": 7}, "a datetime field takes"),
        ("datetime", {"gt": "2026-01-31T08:00:00"}, "with a zone"),
        ("datetime", ["2026-01-31"], "a datetime field takes"),
        ("text", "words", "a text field takes {text: words to find}"),
        ("text", {"text": " "}, "a text field takes"),
        ("text", {"text": "x", "gt": 1}, "a text field takes"),
        ("integer", {"is_null": 1}, "is_null stands alone and is true or false"),
        ("integer", {"gte": 1, "is_null": True}, "is_null stands alone"),
        ("integer", {"gtee": 1}, "Did you mean 'gte'"),
    ],
)
def test_a_filter_of_another_kind_is_refused_with_what_the_field_takes(field: str, value: Any, takes: str) -> None:
    with pytest.raises(ConfigError, match=f"filter on '{field}'") as caught:
        parse_filters({field: value}, FIELDS)
    assert takes in str(caught.value)
    assert "or {is_null: true}" in str(caught.value)
