"""Avro as Confluent's serializers write it."""

import json

from tests.registry import Registry
from tests.unit.formats.messages import avro, decoder

TICKET = json.dumps(
    {
        "type": "record",
        "name": "Ticket",
        "namespace": "shop",
        "fields": [{"name": "id", "type": "string"}, {"name": "text", "type": ["null", "string"], "default": None}],
    }
)


def test_a_record_with_a_schema_id_in_front_is_read_by_its_schema(registry: Registry) -> None:
    sent = avro(registry, TICKET, {"id": "a", "text": "hello"})
    assert sent.value is not None
    assert sent.value[:5] == b"\x00\x00\x00\x00\x01"
    found = sent.decoded(decoder(registry, format="avro"))
    assert (found.key, found.text) == ("s:a", "hello")


def test_a_record_with_a_guid_in_a_header_is_read_by_its_schema(registry: Registry) -> None:
    sent = avro(registry, TICKET, {"id": "a", "text": "hello"}, in_header=True)
    assert [name for name, _ in sent.headers] == ["__value_schema_id"]
    assert sent.decoded(decoder(registry, format="avro")).text == "hello"
    assert registry.asked[-1] == f"/schemas/guids/{registry.guid(1)}"
