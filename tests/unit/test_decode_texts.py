"""What a record says: its text, its payload, and the limits of both."""

import json
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.errors import Reason, RecordError
from pipeline.records.strict_json import parse_object
from tests.unit.decoding import body, decode, decoder, reason_of


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
