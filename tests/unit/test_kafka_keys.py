"""How Kafka keys spell what a null value deletes."""

from typing import Any

import pytest

from pipeline.errors import Reason
from pipeline.records.values import kafka_key_of
from tests.unit.decoding import body, decode, reason_of

SPELLINGS = [
    ("text", "string", "q1", b"q1"),
    ("text", "string", '"q1"', b'"q1"'),
    ("json", "string", "q1", b'"q1"'),
    ("json", "string", "q1", b'{"id": "q1"}'),
    ("json", "string", "q1", b'{"schema": {"type": "struct"}, "payload": {"id": "q1"}}'),
    ("json", "integer", 17, b"17"),
    ("json", "integer", -17, b'{"id": -17}'),
    ("int32", "integer", 17, b"\x00\x00\x00\x11"),
    ("int64", "integer", -1, b"\xff" * 8),
]


@pytest.mark.parametrize(("kafka_key", "key_type", "field", "raw"), SPELLINGS)
def test_a_null_value_deletes_what_its_kafka_key_spells(
    kafka_key: str, key_type: str, field: str | int, raw: bytes
) -> None:
    spelt: dict[str, Any] = {"kafka_key": kafka_key, "key_type": key_type}
    upsert = decode(body(id=field), raw, **spelt)
    assert decode(None, raw, **spelt).key == upsert.key
    assert not upsert.is_key_misspelt
    if b"id" not in raw:
        assert kafka_key_of(field, kafka_key) == raw


@pytest.mark.parametrize(
    ("raw", "spelt"),
    [
        (b"q1", {"kafka_key": "json"}),
        (b'{"other": "q1"}', {"kafka_key": "json"}),
        (b"true", {"kafka_key": "json"}),
        (b'"17"', {"kafka_key": "json", "key_type": "integer"}),
        (b"\x00\x00\x11", {"kafka_key": "int32", "key_type": "integer"}),
        (b"\x00\x00\x00\x11", {"kafka_key": "int64", "key_type": "integer"}),
        # Not said how: what a serializer made of the key must not pass for it.
        (b'"q1"', {}),
        (b'{"id":"q1"}', {}),
        (b'["q1"]', {}),
        (b"\x00\x00\x00\x00\x05q1", {}),
        (b"\x00" * 7 + b"\x11", {}),
        (b"q1\n", {}),
        (b'"17"', {"key_type": "integer"}),
    ],
)
def test_a_null_value_whose_key_is_spelt_otherwise_is_a_dead_letter_and_not_a_delete_of_nothing(
    raw: bytes, spelt: dict[str, Any]
) -> None:
    assert reason_of(None, raw, **spelt) in {Reason.INVALID_KEY, Reason.NO_KEY}
    field = 17 if spelt.get("key_type") == "integer" else "q1"
    assert decode(body(id=field), raw, **spelt).is_key_misspelt


def test_without_a_key_field_the_kafka_key_is_the_key_whatever_it_looks_like() -> None:
    assert decode(None, b'"q1"', key=None).key == decode(body(), b'"q1"', key=None).key == 's:"q1"'
    assert not decode(body(), b'"q1"', key=None).is_key_misspelt


def test_a_kafka_key_that_differs_from_the_field_is_noticed_and_an_absent_one_is_none() -> None:
    assert decode(body(id="a"), b"b").is_key_misspelt
    assert not decode(body(id="a"), b"a").is_key_misspelt
    assert not decode(body(id="a"), None).is_key_misspelt
