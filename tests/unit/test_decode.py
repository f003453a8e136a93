"""Keys, versions, texts and payloads: what is accepted, and what exactly comes out."""

import json
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.errors import Reason, RecordError
from pipeline.records.decode import REPLAYED_VERSION_HEADER, VERSION_HEADER
from pipeline.records.payload import REPLAYED_TIMESTAMP_HEADER
from pipeline.records.record import offset_version
from pipeline.records.strict_json import parse_object
from tests.unit.decoding import NOW_MS, body, decode, decoder, reason_of

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


@pytest.mark.parametrize(
    ("equals", "found", "deletes"),
    [
        (True, True, True),
        (True, 1, False),
        (True, "true", False),
        (1, 1, True),
        (1, True, False),
        (1, 1.0, False),
        ("gone", "gone", True),
        ("gone", "Gone", False),
        ("gone", None, False),
    ],
)
def test_a_delete_marker_must_have_the_type_and_the_value(equals: Any, found: Any, deletes: bool) -> None:  # noqa: FBT001 - a table
    record = decode(body(state=found, team="x"), delete_when={"field": "state", "equals": equals})
    assert record.deleted is deletes
    assert ("team" in record.payload) is not deletes


def test_a_marked_delete_needs_no_text_but_a_key_and_a_version() -> None:
    options: dict[str, Any] = {"delete_when": {"field": "gone", "equals": True}, "version": "v"}
    deleted = decode(b'{"id":"a","gone":true,"v":9}', **options)
    assert (deleted.deleted, deleted.key, deleted.version) == (True, "s:a", 9)
    assert reason_of(b'{"gone":true,"v":9}', **options) is Reason.NO_KEY
    assert reason_of(b'{"id":"a","gone":true}', **options) is Reason.VERSION_MISSING


def test_a_template_is_filled_once_and_literally() -> None:
    value = orjson.dumps({"id": "a", "title": "{body} {0} %s", "body": "{title}"})
    assert decode(value, text="<{title}> {body}").text == "<{body} {0} %s> {title}"


def test_outer_white_space_goes_and_inner_stays() -> None:
    assert decode(body(text="  a \n b\u00a0\n")).text == "a \n b"


def test_optional_fields_may_be_absent_or_null_and_required_ones_may_not() -> None:
    template = "{title}\n\n{body?}"
    assert decode(b'{"id":"a","title":"t"}', text=template).text == "t"
    assert decode(b'{"id":"a","title":"t","body":null}', text=template).text == "t"
    assert decode(b'{"id":"a","title":"t","body":"b"}', text=template).text == "t\n\nb"
    assert reason_of(b'{"id":"a","body":"b"}', text=template) is Reason.TEXT_MISSING
    assert reason_of(b'{"id":"a","title":"t","body":{"x":7}}', text=template) is Reason.TEXT_NOT_A_STRING


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((b"7", "7"), (b"-1.5", "-1.5"), (b"1e15", "1000000000000000.0"), (b"true", "true")),
        *((b'["a", 1, null]', '["a",1,null]'), (b"[]", ""), (b"[[1]]", "[[1]]")),
    ],
)
def test_numbers_and_lists_in_a_text_are_spelt_as_json_and_csv_spell_them(value: bytes, text: str) -> None:
    found = decode(b'{"id":"a","title":"t","body":' + value + b"}", text="{title} {body}").text
    assert found == f"t {text}".strip()


@pytest.mark.parametrize("value", [b'{"x": 1}', b'[{"x": 1}]', b'["a", {}]'])
def test_an_object_in_a_text_is_refused_because_its_path_ends_too_early(value: bytes) -> None:
    with pytest.raises(RecordError, match="name a field inside it") as caught:
        decode(b'{"id":"a","body":' + value + b"}", text="{body}")
    assert caught.value.reason is Reason.TEXT_NOT_A_STRING


def test_the_text_of_numbers_that_grow_is_measured() -> None:
    value = b'{"id":"a","body":[' + b",".join([b"1e15"] * 10) + b"]}"
    assert reason_of(value, text="{body}", limits={"max_text_bytes": 100}) is Reason.TEXT_TOO_LARGE


