"""Protobuf as Confluent's serializers write it."""

from typing import Any

import pytest

from tests.registry import Registry
from tests.unit.formats.messages import Sent, decoder, proto_message, protobuf_record

COMMON = """syntax = "proto3"; package shop;
message Customer { string name = 1; }
"""
TICKET = """syntax = "proto3"; package shop;
import "shop/common.proto";
import "google/protobuf/timestamp.proto";
import "google/type/date.proto";
message Other { string id = 1; }
message Ticket {
  string id = 1;
  optional string text = 2;
  Customer customer = 3;
  google.protobuf.Timestamp at = 4;
  map<string, string> tags = 5;
  google.type.Date due = 6;
  message Note { string id = 1; string text = 2; }
}
"""
FILES = {"shop__common": COMMON, "shop__ticket": TICKET}


def ticket(**fields: Any) -> Any:
    return proto_message("shop.Ticket", **FILES)(**{"id": "a", "text": "hello", **fields})


def registered_as_text(registry: Registry) -> int:
    """Registers the .proto files themselves, as Java clients do."""
    registry.register("common", COMMON, "PROTOBUF")
    uses = [{"name": "shop/common.proto", "subject": "common", "version": 1}]
    return registry.register("tickets-value", TICKET, "PROTOBUF", uses)


def test_a_record_with_a_schema_id_and_message_indexes_in_front_is_read(registry: Registry) -> None:
    sent = protobuf_record(registry, ticket())
    assert sent.value is not None
    assert sent.value[5:7] == b"\x02\x02"
    found = sent.decoded(decoder(registry, format="protobuf"))
    assert (found.key, found.text) == ("s:a", "hello")


def test_a_record_with_a_guid_and_message_indexes_in_a_header_is_read(registry: Registry) -> None:
    sent = protobuf_record(registry, ticket(), in_header=True)
    assert sent.headers[0][0] == "__value_schema_id"
    assert sent.decoded(decoder(registry, format="protobuf")).text == "hello"


@pytest.mark.parametrize(
    ("indexes", "message"),
    [(b"\x02\x02", "shop.Ticket"), (b"\x00", "shop.Other"), (b"\x04\x02\x00", "shop.Ticket.Note")],
)
def test_schemas_registered_as_text_are_compiled_with_what_they_import(
    registry: Registry, indexes: bytes, message: str
) -> None:
    identifier = registered_as_text(registry)
    written = proto_message(message, **FILES)(id="a").SerializeToString()
    frame = b"\x00" + identifier.to_bytes(4, "big") + indexes
    with_text = decoder(registry, format="protobuf", text="{text?} {id}")
    assert Sent(frame + written).decoded(with_text).text == "a"
