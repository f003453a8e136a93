"""Keys, versions, texts and payloads: what is accepted, and what exactly comes out."""

from typing import Any

import orjson
import pytest

from pipeline.errors import Reason
from pipeline.records.decode import REPLAYED_VERSION_HEADER, VERSION_HEADER
from pipeline.records.payload import REPLAYED_TIMESTAMP_HEADER
from pipeline.records.record import offset_version
from pipeline.records.values import kafka_key_of
from tests.unit.decoding import NOW_MS, body, decode, reason_of

TIMED: dict[str, Any] = {"version": "v", "version_type": "time"}
COUNTED: dict[str, Any] = {"version": "v", "version_type": "integer"}


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
    upsert = decode(body(id=field), kafka_key, key_type=key_type)
    tombstone = decode(None, kafka_key, key_type=key_type)
    without_field = decode(body(), kafka_key, key_type=key_type, key=None)
    assert upsert.key == tombstone.key == without_field.key == canonical


@pytest.mark.parametrize("key", [b"017", b"+17", b"17.0", b" 17", b"-0", b"1e3", b"x", b"\xd9\xa1", b"9" * 41])
def test_only_the_one_spelling_of_an_integer_is_an_integer_key(key: bytes) -> None:
    assert reason_of(None, key, key_type="integer") is Reason.INVALID_KEY


def test_equal_looking_keys_of_different_types_never_meet() -> None:
    keys = [
        decode(body(id="1")).key,
        decode(body(id=1), key_type="integer").key,
        decode(None, b"1", key=None, binary_key=True).key,
    ]
    assert keys == ["s:1", "i:1", "b:31"]


def test_a_missing_key_field_is_not_replaced_by_the_kafka_key() -> None:
    assert reason_of(b'{"text":"x"}', b"k") is Reason.NO_KEY
    assert reason_of(b'{"id":null,"text":"x"}', b"k") is Reason.NO_KEY


def test_nested_paths_reach_keys_texts_versions_and_payloads() -> None:
    value = orjson.dumps({"a": {"id": "x", "v": 3}, "b": {"c": {"text": "deep"}}, "team": {"name": "blue"}})
    record = decode(value, key="a.id", text="{b.c.text}", version="a.v", payload={"team": "team.name"})
    assert (record.key, record.text, record.version) == ("s:x", "deep", 3)
    assert record.payload["team"] == "blue"
    assert reason_of(orjson.dumps({"a": [{"id": "x"}]}), key="a.id") is Reason.NO_KEY


def test_without_a_version_field_generation_and_offset_decide() -> None:
    assert decode(body(), generation=3).version == offset_version(3, 41) == (3 << 40) | 41
    assert decode(None, generation=3).version == offset_version(3, 41)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2024-02-29T12:30:00.5+02:00", 1_709_202_600_500),
        ("2024-02-29t10:30:00.500999z", 1_709_202_600_500),
        ("2024-02-29 10:30:00.123456789Z", 1_709_202_600_123),
    ],
)
def test_times_become_milliseconds_whatever_their_zone_and_precision(text: str, milliseconds: int) -> None:
    assert decode(body(v=text), version="v").version == milliseconds


@pytest.mark.parametrize(
    "text", ["2024-02-30T00:00:00Z", "2024-01-01", "20240101T000000Z", "2024-W01-1T00:00:00Z", "now"]
)
def test_what_is_no_rfc_3339_time_is_no_version(text: str) -> None:
    assert reason_of(body(v=text), version="v") is Reason.INVALID_VERSION


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("2024-01-01T00:00:00.000100Z", 1_704_067_200_000_100),
        ("2024-01-01T00:00:00.000900+00:00", 1_704_067_200_000_900),
        ("2024-01-01T00:00:00.001Z", 1_704_067_200_001_000),
        ("2024-01-01t01:00:00.0000019+01:00", 1_704_067_200_000_001),
    ],
)
def test_times_are_versions_of_a_microsecond_and_without_a_type_of_a_millisecond(text: str, version: int) -> None:
    assert decode(body(v=text), **TIMED).version == version
    assert decode(body(v=text), version="v").version == version // 1_000