@pytest.mark.parametrize(
    ("path", "text"),
    [("messages.0.body", "first"), ("messages.1.body", "second"), ("lists.1.0", "deep")],
)
def test_a_path_names_a_place_in_a_list(path: str, text: str) -> None:
    value = b'{"id":"a","messages":[{"body":"first"},{"body":"second"}],"lists":[["x"],["deep"]]}'
    assert decode(value, text=f"{{{path}}}").text == text
    for absent in ("messages.2.body", "messages.-1.body", "messages.body", "messages.9999999999.body", "id.0"):
        assert reason_of(value, text=f"{{{absent}}}") is Reason.TEXT_MISSING


def test_a_text_is_empty_when_its_fields_are_whatever_stands_around_them() -> None:
    assert reason_of(body(text=" "), text="Ticket: {text}") is Reason.TEXT_EMPTY
    assert reason_of(b'{"id":"a"}', text="Ticket: {text?}") is Reason.TEXT_EMPTY


def test_headers_are_stored_as_text_the_last_of_a_name_counts_and_null_is_left_out() -> None:
    headers: list[tuple[str, bytes | None]] = [("h", b"1"), ("h", b"2"), ("n", None), ("b", b"\xff"), ("other", b"x")]
    payload = decode(body(), headers=headers, payload_headers=["h", "n", "b"]).payload
    assert payload == {"h": "2", "b": "\ufffd", "_key": "s:a", "_source": "tickets:2:41"}


def test_payload_fields_are_renamed_and_absent_ones_left_out() -> None:
    record = decode(body(team=None, n=[1, {"x": True}]), payload={"a": "team", "b": "n", "c": "absent"})
    assert record.payload == {"a": None, "b": [1, {"x": True}], "_key": "s:a", "_source": "tickets:2:41"}


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        ({"payload_headers": ["_key"]}, "_key"),
        ({"payload_headers": ["team"]}, "team"),
        ({"payload_headers": ["timestamp_ms"], "payload_timestamp": True}, "timestamp_ms"),
        ({"version_type": "time"}, "version"),
        ({"key": None, "binary_key": True, "key_type": "integer"}, "key_type"),
    ],
)
def test_a_topic_that_contradicts_itself_is_refused(topic: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        decoder(**topic)


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), children, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text('ab":\\{ ', max_size=4), _JSON, max_size=5), st.booleans(), st.integers(0, 3))
def test_every_object_without_repeated_names_is_accepted_as_it_is(
    value: dict[str, Any],
    ascii_only: bool,  # noqa: FBT001 - drawn
    indent: int,
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent or None, separators=(" , ", " : "))
    assert parse_object(text.encode(), 64) == json.loads(text)


@given(st.text('ab":\\{ ', min_size=1, max_size=4), _JSON, _JSON, st.integers(0, 3))
def test_a_repeated_name_is_refused_at_any_depth_and_in_any_spelling(name: str, one: Any, two: Any, depth: int) -> None:
    escaped = "".join(f"\\u{ord(char):04x}" for char in name)
    text = f'{{{json.dumps(name)}:{json.dumps(one)},"{escaped}" :{json.dumps(two)}}}'
    for _ in range(depth):
        text = f'{{"x":[{text}]}}'
    with pytest.raises(RecordError) as caught:
        parse_object(text.encode(), 64)
    assert caught.value.reason is Reason.DUPLICATE_FIELD


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_decoder(value: bytes) -> None:
    with suppress(RecordError):
        decode(value)


@given(st.binary(max_size=60), st.sampled_from(["string", "integer"]))
def test_no_kafka_key_crashes_the_decoder(key: bytes, key_type: str) -> None:
    with suppress(RecordError):
        assert decode(None, key, key_type=key_type).key[:2] in {"s:", "i:"}


def test_a_record_may_be_as_large_as_the_limit_and_no_larger() -> None:
    value = body()
    size = len(value) + len(b"k") + len("h") + 2_000
    headers: list[tuple[str, bytes | None]] = [("h", b"x" * 2_000)]
    assert decode(value, headers=headers, limits={"max_record_bytes": size}).text == "hello"
    with pytest.raises(RecordError) as caught:
        decode(value, headers=headers, limits={"max_record_bytes": size - 1})
    assert caught.value.reason is Reason.RECORD_TOO_LARGE


def test_reserved_names_of_the_record_are_never_stored() -> None:
    record = decode(body(_version=9, _key="forged", team="x"))
    assert record.payload == {"team": "x", "_key": "s:a", "_source": "tickets:2:41"}


def test_a_time_beyond_what_microseconds_reach_is_in_the_future() -> None:
    value = body(text="x", at="2900-01-01T00:00:00Z")
    assert reason_of(value, version="at", version_type="time") is Reason.VERSION_IN_FUTURE
