"""Avro: as Confluent's serializers frame it, and as Apache's own library writes each type."""

import datetime as dt
import io
import json
import uuid
import warnings
from decimal import Decimal
from pathlib import Path
from typing import Any

import avro.io
import avro.schema
import pytest

from pipeline.errors import ConfigError, Reason, RecordError
from pipeline.records.record import Record
from tests.registry import Registry
from tests.unit.formats.messages import PLACE, Sent, avro_record, decoder

DAY = {"type": "int", "logicalType": "date"}
UTC = dt.UTC


def schema_of(*fields: tuple[str, Any], name: str = "Ticket") -> dict[str, Any]:
    """A record with an id, a text and these fields."""
    named = [("id", "string"), ("text", "string"), *fields]
    return {"type": "record", "name": name, "namespace": "shop", "fields": [{"name": n, "type": t} for n, t in named]}


TICKET = json.dumps(schema_of())


def written(schema: Any, value: Any) -> bytes:
    """The bytes that Apache's own library writes."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # logical types that it does not know: their values are given as written
        avro.io.DatumWriter(avro.schema.parse(json.dumps(schema))).write(value, avro.io.BinaryEncoder(stream))
    return stream.getvalue()


def in_file(folder: Path, schema: Any) -> str:
    path = folder / "ticket.avsc"
    path.write_text(json.dumps(schema))
    return str(path)


def plain(folder: Path, schema: Any, data: bytes, **topic: Any) -> Record:
    """What a topic without a registry makes of Avro."""
    by = decoder(None, format="avro", schema_file=in_file(folder, schema), **topic)
    return by.decode(None, data, PLACE, ())


@pytest.mark.parametrize("in_header", [False, True])
def test_a_record_is_read_by_the_schema_whose_id_or_guid_it_carries(registry: Registry, *, in_header: bool) -> None:
    sent = avro_record(registry, TICKET, {"id": "a", "text": "hello"}, in_header=in_header)
    assert (sent.value or b"").startswith(b"\x00\x00\x00\x00\x01") != in_header
    found = sent.decoded(decoder(registry, format="avro"))
    assert (found.key, found.text) == ("s:a", "hello")
    assert registry.asked[-1] == (f"/schemas/guids/{registry.guid(1)}" if in_header else "/schemas/ids/1")


def test_a_guid_may_stand_in_front_of_the_value(registry: Registry) -> None:
    registry.register("tickets-value", TICKET)
    data = b"\x01" + registry.guid(1).bytes + written(json.loads(TICKET), {"id": "a", "text": "hello"})
    assert Sent(data).decoded(decoder(registry, format="avro")).text == "hello"


def test_a_header_wins_over_what_the_value_begins_with(registry: Registry) -> None:
    registry.register("tickets-value", TICKET)
    # Its first byte is that of a frame: an empty id.
    data = written(json.loads(TICKET), {"id": "", "text": "hello"})
    sent = Sent(data, b"k", [("__value_schema_id", b"\x01" + registry.guid(1).bytes)])
    assert sent.decoded(decoder(registry, format="avro", key=None, binary_key=True, text="{text}")).text == "hello"


VALUES: list[tuple[Any, Any, Any]] = [
    ("null", None, None),
    ("boolean", True, True),
    ("int", -7, -7),
    ("long", 2**62, 2**62),
    ("float", 0.5, 0.5),
    ("double", 1.25, 1.25),
    ("double", float("nan"), None),
    ("float", float("-inf"), None),
    ("bytes", "né".encode(), "né"),
    ("string", "né", "né"),
    ({"type": "fixed", "name": "F", "size": 2}, b"ab", "ab"),
    ({"type": "enum", "name": "E", "symbols": ["OPEN", "SHUT"]}, "SHUT", "SHUT"),
    ({"type": "array", "items": "double"}, [1.5, float("nan")], [1.5, None]),
    ({"type": "map", "values": "bytes"}, {"k": b"v"}, {"k": "v"}),
    (["null", "string"], None, None),
    (["null", "string"], "x", "x"),
    (["null", "int", {"type": "array", "items": "string"}], ["x"], ["x"]),
    ({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}, Decimal("-1.10"), "-1.10"),
    ({"type": "bytes", "logicalType": "decimal", "precision": 4}, Decimal(17), "17"),
    (
        {"type": "fixed", "name": "D", "size": 8, "logicalType": "decimal", "precision": 9, "scale": 3},
        Decimal("0.005"),
        "0.005",
    ),
    ({"type": "int", "logicalType": "date"}, dt.date(2026, 1, 2), "2026-01-02"),
    ({"type": "int", "logicalType": "time-millis"}, dt.time(3, 4, 5), "03:04:05"),
    ({"type": "long", "logicalType": "time-micros"}, dt.time(3, 4, 5, 678_901), "03:04:05.678901"),
    (
        {"type": "long", "logicalType": "timestamp-millis"},
        dt.datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC),
        "2026-01-02T03:04:05.678000+00:00",
    ),
    (
        {"type": "long", "logicalType": "timestamp-micros"},
        dt.datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC),
        "1969-12-31T23:59:59.999999+00:00",
    ),
    ({"type": "long", "logicalType": "timestamp-nanos"}, 1_000_000_001, "1970-01-01T00:00:01.000000001+00:00"),
    ({"type": "long", "logicalType": "local-timestamp-millis"}, 1_000, "1970-01-01T00:00:01"),
    ({"type": "long", "logicalType": "local-timestamp-micros"}, 1, "1970-01-01T00:00:00.000001"),
    ({"type": "long", "logicalType": "local-timestamp-nanos"}, 1, "1970-01-01T00:00:00.000000001"),
    ({"type": "string", "logicalType": "uuid"}, str(uuid.UUID(int=5)), str(uuid.UUID(int=5))),
    (
        {"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"},
        uuid.UUID(int=5).bytes,
        "00000000-0000-0000-0000-000000000005",
    ),
    (
        {"type": "fixed", "name": "P", "size": 12, "logicalType": "duration"},
        b"\x01\0\0\0\x02\0\0\0\xdc\x05\0\0",
        "P1M2DT1.5S",
    ),
    ({"type": "fixed", "name": "P", "size": 12, "logicalType": "duration"}, b"\0" * 8 + b"\x10\x27\0\0", "PT10S"),
    ({"type": "string", "logicalType": "somebody's own"}, "x", "x"),
    (
        {"type": "record", "name": "R", "fields": [{"name": "a", "type": ["null", DAY]}]},
        {"a": dt.date(1970, 1, 2)},
        {"a": "1970-01-02"},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "expected"), VALUES, ids=[str(number) for number in range(len(VALUES))])
def test_what_each_type_means_as_json(tmp_path: Path, kind: Any, value: Any, expected: Any) -> None:
    schema = schema_of(("x", kind))
    data = written(schema, {"id": "a", "text": "hello", "x": value})
    assert plain(tmp_path, schema, data, payload=["x"]).payload["x"] == expected


def test_the_branch_of_a_union_says_what_a_number_means(tmp_path: Path) -> None:
    clock = {"type": "long", "logicalType": "timestamp-millis"}
    schema = schema_of(("x", ["null", DAY, clock]))
    start = written(schema_of(), {"id": "a", "text": "hello"})
    found = [
        plain(tmp_path, schema, start + branch + b"\x02", payload=["x"]).payload["x"] for branch in (b"\x02", b"\x04")
    ]
    assert found == ["1970-01-02", "1970-01-01T00:00:00.001000+00:00"]


def test_fields_are_named_by_paths_through_records_maps_and_arrays(tmp_path: Path) -> None:
    note = {
        "type": "record",
        "name": "Note",
        "fields": [{"name": "at", "type": {"type": "int", "logicalType": "date"}}],
    }
    schema = schema_of(
        ("notes", {"type": "array", "items": note}),
        ("by", {"type": "map", "values": "Note"}),
        ("one", ["null", "Note"]),
    )
    days = [{"at": dt.date(1970, 1, 1)}, {"at": dt.date(1970, 1, 2)}]
    value = {"id": "a", "text": "hello", "notes": days, "by": {"x.y": days[0]}, "one": days[1]}
    paths = {"n": "notes.1.at", "b": 'by."x.y".at', "o": "one.at"}
    payload = plain(tmp_path, schema, written(schema, value), payload=paths).payload
    assert (payload["n"], payload["b"], payload["o"]) == ("1970-01-02", "1970-01-01", "1970-01-02")


def test_a_value_that_nobody_reads_cannot_be_wrong(tmp_path: Path) -> None:
    schema = schema_of(("photo", "bytes"), ("far", {"type": "int", "logicalType": "date"}))
    data = written(schema, {"id": "a", "text": "hello", "photo": b"\xff", "far": dt.date(1970, 1, 1)})
    data = data[:-1] + b"\xff\xff\xff\xff\x0f"
    assert plain(tmp_path, schema, data).text == "hello"
    for path, detail in (("photo", "not UTF-8"), ("far", "a date outside the years 1 to 9999")):
        with pytest.raises(RecordError) as refused:
            plain(tmp_path, schema, data, payload=[path])
        assert (refused.value.reason, refused.value.detail) == (Reason.INVALID_AVRO, detail)


@pytest.mark.parametrize("field", ["key", "version"])
def test_a_decimal_is_an_integer_where_the_topic_counts_by_it(tmp_path: Path, field: str) -> None:
    schema = schema_of(("n", {"type": "bytes", "logicalType": "decimal", "precision": 20}))
    data = written(schema, {"id": "a", "text": "hello", "n": Decimal(17)})
    counted = {"key": {"key": "n", "key_type": "integer"}, "version": {"version": "n", "version_type": "integer"}}
    found = plain(tmp_path, schema, data, **counted[field])
    assert (found.key, found.version) == (("i:17", 41) if field == "key" else ("s:a", 17))


def test_a_decimal_beyond_its_precision_is_refused(tmp_path: Path) -> None:
    schema = schema_of(("n", {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}))
    data = written(schema_of(("n", "bytes")), {"id": "a", "text": "hello", "n": b"\x27\x10"})
    with pytest.raises(RecordError, match="invalid_avro: a decimal of more than 4 digits"):
        plain(tmp_path, schema, data, payload=["n"])


def test_evolution_is_picked_up_and_every_record_is_read_as_it_was_written(registry: Registry) -> None:
    by = decoder(registry, format="avro", payload=["team"])
    older = avro_record(registry, TICKET, {"id": "a", "text": "hello"})
    newer = json.dumps(schema_of(("team", "string")))
    later = avro_record(registry, newer, {"id": "a", "text": "hello", "team": "blue"})
    assert [sent.decoded(by).payload.get("team") for sent in (older, later, older)] == [None, "blue", None]


def test_a_schema_is_asked_for_once(registry: Registry) -> None:
    sent = avro_record(registry, TICKET, {"id": "a", "text": "hello"})
    by, before = decoder(registry, format="avro"), len(registry.asked)
    assert [sent.decoded(by).text for _ in range(3)] == ["hello"] * 3
    assert len(registry.asked) == before + 1


def test_types_of_other_subjects_are_found_by_their_references(registry: Registry) -> None:
    customer = {
        "type": "record",
        "name": "Customer",
        "namespace": "shop",
        "fields": [{"name": "name", "type": "string"}],
    }
    registry.register("customer", json.dumps(customer))
    schema = schema_of(("by", "shop.Customer"))
    uses = [{"name": "shop.Customer", "subject": "customer", "version": 1}]
    identifier = registry.register("tickets-value", json.dumps(schema), references=uses)
    value = {"id": "a", "text": "hello", "by": {"name": "Ann"}}
    inlined = schema_of(("by", customer))
    sent = Sent(b"\x00" + identifier.to_bytes(4, "big") + written(inlined, value))
    assert sent.decoded(decoder(registry, format="avro", text="{by.name}")).text == "Ann"


BAD_SCHEMAS = {
    "a schema that is not JSON": "{",
    "a schema of no type": '{"type": "recor"}',
    "a schema nested too deep": '{"type":"array","items":' * 500 + '"int"' + "}" * 500,
    "items that take no bytes": json.dumps(schema_of(("x", {"type": "array", "items": "null"}))),
    "items that are empty records": json.dumps(
        schema_of(("x", {"type": "array", "items": {"type": "record", "name": "E", "fields": []}}))
    ),
    "a reference to nothing": json.dumps(schema_of(("x", "shop.Customer"))),
    "a decimal of a million digits": json.dumps(
        schema_of(("x", {"type": "bytes", "logicalType": "decimal", "precision": 1_000_000}))
    ),
}


@pytest.mark.parametrize("text", BAD_SCHEMAS.values(), ids=list(BAD_SCHEMAS))
def test_a_schema_that_cannot_be_used_costs_its_records_and_is_asked_for_once(registry: Registry, text: str) -> None:
    registry.register("tickets-value", text)
    by = decoder(registry, format="avro", payload=["x"])
    for _ in range(2):
        with pytest.raises(RecordError) as refused:
            Sent(b"\x00\x00\x00\x00\x01\x02a").decoded(by)
        assert refused.value.reason is Reason.UNUSABLE_SCHEMA
    assert registry.asked == ["/schemas/ids/1"]


def test_a_schema_that_holds_itself_is_read_to_a_depth_and_no_further(registry: Registry) -> None:
    schema = schema_of(("next", ["null", "Ticket"]))
    registry.register("tickets-value", json.dumps(schema))
    frame, step, end = b"\x00\x00\x00\x00\x01", b"\x02a\x02b", b"\x00"
    by = decoder(registry, {"max_depth": 10}, format="avro", text="{next.text}")
    assert Sent(frame + b"\x02".join([step] * 10) + end).decoded(by).text == "b"
    for levels in (11, 200_000):
        with pytest.raises(RecordError, match="nested deeper than 10"):
            Sent(frame + b"\x02".join([step] * levels) + end).decoded(by)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"id":"a"}', Reason.WRONG_FORMAT),
        (b"\x00\x00\x00", Reason.WRONG_FORMAT),
        (b"\x01" + bytes(15), Reason.WRONG_FORMAT),
        (b"\x02\x00\x00\x00\x01", Reason.WRONG_FORMAT),
        (b"\x00\x00\x00\x00\x09\x02a\x02b", Reason.UNKNOWN_SCHEMA),
        (b"\x01" + bytes(16) + b"\x02a\x02b", Reason.UNKNOWN_SCHEMA),
        (b"\x00\x00\x00\x00\x01", Reason.INVALID_AVRO),
        (b"\x00\x00\x00\x00\x01\x02a", Reason.INVALID_AVRO),
        (b"\x00\x00\x00\x00\x01\x02a\x01", Reason.INVALID_AVRO),
        (b"\x00\x00\x00\x00\x01\x02a\x02b\x00", Reason.INVALID_AVRO),
        (b"\x00\x00\x00\x00\x01\x02a" + b"\xff" * 12, Reason.INVALID_AVRO),
        (b"\x00\x00\x00\x00\x01\x02a\x02\xff", Reason.INVALID_AVRO),
        (b"\x00\x00\x00\x00\x02\x02", Reason.NOT_AN_OBJECT),
        (b"\x00\x00\x00\x00\x03\x02", Reason.WRONG_FORMAT),
    ],
)
def test_bytes_that_are_something_else_are_refused_with_the_reason(
    registry: Registry, data: bytes, reason: Reason
) -> None:
    registry.register("tickets-value", TICKET)
    registry.register("number", '"long"')
    registry.register("other", 'syntax = "proto3";', "PROTOBUF")
    with pytest.raises(RecordError) as refused:
        Sent(data).decoded(decoder(registry, format="avro"))
    assert refused.value.reason is reason


def test_a_schema_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"schema_file: .*ticket.avsc: not an Avro schema"):
        plain(tmp_path, {"type": "recor"}, b"")
    with pytest.raises(ConfigError, match=r"schema_file: .*absent.avsc cannot be read"):
        decoder(None, format="avro", schema_file=str(tmp_path / "absent.avsc"))


def test_a_text_is_measured_where_its_bytes_say_nothing_of_its_size(tmp_path: Path) -> None:
    symbol = "s" * 200
    states = {"type": "array", "items": {"type": "enum", "name": "E", "symbols": [symbol]}}
    schema = schema_of(("x", states))
    data = written(schema, {"id": "a", "text": "", "x": [symbol] * 20})
    assert len(plain(tmp_path, schema, data, text="{x}").text or "") > 4_000
    by_limits = decoder(
        None, {"max_text_bytes": 1_000}, format="avro", schema_file=in_file(tmp_path, schema), text="{x}"
    )
    with pytest.raises(RecordError, match="text_too_large"):
        by_limits.decode(None, data, PLACE, ())
