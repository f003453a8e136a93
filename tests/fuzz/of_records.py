"""Values, keys, headers, versions and paths: whatever they hold, a record or a `RecordError` comes of them."""

from typing import Any, cast

import numpy as np
import orjson
from pydantic import ValidationError

from pipeline.config.paths import flat_name, split_path, top_names
from pipeline.config.pipeline import LimitsConfig
from pipeline.config.source import TopicConfig
from pipeline.errors import Reason, RecordError
from pipeline.records.batches import PointBatch
from pipeline.records.decode import RecordDecoder
from pipeline.records.files.messages import Keys, Messages, RowDecoder
from pipeline.records.files.reading import Row
from pipeline.records.headers import decimal
from pipeline.records.meaning import Expected, Meaning, value_of
from pipeline.records.record import MAX_VERSION, Position, Record, point_id
from pipeline.records.times import moment
from pipeline.records.values import MISSING, Template, field_at, tombstone_version, version_of
from pipeline.stores.points import checked
from pipeline.stores.wire import WireChunk, upsert_head
from tests.fuzz.target import Target, choice, joined, parts_of
from tests.unit.decoding import NOW_MS, decoder

PLACE = Position("tickets", 2, 41, NOW_MS)
TYPED = {
    "i": {"path": "x", "type": "integer"},
    "f": {"path": "x", "type": "float"},
    "b": {"path": "x", "type": "bool"},
    "d": {"path": "x", "type": "datetime"},
    "u": {"path": "x", "type": "uuid"},
    "k": {"path": "x", "type": "keyword[]"},
    "n": {"path": "x.0.y", "type": "integer[]"},
}
TOPICS: list[dict[str, Any]] = [
    {},
    {"key_type": "integer", "version": "v", "payload": TYPED},
    {"version": "v", "version_type": "time", "payload": TYPED, "on_bad_payload": "dead_letter"},
    {"version": "v", "version_type": "integer", "kafka_key": "json", "delete_when": {"field": "x", "equals": True}},
    {"kafka_key": "int64", "key_type": "integer", "schema_version": {"field": "x", "max": 2}},
    {"key": None, "payload_headers": ["h"], "payload_timestamp": True, "text": "{text?} {x.0}"},
    {"key": None, "binary_key": True, "text": '{"x.y"}: {x.y?}', "on_empty_text": "delete"},
    {"key": "x.y", "kafka_key": "json", "delete_when": {"field": "x.y", "equals": None}},
]
LIMITS: list[dict[str, int]] = [
    {},
    {"max_depth": 500},
    {"max_depth": 2, "max_key_bytes": 16, "max_text_bytes": 64, "max_payload_bytes": 128, "max_payload_fields": 4},
]
DECODERS = [[decoder(limits, **topic) for topic in TOPICS] for limits in LIMITS]
ROW_DECODERS = [
    [
        RowDecoder(decoders[number], Keys("id"), topic, LimitsConfig.model_validate(limits))
        for number, topic in enumerate(
            TopicConfig.model_validate(
                {
                    name: value
                    for name, value in ({"key": "id", "text": "{text}", "tasks": ["topic"]} | settings).items()
                    if value is not None
                }
            )
            for settings in TOPICS
        )
    ]
    for limits, decoders in zip(LIMITS, DECODERS, strict=True)
]


def decoded(found: RecordDecoder, value: bytes | None, key: bytes | None, headers: Any = ()) -> Record | Reason:
    """The record, which a store can take; or why there is none."""
    try:
        record = found.decode(key, value, PLACE, headers)
    except RecordError as error:
        return error.reason
    storable(record)
    return record


def storable(record: Record) -> None:
    """Fails where a record cannot be sent to a model and to a server."""
    assert 0 <= record.version <= MAX_VERSION
    assert record.text is None or record.text.encode().strip()
    ids = np.frombuffer(point_id("pipeline", "topic", record.key), np.uint8).reshape(1, 16)
    deleted = np.array([record.deleted])
    versions = np.array([record.version], np.int64)
    vectors = np.ones((1, 2), np.float32)
    batch = PointBatch(ids, versions, deleted, [record.payload], {"c": vectors})
    WireChunk(checked(batch), slice(0, 1)).upsert(upsert_head("c", strong=False), vectors)
    orjson.dumps(record.payload)


def check_value(data: bytes) -> None:
    """A Kafka message: once, again, and as the line of a file, which means the same."""
    number, rest = choice(data)
    value, key, header = parts_of(rest, 3)
    topic, limits = number % len(TOPICS), number // len(TOPICS) % len(LIMITS)
    found = DECODERS[limits][topic]
    headers = [("h", header), ("refract-version", header), ("refract-replayed-version", header)] if header else []
    first = decoded(found, value or None, key or None, headers)
    assert first == decoded(found, value or None, key or None, headers)
    as_row(value.strip(), limits, topic)