def test_an_integer_and_a_timestamp_are_milliseconds_and_compare_with_finer_times() -> None:
    written = [decode(body(v=f"2024-01-01T00:00:00.{fraction}Z"), **TIMED).version for fraction in ("001", "001999")]
    assert decode(body(v=1_704_067_200_001), **TIMED).version == written[0]
    deleted = decode(None, timestamp_ms=1_704_067_200_001, **TIMED).version
    assert written[1] <= deleted < decode(body(v=1_704_067_200_002), **TIMED).version


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


def test_the_version_type_refuses_the_other_kind() -> None:
    assert reason_of(body(v="2024-01-01T00:00:00Z"), **COUNTED) is Reason.INVALID_VERSION
    assert decode(body(v=7), **COUNTED).version == 7
    assert decode(body(v=7), **TIMED).version == 7_000
    # A count may pass the clock; a time may not.
    assert decode(body(v=NOW_MS * 2), **COUNTED).version == NOW_MS * 2
    assert reason_of(body(v=NOW_MS * 2), **TIMED) is Reason.VERSION_IN_FUTURE


def test_a_null_value_of_a_versioned_topic_takes_the_header_then_the_timestamp_of_a_time_or_is_refused() -> None:
    header: list[tuple[str, bytes | None]] = [(VERSION_HEADER, b"12")]
    assert decode(None, headers=header, **COUNTED).version == 12
    assert decode(None, headers=header, **TIMED).version == 12_999
    assert decode(None, headers=header, version="v").version == 12
    assert decode(None, timestamp_ms=NOW_MS - 5, **TIMED).version == (NOW_MS - 5) * 1_000 + 999
    assert reason_of(None, timestamp_ms=NOW_MS + 10**6, **TIMED) is Reason.VERSION_IN_FUTURE
    assert reason_of(None, timestamp_ms=-1, **TIMED) is Reason.VERSION_MISSING
    assert reason_of(None, **COUNTED) is Reason.VERSION_MISSING
    assert reason_of(None, version="v") is Reason.VERSION_MISSING


@pytest.mark.parametrize("header", [b"", None, b"1.5", b"-1", b"x", b"9" * 17, b"1" * 5_000, b"\xff"])
def test_a_version_header_that_is_no_version_is_refused_and_not_passed_over(header: bytes | None) -> None:
    assert reason_of(None, headers=[(VERSION_HEADER, header)], **TIMED) is Reason.INVALID_VERSION


def test_the_header_does_not_outrank_offsets_or_a_field() -> None:
    header: list[tuple[str, bytes | None]] = [(VERSION_HEADER, b"12")]
    assert decode(None, headers=header).version == 41
    assert decode(body(v=5), headers=header, version="v").version == 5


@pytest.mark.parametrize("value", [None, body()])
def test_a_replayed_record_keeps_the_version_of_its_first_offset(value: bytes | None) -> None:
    header: list[tuple[str, bytes | None]] = [(REPLAYED_VERSION_HEADER, b"12")]
    assert decode(value, headers=header).version == 12
    assert decode(value, headers=header, generation=1).version == 12
    assert decode(body(v=5), headers=header, version="v").version == 5


def test_a_replayed_record_keeps_its_first_timestamp_in_the_payload() -> None:
    for header, stored in ((b"12", 12), (b"x", NOW_MS), (None, NOW_MS)):
        headers: list[tuple[str, bytes | None]] = [(REPLAYED_TIMESTAMP_HEADER, header)]
        found = decode(body(), headers=headers, timestamp_ms=NOW_MS, payload_timestamp=True)
        assert found.payload["timestamp_ms"] == stored


@pytest.mark.parametrize("header", [b"42", b"-1", b"x", b"", None, b"9" * 17])
def test_a_replayed_version_is_never_newer_than_the_offset(header: bytes | None) -> None:
    assert reason_of(body(), headers=[(REPLAYED_VERSION_HEADER, header)]) is Reason.INVALID_VERSION
