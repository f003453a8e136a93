"""Protobuf: as Confluent's serializers frame and register it, as files, and what each type means."""

import base64
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from pipeline.errors import ConfigError, Reason, RecordError
from pipeline.records.record import Record
from pipeline.records.schemas.protoc import run_protoc
from tests.registry import Registry
from tests.unit.formats.messages import PLACE, Sent, decoder, proto_message, protobuf_record

COMMON = """syntax = "proto3"; package shop;
message Customer { string name = 1; }
"""
TICKET = """syntax = "proto3"; package shop;
import "shop/common.proto";
import "confluent/meta.proto";
import "confluent/type/decimal.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
import "google/type/date.proto";
message Other { string id = 1; }
enum State { OPEN = 0; SHUT = 1; }
message Ticket {
  string id = 1;
  optional string text = 2 [(confluent.field_meta).doc = "what they wrote"];
  Customer customer = 3;
  google.protobuf.Timestamp at = 4;
  map<string, bytes> tags = 5;
  google.type.Date due = 6;
  message Note { string id = 1; string text = 2; }
  repeated Note notes = 7;
  State state = 8;
  double score = 9;
  float small = 10;
  bytes raw = 11;
  sint64 big = 12;
  fixed64 huge = 13;
  google.protobuf.Duration took = 14;
  google.protobuf.Struct extra = 15;
  google.protobuf.StringValue nick = 16;
  google.protobuf.DoubleValue weight = 17;
  map<int32, Customer> by_number = 18;
  map<bool, double> by_flag = 19;
  oneof channel { string mail = 20; uint32 phone = 21; }
  repeated State states = 22;
  repeated string words = 23;
  confluent.type.Decimal price = 24;
  optional State maybe = 25;
  Ticket parent = 26;
  google.protobuf.BytesValue blob = 27;
}
"""
META = """syntax = "proto3"; package confluent;
import "google/protobuf/descriptor.proto";
message Meta { string doc = 1; }
extend google.protobuf.FieldOptions { Meta field_meta = 1088; }
"""
DECIMAL = """syntax = "proto3"; package confluent.type;
message Decimal { bytes value = 1; uint32 precision = 2; int32 scale = 3; }
"""


def message(name: str = "shop.Ticket", /, **fields: Any) -> Any:
    files = {
        "confluent__meta": META,
        "confluent__type__decimal": DECIMAL,
        "shop__common": COMMON,
        "shop__ticket": TICKET,
    }
    return proto_message(name, **files)(**fields)


def ticket(**fields: Any) -> Any:
    return message(**{"id": "a", "text": "hello", **fields})


def registered_as_text(registry: Registry, subject: str = "tickets-value") -> bytes:
    """Registers the .proto files themselves, as Java clients do; returns what frames begin with."""
    registry.register("common", COMMON, "PROTOBUF")
    uses = [{"name": "shop/common.proto", "subject": "common", "version": 1}]
    identifier = registry.register(subject, TICKET, "PROTOBUF", uses)
    return b"\x00" + identifier.to_bytes(4, "big")


FIRST, TICKET_AT = b"\x00", b"\x02\x02"


@pytest.fixture(scope="module")
def by_text(running_registry: Registry) -> Any:
    """Reads what is written with the files as registered; returns a payload field's value."""
    running_registry.__init__(url=running_registry.url)  # type: ignore[misc]
    frame = registered_as_text(running_registry) + TICKET_AT
    found: dict[str, Any] = {}

    def read(path: str, **fields: Any) -> Any:
        by = found.setdefault(path, decoder(running_registry, format="protobuf", payload={"x": path}))
        # The stub forgets between tests; a decoder that has read once does not ask again.
        return Sent(frame + ticket(**fields).SerializeToString()).decoded(by).payload.get("x", "missing")

    return read


@pytest.mark.parametrize("in_header", [False, True])
def test_a_record_is_read_by_the_message_whose_id_and_indexes_it_carries(
    registry: Registry, *, in_header: bool
) -> None:
    sent = protobuf_record(registry, ticket(), in_header=in_header)
    if in_header:
        assert sent.headers == [("__value_schema_id", b"\x01" + registry.guid(len(registry.schemas)).bytes + TICKET_AT)]
    else:
        assert (sent.value or b"")[5:7] == TICKET_AT
    found = sent.decoded(decoder(registry, format="protobuf"))
    assert (found.key, found.text) == ("s:a", "hello")


@pytest.mark.parametrize(
    ("indexes", "name"),
    [
        (TICKET_AT, "shop.Ticket"),
        (FIRST, "shop.Other"),
        (b"\x02\x00", "shop.Other"),
        # Entries of the maps in front of it are not counted.
        (b"\x04\x02\x00", "shop.Ticket.Note"),
    ],
)
def test_schemas_registered_as_text_are_compiled_with_what_they_import(
    registry: Registry, indexes: bytes, name: str
) -> None:
    frame = registered_as_text(registry) + indexes
    by = decoder(registry, format="protobuf", text="{id}")
    assert Sent(frame + message(name, id="a").SerializeToString()).decoded(by).text == "a"


