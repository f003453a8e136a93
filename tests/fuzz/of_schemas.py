"""Records with schemas: whatever their bytes are, a record or a `RecordError` comes of them."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import httpx
import pytest

from pipeline.config.pipeline import LimitsConfig
from pipeline.config.source import SourceConfig
from pipeline.records.decode import Decoders, RecordDecoder
from pipeline.records.schemas.registry import SchemaRegistry
from tests.fuzz.of_records import decoded
from tests.fuzz.target import Target, choice, joined, parts_of
from tests.unit.decoding import NOW_MS

DAY = {"type": "int", "logicalType": "date"}
SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Ticket",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "text", "type": ["null", "string"]},
        {"name": "day", "type": DAY},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "tags", "type": {"type": "map", "values": ["null", "double", {"type": "array", "items": "bytes"}]}},
        {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["OPEN", "SHUT"]}},
        {"name": "next", "type": ["null", "Ticket"]},
    ],
}
PROTO = """syntax = "proto3";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
message Ticket {
  string id = 1;
  optional string text = 2;
  string day = 3;
  google.protobuf.Timestamp at = 4;
  bytes price = 5;
  map<string, google.protobuf.Value> tags = 6;
  enum State { OPEN = 0; SHUT = 1; }
  repeated State state = 7;
  Ticket next = 8;
}
"""
_AVRO_BODY = (
    b"\x02a\x02\x0ahello\xce\xbf\x02\x00\x02\x05"
    b"\x04\x02k\x02\x00\x00\x00\x00\x00\x00\xf8\x7f\x02l\x04\x02\x02x\x00\x00\x02\x00"
)
_PROTO_BODY = (
    b"\x0a\x01a\x12\x05hello\x1a\x0a2026-01-02\x22\x02\x08\x05\x2a\x01x"
    b"\x32\x07\x0a\x01k\x12\x02\x20\x01\x3a\x02\x01\x00\x42\x03\x0a\x01b"
)
FRAME = b"\x00\x00\x00\x00"
RECORDS: Mapping[str, bytes] = {
    "avro": FRAME + b"\x01" + _AVRO_BODY,
    "protobuf": FRAME + b"\x02\x00" + _PROTO_BODY,
    "json_schema": FRAME + b'\x03{"id":"a","text":"hello","day":"2026-01-02"}',
}
FORMATS = tuple(RECORDS)
SCHEMAS = {1: ("AVRO", json.dumps(SCHEMA)), 2: ("PROTOBUF", PROTO), 3: ("JSON", "{}"), 4: ("AVRO", '"string"')}
PAYLOAD = ("day", "at", "price", "tags", "state", "next")


def _answer(request: httpx.Request) -> httpx.Response:
    last = request.url.path.rpartition("/")[2]
    kind, text = SCHEMAS.get(int(last), ("", "")) if last.isdigit() else ("", "")
    if not kind:
        return httpx.Response(404, json={"error_code": 40403})
    return httpx.Response(200, json={"schemaType": kind, "schema": text})


@lru_cache
def decoders() -> Mapping[str, RecordDecoder]:
    """By format the decoder of a topic, with a registry in memory."""
    topic = {"key": "id", "text": "{text}", "payload": list(PAYLOAD), "tasks": ["topic"]}
    source = SourceConfig.model_validate(
        {
            "bootstrap_servers": ["b:1"],
            "group_id": "g",
            "schema_registry": {"url": "http://registry"},
            "topics": {name: {**topic, "format": name, "kafka_key": name} for name in FORMATS},
            "dead_letter_topic": "dead",
        }
    )
    assert source.schema_registry is not None
    registry = SchemaRegistry(source.schema_registry, transport=httpx.MockTransport(_answer))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.records.decode.registry_of", lambda _: registry)
        found = Decoders(source, LimitsConfig(), lambda: NOW_MS)
    return {name: found.of(name) for name in FORMATS}


def check_schemas(data: bytes) -> None:
    """A record of a format with schemas, once and again, its schema id in front or in a header."""
    number, rest = choice(data)
    value, key, header = parts_of(rest, 3)
    found = decoders()[FORMATS[number % len(FORMATS)]]
    headers = [("__value_schema_id", header), ("__key_schema_id", header)] if header else []
    first = decoded(found, value or None, key or None, headers)
    assert first == decoded(found, value or None, key or None, headers)


SCHEMA_RECORDS = Target(
    check_schemas,
    [
        *(bytes([number]) + joined(RECORDS[name], RECORDS[name]) for number, name in enumerate(FORMATS)),
        b"\x00" + joined(_AVRO_BODY, b"a", FRAME + b"\x01"),
        b"\x01" + joined(_PROTO_BODY, b"a", FRAME + b"\x02\x00"),
        b"\x00" + joined(b"", FRAME + b"\x04\x02a"),
    ],
)
