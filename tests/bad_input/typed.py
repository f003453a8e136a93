"""Fields with types: values and filters of another type, in messages, files and queries."""

from typing import Any

import orjson

from pipeline.errors import Reason
from pipeline.records.record import point_id
from tests.bad_input.case import MARKER_TEXT, Case, Place, verdict
from tests.bad_input.formats import ACCEPTED, column, read
from tests.bad_input.queries import INVALID, asked
from tests.bad_input.stream import FIRST_OFFSET, PIPELINE, URGENCY, Stream, body, good, message
from tests.unit.fake_consumer import PLACE, assign

LEFT_OUT = "stored without it, 1 counted"
BAD = f"dead letter: {Reason.INVALID_PAYLOAD}"
UUID = "6F7A1C9E-2f0b-5a43-9a55-7be6a2f5c0de"


def field(type_name: str, value: Any, expected: str, on_bad_payload: str = "drop") -> Case:
    """A message with a value in a typed field; what is stored of it, as JSON."""

    def see(place: Place) -> str:
        topic = {"payload": {"x": {"path": "x", "type": type_name}}, "on_bad_payload": on_bad_payload}
        raw = value if isinstance(value, bytes) else orjson.dumps(value)
        bad = body()[:-1] + b',"x":' + raw + b"}"
        batch = [message(bad, FIRST_OFFSET), message(good(1, topic), FIRST_OFFSET + 1)]
        stream = Stream(place, [[assign, {PLACE: batch}]], topic=topic)
        stream.run(num_records=2)
        problems = stream.problems()
        if stream.letters.letters:
            return verdict(f"dead letter: {stream.letters.letters[0].reason}", problems)
        [point] = stream.store.retrieve(URGENCY.collection, [point_id(PIPELINE, "t", "s:a")])
        counted = stream.metrics.payload_dropped.labels("t", "x")._value.get()
        if "x" in point.payload:
            return verdict(f"stored as {orjson.dumps(point.payload['x']).decode()}", problems)
        return verdict(f"stored without it, {counted:.0f} counted", problems)

    shown = value.decode() if isinstance(value, bytes) else orjson.dumps(value).decode()
    return Case(119, f"{type_name}: {shown[:60]}, on_bad_payload: {on_bad_payload}", expected, see)


def filtered(type_name: str, value: Any, expected: str) -> Case:
    """A search that filters on a field of a type."""
    payload = {"x": {"path": "x", "type": type_name} if type_name else {"path": "x"}}
    sent = orjson.dumps({"task": "urgency", "text": MARKER_TEXT, "filter": {"x": "VALUE"}})
    sent = sent.replace(b'"VALUE"', value if isinstance(value, bytes) else orjson.dumps(value))
    shown = value.decode() if isinstance(value, bytes) else orjson.dumps(value).decode()
    return asked(
        120,
        f"{type_name or 'no type'}: {shown[:60]}",
        expected,
        lambda client: client.post("/v1/search", content=sent, headers={"content-type": "application/json"}),
        source__topics__tickets__payload=payload,
    )


OF_FILES = {"payload": {"x": "integer"}}

CASES = [
    *(
        field(type_name, value, f"stored as {stored}")
        for type_name, value, stored in (
            ("integer", "17", "17"),
            ("integer", 17.0, "17"),
            ("float", "1.5e3", "1500.0"),
            ("float", 7, "7.0"),
            ("bool", "true", "true"),
            ("bool", 0, "false"),
            ("keyword", 17, '"17"'),
            ("keyword", True, '"true"'),
            ("uuid", UUID, f'"{UUID.lower()}"'),
            ("datetime", "2026-01-31", '"2026-01-31"'),
            ("keyword[]", "a", '["a"]'),
            ("integer[]", ["1", 2], "[1,2]"),
            ("integer[]", [], "[]"),
            ("integer", None, "null"),
        )
    ),
    *(
        field(type_name, value, expected, on_bad)
        for type_name, value in (
            ("integer", MARKER_TEXT),
            ("integer", 1.5),
            ("integer", True),
            ("integer", 2**63),
            ("integer", b"1e300"),
            ("integer", "9" * 5_000),
            ("integer", "\u0667"),
            ("float", "NaN"),
            ("float", "1e400"),
            ("float", 2**53 + 1),
            ("bool", "maybe"),
            ("bool", 2),
            ("keyword", 1.5),
            ("keyword", ["a"]),
            ("keyword", {"a": 1}),
            ("uuid", f"{{{UUID}}}"),
            ("datetime", "2026-01-31T08:00:00"),
            ("datetime", "2026-02-30"),
            ("datetime", 1_700_000_000_000),
            ("text", ["a"]),
            ("integer[]", [1, MARKER_TEXT]),
            ("keyword[]", [["a"]]),
            ("keyword[]", [None]),
        )
        for on_bad, expected in (("drop", LEFT_OUT), ("dead_letter", BAD))
    ),
    read(
        119, "a column of texts, type integer", f"{ACCEPTED}, {ACCEPTED}", "a.parquet", column(["7", "x"]), **OF_FILES
    ),
    read(
        119,
        "cells of CSV, type integer",
        f"{ACCEPTED}, {ACCEPTED}",
        "a.csv",
        b"id,text,v,x\n1,a,1,7\n2,b,2,x\n",
        **OF_FILES,
    ),
    read(
        119,
        "cells of CSV, type integer, on_bad_payload: dead_letter",
        f"{ACCEPTED}, {Reason.INVALID_PAYLOAD}",
        "a.csv",
        b"id,text,v,x\n1,a,1,7\n2,b,2," + MARKER_TEXT.encode() + b"\n",
        on_bad_payload="dead_letter",
        **OF_FILES,
    ),
    *(
        filtered(type_name, value, expected)
        for type_name, value, expected in (
            ("integer", 7, "200"),
            ("integer", "7", INVALID),
            ("integer", 7.5, INVALID),
            ("integer", True, INVALID),
            ("integer", [1, "a"], INVALID),
            ("integer", 2**63, INVALID),
            ("integer", {"gte": "2026-01-31"}, INVALID),
            ("integer[]", {"gte": 7}, "200"),
            ("integer[]", [7, 8], "200"),
            ("float", b'{"gt": 1' + b"0" * 400 + b"}", INVALID),
            ("float", b'{"gt": 1e999}', INVALID),
            ("float", {"gt": True}, INVALID),
            ("float", 7, "200"),
            ("bool", 1, INVALID),
            ("bool", {"gt": 0}, INVALID),
            ("keyword", 7, INVALID),
            ("keyword", {"gt": 7}, INVALID),
            ("keyword", {"text": "word"}, INVALID),
            ("keyword", [], INVALID),
            ("keyword[]", ["a", "b"], "200"),
            ("uuid", "not one", INVALID),
            ("datetime", "2026-01-31T08:00:00", INVALID),
            ("datetime", {"gte": 1_700_000_000}, INVALID),
            ("datetime", {"gte": "2026-01-31"}, "200"),
            ("text", "word", INVALID),
            ("text", {"text": "two words"}, "200"),
            ("text", {"text": " "}, INVALID),
            ("text", {"text": "a", "is_null": True}, INVALID),
            ("", 1.5, INVALID),
            ("", {"is_null": 1}, INVALID),
            ("", {"is_null": True}, "200"),
            ("", {}, INVALID),
            ("", {"near": 1}, INVALID),
            ("", b'"\\ud800"', INVALID),
            ("", None, INVALID),
        )
    ),
]