VALUES: list[tuple[str, dict[str, Any], Any]] = [
    ("customer.name", {"customer": {"name": "Ann"}}, "Ann"),
    ("customer", {}, None),
    ("at", {"at": {"seconds": 1, "nanos": 500}}, "1970-01-01T00:00:01.000000500+00:00"),
    ("at", {"at": {"seconds": -1, "nanos": 999_999_000}}, "1969-12-31T23:59:59.999999+00:00"),
    ("at", {}, None),
    ("tags", {"tags": {"k": b"v"}}, {"k": "v"}),
    ("tags", {}, {}),
    ("tags.k", {"tags": {"k": b"v", "other": b"w"}}, "v"),
    ("due", {"due": {"year": 2026, "month": 1}}, {"year": 2026, "month": 1, "day": 0}),
    ("notes.1.text", {"notes": [{}, {"text": "two"}]}, "two"),
    ("notes", {}, []),
    ("state", {}, "OPEN"),
    ("state", {"state": 1}, "SHUT"),
    ("state", {"state": 9}, 9),
    ("states", {"states": [1, 0]}, ["SHUT", "OPEN"]),
    ("score", {"score": float("nan")}, None),
    ("score", {"score": 1.5}, 1.5),
    ("small", {"small": float("inf")}, None),
    ("raw", {"raw": "né".encode()}, "né"),
    ("big", {"big": -(2**62)}, -(2**62)),
    ("huge", {"huge": 2**62}, 2**62),
    ("took", {"took": {"seconds": 90_061, "nanos": 500_000_000}}, "P1DT1H1M1.5S"),
    ("took", {"took": {"seconds": -1, "nanos": -500_000_000}}, "-PT1.5S"),
    ("nick", {}, None),
    ("nick", {"nick": {"value": ""}}, ""),
    ("weight", {"weight": {"value": float("nan")}}, None),
    ("blob", {"blob": {"value": b"x"}}, "x"),
    ("by_number", {"by_number": {3: {"name": "Ann"}}}, {"3": {"name": "Ann"}}),
    ("by_flag", {"by_flag": {True: 1.5}}, {"true": 1.5}),
    ("mail", {"phone": 5}, None),
    ("phone", {"phone": 5}, 5),
    ("words", {"words": ["a", "b"]}, ["a", "b"]),
    ("price", {"price": {"value": b"\xff\x92", "precision": 4, "scale": 2}}, "-1.10"),
    ("maybe", {}, None),
    ("parent.parent.id", {"parent": {"parent": {"id": "b"}}}, "b"),
]


@pytest.mark.parametrize(("path", "fields", "expected"), VALUES, ids=[str(number) for number in range(len(VALUES))])
def test_what_each_type_means_as_json(by_text: Any, path: str, fields: dict[str, Any], expected: Any) -> None:
    assert by_text(path, **fields) == expected


def test_a_struct_is_the_json_that_it_holds(by_text: Any) -> None:
    extra = {"a": [1, 1.5, None, True, {"b": "c"}]}
    given = ticket()
    given.extra.update(extra)
    assert by_text("extra", extra=given.extra) == extra


@pytest.mark.parametrize(
    ("path", "fields", "detail"),
    [
        ("raw", {"raw": b"\xff"}, "not UTF-8"),
        ("at", {"at": {"seconds": 2**55}}, "a time outside the years 1 to 9999"),
        ("at", {"at": {"nanos": -1}}, "a timestamp whose nanos are not within a second"),
        ("price", {"price": {"value": b"\x27\x10", "precision": 4}}, "a decimal of more digits than its precision"),
        ("price", {"price": {"value": b"\x01" * 600}}, "a decimal of too many digits"),
        ("price", {"price": {"value": b"\x01", "scale": -1}}, "a decimal of too many digits"),
    ],
)
def test_a_value_without_a_meaning_is_refused_where_it_is_read(
    by_text: Any, path: str, fields: dict[str, Any], detail: str
) -> None:
    with pytest.raises(RecordError) as refused:
        by_text(path, **fields)
    assert (refused.value.reason, refused.value.detail) == (Reason.INVALID_PROTOBUF, detail)
    assert by_text("id", **fields) == "a"


