"""What a Kafka message can be: a table of bytes and of what must become of them."""

import pickle
from typing import Any

from pipeline.errors import Reason
from pipeline.records.record import MAX_VERSION, InvalidName, Record
from tests.bad_input.case import MARKER_TEXT, Case, Place
from tests.bad_input.stream import FIRST_OFFSET, PLANTED, Stream, body, message, outcome_of
from tests.unit.decoding import NOW_MS

DELETED = "deleted"
_MAX_SHOWN = 60


def row(
    number: int,
    value: bytes | None,
    expected: Reason | str,
    *,
    kafka_key: bytes | None = b"k",
    headers: list[tuple[str, bytes | None]] | None = None,
    timestamp_ms: int = NOW_MS,
    topic: dict[str, Any] | None = None,
    limits: dict[str, int] | None = None,
) -> Case:
    """A message and its outcome: a reason, DELETED, or the exact text of an accepted record."""
    bad = message(value, FIRST_OFFSET + 1, kafka_key, (*PLANTED, *(headers or ())), timestamp=timestamp_ms)

    def see(place: Place) -> str:
        seen = outcome_of(place, bad, topic=topic or {}, limits=limits or {})
        decoded = Stream(place, [], topic=topic, limits=limits).decoder_says(bad)
        if seen == "accepted" and isinstance(decoded, Record) and decoded.text != expected:
            return "accepted with another text"
        return seen

    said = expected
    if isinstance(expected, Reason):
        said = f"dead letter: {expected}"
    else:
        said = "delete" if expected == DELETED else "accepted"
    around = {"topic": topic, "limits": limits, "key": kafka_key if kafka_key != b"k" else None}
    settings = "".join(f", {name} {_short(repr(found))}" for name, found in around.items() if found)
    return Case(number, f"{_shown(value)}{settings}", said, see)


def _shown(value: bytes | None) -> str:
    return "null" if value is None else _short(repr(value)[1:])


def _short(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}… ({len(text):,} characters)"


NO_FIELD = {"key": None}
"""The Kafka key names the record."""
VERSIONED = {"version": "v"}
DEEP = b'{"id":"a","text":"zq7-marker-text","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"

