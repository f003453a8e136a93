"""Records with schemas that are damaged, unknown, of another kind or hostile, between good ones of an Avro topic."""

import io
import json
from collections.abc import Mapping
from typing import Any

import fastavro
import httpx

from pipeline.config.formats import SchemaRegistryConfig
from pipeline.errors import Reason, RecordError
from pipeline.records.record import Record
from pipeline.records.schemas.registry import SchemaRegistry
from tests.bad_input.case import MARKER_SECRET, MARKER_TEXT, Case, Place, verdict
from tests.bad_input.stream import FIRST_OFFSET, PLANTED, Stream, message
from tests.unit.fake_consumer import PLACE, assign

TICKET: dict[str, Any] = {
    "type": "record",
    "name": "Ticket",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "text", "type": "string"},
        {"name": "password", "type": "string"},
    ],
}
CHAIN = {"type": "record", "name": "Chain", "fields": [{"name": "next", "type": ["null", "Chain"]}]}
PRICE = {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}
PROTOBUF = 'syntax = "proto3"; message Other { string x = 1; } message Ticket { string id = 1; string text = 2; }'


def with_field(name: str, kind: Any) -> str:
    return json.dumps({**TICKET, "fields": [*TICKET["fields"], {"name": name, "type": kind}]})


SCHEMAS: Mapping[int, tuple[str, str]] = {
    1: ("AVRO", json.dumps(TICKET)),
    2: ("AVRO", '"long"'),
    3: ("PROTOBUF", PROTOBUF),
    4: ("AVRO", with_field("team", CHAIN)),
    5: ("AVRO", with_field("team", {"type": "array", "items": "null"})),
    6: ("AVRO", "x" * (10 << 20)),
    7: ("AVRO", with_field("team", PRICE)),
    8: ("AVRO", with_field("team", "double")),
    9: ("AVRO", '{"type":"array","items":' * 2_000 + '"int"' + "}" * 2_000),
    10: ("AVRO", with_field("team", ["null", *({"type": "fixed", "name": f"F{n}", "size": n} for n in range(1, 300))])),
    11: ("AVRO", '{"type":"record","name":"Key","fields":[{"name":"id","type":"string"}]}'),
    12: ("AVRO", '{"type":"record","name":"Key","fields":[{"name":"n","type":"int"},{"name":"id","type":"string"}]}'),
}


def good(number: int) -> bytes:
    """A record as any producer writes it, with both markers in it."""
    stream = io.BytesIO()
    value = {"id": f"good-{number}", "text": f"good {MARKER_TEXT}", "password": MARKER_SECRET}
    fastavro.schemaless_writer(stream, fastavro.parse_schema(TICKET), value)
    return frame(1) + stream.getvalue()


def frame(identifier: int) -> bytes:
    return b"\x00" + identifier.to_bytes(4, "big")


def answer(request: httpx.Request) -> httpx.Response:
    last = request.url.path.rpartition("/")[2]
    kind, text = SCHEMAS.get(int(last), ("", "")) if last.isdigit() else ("", "")
    if not kind:
        return httpx.Response(404, json={"error_code": 40403})
    return httpx.Response(200, json={"schemaType": kind, "schema": text})


def row(number: int, given: str, value: bytes | None, expected: Reason | str, key: bytes = b"k", **more: Any) -> Case:
    """A message and its outcome between two good ones; the rest changes the topic."""
    bad = message(value, FIRST_OFFSET + 1, key, PLANTED)
    topic = {"format": "avro", "payload": [], **more}
    said = f"dead letter: {expected}" if isinstance(expected, Reason) else expected

    def see(place: Place) -> str:
        config = SchemaRegistryConfig.model_validate({"url": "http://registry"})
        registry = SchemaRegistry(config, transport=httpx.MockTransport(answer))
        place.patch.setattr("pipeline.records.decode.registry_of", lambda _: registry)
        around = [message(good(offset), FIRST_OFFSET + offset, f"good-{offset}".encode()) for offset in (0, 2)]
        script = [[assign, {PLACE: [around[0], bad, around[1]]}]]
        stream = Stream(place, script, topic=topic, source={"schema_registry": {"url": "http://registry"}})
        stream.run(num_records=3)
        problems = stream.problems()
        if topic["format"] == "avro" and not all(isinstance(stream.decoder_says(each), Record) for each in around):
            problems.append("the good records around it are refused")
        letters = [letter for letter in stream.letters.letters if letter.position.offset == bad.offset]
        if letters:
            return verdict(f"dead letter: {letters[0].reason}", problems)
        found = stream.decoder_says(bad)
        if isinstance(found, RecordError):
            return verdict("nowhere", problems)
        return verdict("delete" if found.deleted else f"accepted as {found.key}", problems)

    return Case(number, f"{given}: {'null' if value is None else repr(value[:40])[1:]}", said, see)


