"""Text, JSON behind a schema id, Kafka keys with a schema, and keys of several fields."""

import json
import zlib
from typing import Any

import orjson
import pytest
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from pipeline.errors import Reason, RecordError, TransientError
from pipeline.records.decode import Decoders
from pipeline.records.files.messages import RowDecoder, keys_of
from pipeline.records.files.reading import Row
from pipeline.records.formats import Shown
from tests.registry import Registry
from tests.unit.formats.messages import (
    PLACE,
    Sent,
    avro_record,
    client,
    config,
    decoder,
    proto_message,
    protobuf_record,
)
from tests.unit.formats.test_avro import TICKET

SCHEMA = json.dumps({"title": "Ticket", "type": "object", "properties": {"id": {"type": "string"}}})
PAIR = {
    "type": "record",
    "name": "Pair",
    "fields": [{"name": "tenant", "type": "string"}, {"name": "id", "type": "long"}],
}
ONE = {"type": "record", "name": "One", "fields": [{"name": "id", "type": "long"}]}


def reason_of(sent: Sent, by: Any) -> Reason:
    with pytest.raises(RecordError) as refused:
        sent.decoded(by)
    return refused.value.reason


def test_a_string_is_the_text() -> None:
    by = decoder(None, format="string", key=None, text="{value}")
    found = Sent("né {x}".encode(), b"k").decoded(by)
    assert (found.key, found.text, found.version) == ("s:k", "né {x}", 41)
    assert Sent(None, b"k").decoded(by).deleted
    assert reason_of(Sent(b"\xff", b"k"), by) is Reason.INVALID_TEXT
    assert reason_of(Sent(b"  ", b"k"), by) is Reason.TEXT_EMPTY


def test_json_behind_a_schema_id_is_read_without_the_registry(registry: Registry) -> None:
    write = JSONSerializer(SCHEMA, client(registry))
    value = write({"id": "a", "text": "hello"}, SerializationContext("tickets", MessageField.VALUE))
    by, asked = decoder(None, format="json_schema"), len(registry.asked)
    assert Sent(value).decoded(by).text == "hello"
    assert Sent(value[5:], None, [("__value_schema_id", b"\x01" + bytes(16))]).decoded(by).text == "hello"
    assert reason_of(Sent(value[5:]), by) is Reason.WRONG_FORMAT
    assert reason_of(Sent(b"\x00\x00\x00\x00\x01[]"), by) is Reason.NOT_AN_OBJECT
    assert reason_of(Sent(b"\x00\x00\x00\x00\x01{"), by) is Reason.INVALID_JSON
    assert len(registry.asked) == asked


@pytest.mark.parametrize("in_header", [False, True])
def test_a_null_value_deletes_what_its_avro_key_names(registry: Registry, *, in_header: bool) -> None:
    by = decoder(registry, kafka_key="avro", key_type="integer", text="{text}")
    for schema, key in (('"long"', 17), (json.dumps(ONE), {"id": 17})):
        sent = avro_record(registry, schema, key, key=True, in_header=in_header)
        assert (sent.decoded(by).key, sent.decoded(by).deleted) == ("i:17", True)
        sent.value = b'{"id":17,"text":"hello"}'
        assert (sent.decoded(by).key, sent.decoded(by).is_key_misspelt) == ("i:17", False)
        sent.value = b'{"id":18,"text":"hello"}'
        assert sent.decoded(by).is_key_misspelt


def test_a_null_value_deletes_what_its_protobuf_key_names(registry: Registry) -> None:
    key = proto_message("One", one='syntax = "proto3"; message One { int64 id = 1; }')(id=17)
    sent = protobuf_record(registry, key, key=True)
    assert sent.decoded(decoder(registry, kafka_key="protobuf", key_type="integer")).key == "i:17"


def test_a_key_of_json_with_a_schema_id_need_not_be_an_object(registry: Registry) -> None:
    by = decoder(registry, kafka_key="json_schema", key_type="integer")
    for key in (b"17", b'{"id":17}'):
        assert Sent(None, b"\x00\x00\x00\x00\x01" + key).decoded(by).key == "i:17"
    assert reason_of(Sent(None, b"\x00\x00\x00\x00\x01{"), by) is Reason.INVALID_KEY
    assert reason_of(Sent(None, b""), by) is Reason.INVALID_KEY
    assert reason_of(Sent(None), by) is Reason.NO_KEY