CASES = [
    row(1, None, DELETED),
    row(2, None, Reason.NO_KEY, kafka_key=None),
    row(3, b"", Reason.EMPTY_VALUE),
    row(4, body(), MARKER_TEXT),
    row(5, body(), Reason.INVALID_KEY, topic=NO_FIELD, kafka_key=b""),
    row(6, body(), Reason.INVALID_KEY, topic=NO_FIELD, kafka_key=b"\xff\xfe"),
    row(6, body(), MARKER_TEXT, topic={**NO_FIELD, "binary_key": True}, kafka_key=b"\xff\xfe"),
    row(7, b"not json zq7-marker-text", Reason.INVALID_JSON),
    row(8, body()[:-4], Reason.INVALID_JSON),
    row(9, b"[1]", Reason.NOT_AN_OBJECT),
    row(9, b'"zq7-marker-text"', Reason.NOT_AN_OBJECT),
    row(9, b"null", Reason.NOT_AN_OBJECT),
    row(9, b"17", Reason.NOT_AN_OBJECT),
    row(10, b'{"id":"a","text":"zq7-marker-text","text":"y"}', Reason.DUPLICATE_FIELD),
    row(10, b'{"id":"a","text":"zq7-marker-text","meta":{"b":1,"b":1}}', Reason.DUPLICATE_FIELD),
    row(10, b'{"id":"a","text":"zq7-marker-text","list":[{"b":1},{"b":1,"\\u0062":2}]}', Reason.DUPLICATE_FIELD),
    row(10, b'{"id":"a","text":"say \\"a\\": 1, \\"a\\": 2","a":{"id":1},"b":{"id":1}}', 'say "a": 1, "a": 2'),
    row(11, b'{"id":"a","text":"zq7-marker-text","n":NaN}', Reason.INVALID_JSON),
    row(11, b'{"id":"a","text":"zq7-marker-text","n":-Infinity}', Reason.INVALID_JSON),
    row(12, DEEP, Reason.TOO_DEEP),
    row(12, b'{"id":"a","text":"zq7-marker-text","n":' + b'{"n":' * 64 + b"1" + b"}" * 64 + b"}", Reason.TOO_DEEP),
    row(12, b'{"id":"a","text":"zq7-marker-text","n":[' + b"[]," * 500 + b"1]}", MARKER_TEXT),
    row(13, b'{"id":"a","text":"zq7-marker-text","n":' + b"9" * 10_000 + b"}", Reason.INVALID_JSON),
    row(13, b'{"id":' + b"9" * 300 + b',"text":"zq7-marker-text"}', Reason.INVALID_KEY, topic={"key_type": "integer"}),
    row(14, b"\xef\xbb\xbf" + body(), MARKER_TEXT),
    row(15, body().decode().encode("utf-16"), Reason.WRONG_FORMAT),
    row(15, body().decode().encode("utf-16-le"), Reason.WRONG_FORMAT),
    row(15, body().decode().encode("utf-16-be"), Reason.WRONG_FORMAT),
    row(16, b'{"id":"a","text":"bad \\ud800 escape"}', Reason.INVALID_TEXT),
    row(16, b'{"id":"a","text":"raw \xed\xa0\x80"}', Reason.INVALID_JSON),
    row(17, b'{"id":"a","text":"nul\\u0000inside"}', "nul\x00inside"),
    row(18, b'{"id":"a"}', Reason.TEXT_MISSING),
    row(19, b'{"id":"a","text":null}', Reason.TEXT_MISSING),
    row(20, body(text=3), "3"),
    row(20, body(text=["x"]), '["x"]'),
    row(20, body(text={"x": 3}), Reason.TEXT_NOT_A_STRING),
    row(21, body(text=""), Reason.TEXT_EMPTY),
    row(21, body(text=" \n\t\u00a0\u200b\ufeff\u2800"), Reason.TEXT_EMPTY),
    row(21, body(text=" "), DELETED, topic={"on_empty_text": "delete"}),
    row(22, body(text="x" * 2_000_000), Reason.TEXT_TOO_LARGE),
    row(22, body(text="x" * 20_000_000), Reason.RECORD_TOO_LARGE),
    row(22, body(text="\u00e9" * 600), Reason.TEXT_TOO_LARGE, limits={"max_text_bytes": 1_000}),
    row(22, body(text="\u00e9" * 500), "\u00e9" * 500, limits={"max_text_bytes": 1_000}),
    row(23, body(text="x" * 1_000_000), "x" * 1_000_000),
    row(25, body(text="<|endoftext|>[SEP]"), "<|endoftext|>[SEP]"),
    row(26, body(text="{text} {0} {{7*7}} %s {id}"), "{text} {0} {{7*7}} %s {id}"),
    row(
        27,
        body(text="\u0645\u0631\u062d\u0628\u0627 \U0001f600 e\u0301"),
        "\u0645\u0631\u062d\u0628\u0627 \U0001f600 e\u0301",
    ),
    row(28, body(text="\x1b[31mred\x07"), "\x1b[31mred\x07"),
    row(29, body(), Reason.VERSION_MISSING, topic=VERSIONED),
    row(29, body(v=None), Reason.VERSION_MISSING, topic=VERSIONED),
    row(30, body(v="7"), Reason.INVALID_VERSION, topic=VERSIONED),
    row(31, body(v=-1), Reason.INVALID_VERSION, topic=VERSIONED),
    row(32, body(v=7.5), Reason.INVALID_VERSION, topic=VERSIONED),
    row(32, b'{"id":"a","text":"zq7-marker-text","v":1e400}', Reason.INVALID_JSON, topic=VERSIONED),
    row(33, body(v=True), Reason.INVALID_VERSION, topic=VERSIONED),
    row(34, body(v=2**53), Reason.INVALID_VERSION, topic=VERSIONED),
    row(34, body(v=MAX_VERSION), MARKER_TEXT, topic=VERSIONED),
    row(35, body(v="2100-01-01T00:00:00Z"), Reason.VERSION_IN_FUTURE, topic=VERSIONED),
    row(35, body(v=NOW_MS + 301_000), Reason.VERSION_IN_FUTURE, topic={**VERSIONED, "version_type": "time"}),
    row(35, body(v=NOW_MS + 299_000), MARKER_TEXT, topic={**VERSIONED, "version_type": "time"}),
    row(41, None, DELETED, kafka_key=b"never seen"),
    row(43, body(id=1), Reason.INVALID_KEY),
    row(43, body(id=1.0), Reason.INVALID_KEY),
    row(43, body(id=True), Reason.INVALID_KEY),
    row(43, body(id="1"), Reason.INVALID_KEY, topic={"key_type": "integer"}),
    row(43, body(id=True), Reason.INVALID_KEY, topic={"key_type": "integer"}),
    row(43, body(id=1.0), Reason.INVALID_KEY, topic={"key_type": "integer"}),
    row(43, None, Reason.INVALID_KEY, kafka_key=b'"a"'),
    row(43, None, Reason.INVALID_KEY, kafka_key=b'{"id":"a"}'),
    row(43, None, Reason.INVALID_KEY, kafka_key=b"\x00\x00\x00\x00\x00\x00\x00\x11"),
    row(43, None, DELETED, kafka_key=b'"a"', topic={"kafka_key": "json"}),
    row(43, None, DELETED, kafka_key=b'"a"', topic={"kafka_key": "text"}),
    row(43, None, Reason.INVALID_KEY, kafka_key=b"a", topic={"kafka_key": "json"}),
    row(44, body(id="k" * 1_000_000), Reason.KEY_TOO_LARGE),
    row(44, body(), Reason.KEY_TOO_LARGE, topic=NO_FIELD, kafka_key=b"k" * 1_000_000),
    row(48, body(_version=9, _state="deleted", team="x"), MARKER_TEXT),
    row(49, body(team="x" * 5_000_000), Reason.RECORD_TOO_LARGE),
    row(49, body(team="x" * 70_000), Reason.PAYLOAD_TOO_LARGE),
    row(49, body(team={str(i): i for i in range(10_000)}), Reason.PAYLOAD_TOO_LARGE),
    row(50, b'{"id":"a","text":"zq7-marker-text","team":NaN}', Reason.INVALID_JSON),
    row(50, b'{"id":"a","text":"zq7-marker-text","team":18446744073709551616}', Reason.INVALID_PAYLOAD),
    row(50, b'{"id":"a","text":"zq7-marker-text","team":9223372036854775808}', Reason.INVALID_PAYLOAD),
    row(50, b'{"id":"a","text":"zq7-marker-text","team":{"n":[1,-9223372036854775809]}}', Reason.INVALID_PAYLOAD),
    row(50, b'{"id":"a","text":"zq7-marker-text","team":9223372036854775807}', MARKER_TEXT),
    row(50, b'{"id":"a","text":"zq7-marker-text","team":' + b"[" * 30 + b"]" * 30 + b"}", Reason.INVALID_PAYLOAD),
    row(51, body(team="0000-01-01T00:00:60"), MARKER_TEXT),
    row(51, body(v="2020-01-01T00:00:00"), Reason.INVALID_VERSION, topic=VERSIONED),
    row(51, body(v="0000-01-01T00:00:00Z"), Reason.INVALID_VERSION, topic=VERSIONED),
    row(51, body(v="2016-12-31T23:59:60Z"), Reason.INVALID_VERSION, topic=VERSIONED),
    row(51, body(v="9999-12-31T23:59:59-23:59"), Reason.VERSION_IN_FUTURE, topic=VERSIONED),
    row(52, body(unknown=[1, {"deep": None}]), MARKER_TEXT),
    row(53, body(schema=3), Reason.SCHEMA_VERSION, topic={"schema_version": {"field": "schema", "max": 2}}),
    row(53, body(schema="3"), Reason.SCHEMA_VERSION, topic={"schema_version": {"field": "schema", "max": 2}}),
    row(53, body(schema=2), MARKER_TEXT, topic={"schema_version": {"field": "schema", "max": 2}}),
    row(53, body(), MARKER_TEXT, topic={"schema_version": {"field": "schema", "max": 2}}),
    row(54, body(vector=[0.0, "x", 1e39]), MARKER_TEXT),
    row(55, body(), MARKER_TEXT, headers=[("h", None), ("h", b"\xff"), ("h", b"x")], topic={"payload_headers": ["h"]}),
    row(55, body(), Reason.PAYLOAD_TOO_LARGE, headers=[("h", b"x" * 10**6)], topic={"payload_headers": ["h"]}),
    row(55, body(), Reason.INVALID_HEADER, headers=[(InvalidName("caf\\xe9"), b"x")]),
    row(56, body(), MARKER_TEXT, timestamp_ms=-1, topic={"payload_timestamp": True}),
    row(56, body(), MARKER_TEXT, timestamp_ms=32_503_680_000_000, topic={"payload_timestamp": True}),
    row(60, body(text="x" * 999_000), "x" * 999_000),
    row(61, b"\x00\x00\x00\x00\x07" + b"avro body", Reason.WRONG_FORMAT),
    row(61, b"\x00\x00\x00\x00\x07" + body(), Reason.WRONG_FORMAT),
    row(66, pickle.dumps({"id": "a", "text": MARKER_TEXT}), Reason.WRONG_FORMAT),
    row(66, pickle.dumps({"id": "a"}, protocol=0), Reason.INVALID_JSON),
]