BODY = good(1)[5:]
LONG_CHAIN = frame(4) + BODY + b"\x02" * 200_000 + b"\x00"

CASES = [
    row(130, "JSON on an Avro topic", b'{"id":"a","text":"zq7-marker-text"}', Reason.WRONG_FORMAT),
    row(130, "Avro on a JSON topic", good(1), Reason.WRONG_FORMAT, format="json"),
    row(130, "another magic byte", b"\x02" + good(1)[1:], Reason.WRONG_FORMAT),
    row(130, "an id that is cut short", good(1)[:4], Reason.WRONG_FORMAT),
    row(130, "a GUID that is cut short", b"\x01" + good(1)[1:12], Reason.WRONG_FORMAT),
    row(130, "an unknown id", frame(99) + BODY, Reason.UNKNOWN_SCHEMA),
    row(130, "an unknown GUID", b"\x01" + bytes(16) + BODY, Reason.UNKNOWN_SCHEMA),
    row(130, "the id of another subject", frame(2) + BODY, Reason.INVALID_AVRO),
    row(130, "the id of a number", frame(2) + b"\x02", Reason.NOT_AN_OBJECT),
    row(130, "the id of a Protobuf schema", frame(3) + BODY, Reason.WRONG_FORMAT),
    row(131, "nothing behind the id", frame(1), Reason.INVALID_AVRO),
    row(131, "a varint that is cut short", frame(1) + b"\x80", Reason.INVALID_AVRO),
    row(131, "a varint without end", frame(1) + b"\xff" * 40, Reason.INVALID_AVRO),
    row(131, "a negative length", frame(1) + b"\x01" + BODY, Reason.INVALID_AVRO),
    row(131, "a length of exabytes", frame(1) + b"\xfe" * 8 + b"\x7f" + BODY, Reason.INVALID_AVRO),
    row(131, "bytes left over", good(1) + b"\x00", Reason.INVALID_AVRO),
    row(131, "a text that is not UTF-8", frame(1) + b"\x02\xff" + BODY, Reason.INVALID_AVRO),
    row(131, "no such branch of a union", frame(10) + BODY + b"\xfe\x7f", Reason.INVALID_AVRO),
    row(131, "the last of 300 branches", frame(10) + BODY + b"\xd6\x04" + b"x" * 299, "accepted as s:good-1"),
    row(132, "200,000 records within each other", LONG_CHAIN, Reason.TOO_DEEP),
    row(132, "an array of a trillion nulls", frame(5) + BODY + b"\xfe" * 6 + b"\x7f", Reason.UNUSABLE_SCHEMA),
    row(132, "a schema of 10 MB", frame(6) + BODY, Reason.UNUSABLE_SCHEMA),
    row(132, "a schema of 2,000 levels", frame(9) + BODY, Reason.UNUSABLE_SCHEMA),
    row(
        132, "a decimal beyond its precision", frame(7) + BODY + b"\x04\x27\x10", Reason.INVALID_AVRO, payload=["team"]
    ),
    row(132, "NaN", frame(8) + BODY + b"\0\0\0\0\0\0\xf8\x7f", "accepted as s:good-1", payload=["team"]),
    row(133, "an index of no message", frame(3) + b"\x02\x08\x0a\x01a", Reason.INVALID_PROTOBUF, format="protobuf"),
    row(133, "indexes without end", frame(3) + b"\xff" * 9, Reason.WRONG_FORMAT, format="protobuf"),
    row(133, "another message's index", frame(3) + b"\x00\x0a\x01a", Reason.NO_KEY, format="protobuf"),
    row(133, "unknown fields", frame(3) + b"\x02\x02\x0a\x01a\x12\x01b\x7a\x01c", "accepted as s:a", format="protobuf"),
    row(133, "a field that is cut short", frame(3) + b"\x02\x02\x0a\x05a", Reason.INVALID_PROTOBUF, format="protobuf"),
    row(133, "Avro on a Protobuf topic", good(1), Reason.WRONG_FORMAT, format="protobuf"),
    row(134, "a key of the first schema", None, "delete", key=frame(11) + b"\x02a", kafka_key="avro"),
    row(134, "of a later one", None, "delete", key=frame(12) + b"\x0e\x02a", kafka_key="avro"),
    row(134, "of an unknown one", None, Reason.UNKNOWN_SCHEMA, key=frame(99) + b"\x02a", kafka_key="avro"),
    row(134, "a key that is text", None, Reason.WRONG_FORMAT, key=b"good-1", kafka_key="avro"),
]