def as_row(text: bytes, limits: int, topic: int) -> None:
    """A line of JSON Lines: what is sent for it and what a backfill makes of it are the same."""
    if not text:
        return
    row = Row(("line", 1), len(text), text=text)
    try:
        message = Messages(Keys("id"), LIMITS[limits].get("max_depth", 64)).of(row, 1)
    except RecordError as error:
        sent: Record | Reason = error.reason
    else:
        sent = decoded(DECODERS[limits][topic], message.value, message.key)
    try:
        filled: Record | Reason = ROW_DECODERS[limits][topic].record_of(row, 1, PLACE)
    except RecordError as error:
        filled = error.reason
    if isinstance(sent, Record) and isinstance(filled, Record):
        assert (sent.key, sent.version, sent.text, sent.payload) == (
            filled.key,
            filled.version,
            filled.text,
            filled.payload,
        )
    else:
        assert isinstance(sent, Record) == isinstance(filled, Record), (sent, filled)


def check_version(data: bytes) -> None:
    """Everything that is read as a number or a time: fields, headers, cells, folders, bounds."""
    text = data.decode(errors="surrogateescape")
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        value = text
    for version_type in (None, "integer", "time"):
        for read, given in ((version_of, value), (version_of, text), (tombstone_version, decimal(data))):
            try:
                version = cast("Any", read)(given, version_type, NOW_MS)
            except RecordError:
                continue
            assert 0 <= version <= MAX_VERSION
            assert type(version) is int
    for meaning in Meaning:
        try:
            cell = value_of(text, Expected(meaning))
        except RecordError:
            continue
        assert cell is None or cell == text or isinstance(cell, float | bool) or -(2**63) <= cell < 2**64
    if (found := moment(text)) is not None:
        assert found.tzinfo is not None


def check_path(data: bytes) -> None:
    """Paths of a configuration: refused, or found in a record that has their names."""
    path = data.decode(errors="replace")
    try:
        topic = TopicConfig.model_validate(
            {
                "key": path,
                "text": f"{{{path}?}}",
                "payload": [path],
                "delete_when": {"field": path, "equals": None},
                "tasks": ["topic"],
            }
        )
    except ValidationError:
        return
    names = split_path(path)
    assert all(names), names
    assert set(top_names(path)) == {names[0], flat_name(path)}
    quoted = ".".join('"{}"'.format(name.replace("\\", "\\\\").replace('"', '\\"')) for name in names)
    assert split_path(quoted) == names
    value: Any = "found"
    for name in reversed(names):
        value = {name: value}
    assert field_at(value, names) == "found"
    assert field_at({flat_name(path): "flat"}, names) == "flat"
    assert field_at({}, names) is MISSING
    if topic.placeholders == (path,):
        assert Template(topic.text).fill(value) == "found"


GOOD = b'{"id":"a","text":"hello","v":1700000000000,"x":[{"y":1}]}'

VALUES = Target(
    check_value,
    [
        *(bytes([number]) + joined(GOOD, b"a", b"7") for number in range(len(TOPICS) * len(LIMITS))),
        *(bytes([number]) + joined(b"", b'"a"', b"1700000000000") for number in range(len(TOPICS))),
        b"\x01" + b'{"id":1,"text":"x","v":"2020-01-01T00:00:00.000001Z","x":"17"}',
        b"\x00\xef\xbb\xbf" + GOOD,
        b'\x08{"id":"a","text":' + b"[" * 300 + b"]" * 300 + b"}",
        b'\x00{"_raw":"{}","_key":"a"}',
        b'\x03{"id":"a","text":"\\ud800","v":1e400,"x":true,"x":true}',
    ],
)
VERSIONS = Target(
    check_version,
    [
        b"17", b"-1", b"007", b"--5", b"1e400", b"true", b'"2020-01-01T00:00:00.123456789+23:59"', b"2020-01-01",
        "\u00b2".encode(), "\u0667".encode(), b"9" * 5_000, b"1.5e-7", b"9007199254740993",
        b"0001-01-01T00:00:00+01:00",
        b"yes", b"N", b"-0", b"9999-12-31t23:59:60z",
    ],
)  # fmt: skip
PATHS = Target(
    check_path,
    [b"id", b"customer.name", b'"service.name"', rb"service\.name", b'a."b.c".0', b'"a', b'a"b"', b"a\\", b'"a\\""',
     b"a..b", b" a", '"\u00e9.x"'.encode(), b'"a"\n'],
    256,
)  # fmt: skip