def test_a_key_of_several_fields_is_one_key(registry: Registry) -> None:
    several: dict[str, Any] = {"key": ["tenant", "id"], "key_type": ["string", "integer"], "kafka_key": "avro"}
    by = decoder(registry, **several)
    sent = avro_record(registry, json.dumps(PAIR), {"tenant": "x", "id": 17}, key=True)
    assert sent.decoded(by).key == 'c:["x",17]'
    sent.value = b'{"id":17,"text":"hello","tenant":"x"}'
    assert (sent.decoded(by).key, sent.decoded(by).is_key_misspelt) == ('c:["x",17]', False)
    sent.value = b'{"id":"17","text":"hello","tenant":"x"}'
    assert reason_of(sent, by) is Reason.INVALID_KEY
    sent.value = b'{"id":17,"text":"hello"}'
    assert reason_of(sent, by) is Reason.NO_KEY
    assert reason_of(avro_record(registry, '"long"', 17, key=True), by) is Reason.INVALID_KEY


def test_a_key_of_several_fields_cannot_be_spelt_as_text() -> None:
    by = decoder(None, key=["tenant", "id"])
    assert Sent(b'{"id":"1","text":"hello","tenant":"x"}').decoded(by).key == 'c:["x","1"]'
    assert reason_of(Sent(None, b"x"), by) is Reason.INVALID_KEY
    json_keys = decoder(None, key=["tenant", "id"], kafka_key="json")
    assert Sent(None, b'{"tenant":"x","id":"1"}').decoded(json_keys).key == 'c:["x","1"]'


def test_without_a_key_of_the_value_all_fields_of_the_kafka_key_are_it_whatever_their_order(
    registry: Registry,
) -> None:
    by = decoder(registry, key=None, kafka_key="avro")
    turned = {**PAIR, "fields": PAIR["fields"][::-1]}
    for schema in (PAIR, turned):
        sent = avro_record(registry, json.dumps(schema), {"tenant": "x", "id": 17}, key=True)
        assert sent.decoded(by).key == 'c:[17,"x"]'
    one = avro_record(registry, json.dumps(ONE), {"id": 17}, key=True)
    assert one.decoded(decoder(registry, key=None, kafka_key="avro", key_type="integer")).key == "i:17"
    assert reason_of(one, by) is Reason.INVALID_KEY


def test_a_registry_that_is_away_is_no_reason_to_refuse_a_key(registry: Registry) -> None:
    sent = avro_record(registry, '"long"', 17, key=True)
    sent.value = b'{"id":17,"text":"hello"}'
    by = decoder(registry, kafka_key="avro", key_type="integer")
    registry.away = (503, {})
    with pytest.raises(TransientError):
        sent.decoded(by)


def test_rows_of_files_are_json_in_every_format(registry: Registry) -> None:
    found = config(registry, key=["tenant", "id"], format="avro", kafka_key="avro")
    topic = found.source.topics["tickets"]
    decoders = Decoders(found.source, found.limits)
    keys = keys_of("tickets", topic)
    row = orjson.dumps({"tenant": "x", "id": "1", "text": "hello"})
    by = RowDecoder(decoders.of_rows("tickets"), keys, topic, found.limits)
    for text in (row, orjson.dumps({"_raw": row.decode(), "_key": '{"tenant":"x","id":"1"}'})):
        record = by.record_of(Row(("line", 1), len(text), text=text), 1, PLACE)
        assert (record.key, record.text) == ('c:["x","1"]', "hello")
    deleted = orjson.dumps({"_raw": None, "_key": '{"tenant":"x","id":"1"}'})
    assert by.record_of(Row(("line", 1), len(deleted), text=deleted), 1, PLACE).key == 'c:["x","1"]'
    plain = config(None)
    decoders = Decoders(plain.source, plain.limits)
    assert decoders.of_rows("tickets") is decoders.of("tickets")


def test_people_are_shown_json_where_it_can_be_read_and_bytes_where_not(registry: Registry) -> None:
    sent = avro_record(registry, TICKET, {"id": "a", "text": "hello"})
    key = avro_record(registry, '"long"', 17, key=True).key
    found = config(registry, format="avro", kafka_key="avro")
    shown = Shown(found.source, found.limits)
    assert shown.value("tickets", sent.value, ()) == '{"id":"a","text":"hello"}'
    assert shown.key("tickets", key, ()) == "17"
    assert shown.value("tickets", b"\xff", ()) == "hex:ff"
    assert shown.value("tickets", b"{broken", ()) == "{broken"
    assert shown.value("other", b"x", ()) == "x"
    assert shown.value("tickets", None, ()) is None
    registry.away = (503, {})
    again = Shown(found.source, found.limits)
    assert again.value("tickets", sent.value, ()) == f"hex:{(sent.value or b'').hex()}"


def test_a_compressed_value_is_refused_as_something_else(registry: Registry) -> None:
    assert reason_of(Sent(zlib.compress(b"{}")), decoder(registry, format="avro")) is Reason.WRONG_FORMAT