def test_fields_that_the_schema_does_not_know_are_passed_over(registry: Registry) -> None:
    frame = registered_as_text(registry) + TICKET_AT
    unknown = b"\xfa\x3f\x03abc"
    assert (
        Sent(frame + ticket().SerializeToString() + unknown).decoded(decoder(registry, format="protobuf")).text
        == "hello"
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x02\x08", Reason.INVALID_PROTOBUF),  # the fifth message
        (b"\x02\x01", Reason.INVALID_PROTOBUF),  # the one before the first
        (b"\x04\x02\x02", Reason.INVALID_PROTOBUF),
        (b"\x01", Reason.WRONG_FORMAT),  # a negative count
        (b"\xff\xff\xff\xff\x0f", Reason.WRONG_FORMAT),
        (b"\x80", Reason.WRONG_FORMAT),
        (b"\x80\x80\x80\x80\x80\x80", Reason.WRONG_FORMAT),
        (b"", Reason.WRONG_FORMAT),
        (b"\x02\x02\x0a\x05ab", Reason.INVALID_PROTOBUF),
        (b"\x02\x02\x0a\x01\xff", Reason.INVALID_PROTOBUF),
        (b"\x02\x02" + b"\xd2\x01\x7f" * 3, Reason.INVALID_PROTOBUF),
    ],
)
def test_bytes_that_are_something_else_are_refused_with_the_reason(
    registry: Registry, data: bytes, reason: Reason
) -> None:
    with pytest.raises(RecordError) as refused:
        Sent(registered_as_text(registry) + data).decoded(decoder(registry, format="protobuf"))
    assert refused.value.reason is reason


@pytest.mark.parametrize(
    ("text", "uses"),
    [
        ('syntax = "proto3"; message A { Absent b = 1; }', []),
        ("message", []),
        (TICKET, []),
        ('syntax = "proto3"; import "../../etc/passwd";', [{"name": "../../etc/passwd", "subject": "x", "version": 1}]),
        ('syntax = "proto3"; import "/etc/passwd";', [{"name": "/etc/passwd", "subject": "x", "version": 1}]),
    ],
)
def test_a_schema_that_cannot_be_used_costs_its_records(
    registry: Registry, text: str, uses: list[dict[str, Any]]
) -> None:
    registry.register("x", 'syntax = "proto3";', "PROTOBUF")
    registry.register("tickets-value", text, "PROTOBUF", uses)
    with pytest.raises(RecordError) as refused:
        Sent(b"\x00\x00\x00\x00\x02\x00").decoded(decoder(registry, format="protobuf"))
    assert refused.value.reason is Reason.UNUSABLE_SCHEMA
    assert "/tmp" not in refused.value.detail  # noqa: S108 - where it is compiled is nobody's concern


def test_descriptors_and_texts_may_use_each_other(registry: Registry) -> None:
    common = FileDescriptorProto()
    message("shop.Customer").DESCRIPTOR.file.CopyToProto(common)
    registry.register("common", base64.b64encode(common.SerializeToString()).decode(), "PROTOBUF")
    uses = [{"name": "shop/common.proto", "subject": "common", "version": 1}]
    registry.register("tickets-value", TICKET, "PROTOBUF", uses)
    sent = Sent(b"\x00\x00\x00\x00\x02" + TICKET_AT + ticket(customer={"name": "Ann"}).SerializeToString())
    assert sent.decoded(decoder(registry, format="protobuf", text="{customer.name}")).text == "Ann"


def schema_file(folder: Path, ending: str, text: str = COMMON) -> str:
    source = folder / "x.proto"
    source.write_text(text)
    if ending == ".proto":
        return str(source)
    found: FileDescriptorSet = run_protoc(folder, "x.proto")
    path = folder / f"x{ending}"
    path.write_bytes(found.SerializeToString())
    return str(path)


def plain(path: str, data: bytes, **topic: Any) -> Record:
    """What a topic without a registry makes of Protobuf."""
    by = decoder(None, format="protobuf", schema_file=path, key=None, text="{name}", **topic)
    return by.decode(b"k", data, PLACE, ())


@pytest.mark.parametrize("ending", [".proto", ".desc"])
def test_values_without_a_schema_id_are_read_by_a_file(tmp_path: Path, ending: str) -> None:
    data = message("shop.Customer", name="Ann").SerializeToString()
    path = schema_file(tmp_path, ending)
    assert plain(path, data).text == plain(path, data, message="shop.Customer").text == "Ann"


def test_what_is_wrong_with_a_file_is_said_with_the_nearest_message(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"message 'shop.Custmer' is not in .*Did you mean 'shop.Customer'"):
        plain(schema_file(tmp_path, ".proto"), b"", message="shop.Custmer")
    two = schema_file(tmp_path, ".proto", COMMON + "message Other { string name = 1; }")
    with pytest.raises(ConfigError, match=r"message is missing. Messages: shop.Customer, shop.Other"):
        plain(two, b"")
    broken = tmp_path / "broken.desc"
    broken.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="is no descriptor set"):
        plain(str(broken), b"")
    broken.with_suffix(".proto").write_text("message")
    with pytest.raises(ConfigError, match=r"schema_file: .*broken.proto"):
        plain(str(broken.with_suffix(".proto")), b"")
