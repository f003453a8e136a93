"""What stands beside records: header names and values, dead letters as they are read back, offsets' metadata."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import orjson

from pipeline.config.pipeline import LimitsConfig
from pipeline.config.source import SourceConfig
from pipeline.errors import Reason
from pipeline.records.decode import Decoders
from pipeline.records.record import DeadLetter, InvalidName, place_of
from pipeline.sources.client.header_names import read_any_header_name
from pipeline.sources.group.memory import _parse as remembered
from pipeline.sources.group.positions import Mark, load_witness, without_witness
from pipeline.sources.letters.dead_letters import KafkaDeadLetters
from pipeline.sources.letters.letter_reader import StoredLetter
from pipeline.sources.letters.letter_reader import _parse as letter_of
from pipeline.sources.letters.replay import Original, _plain, origin_of, replay_headers
from tests.fuzz.of_records import PLACE, decoded
from tests.fuzz.target import Target, joined
from tests.unit.compressed import RawName, fetched, with_headers
from tests.unit.decoding import NOW_MS, decoder
from tests.unit.fake_consumer import PLACE as PARTITION

CONFIG = SourceConfig.model_validate(
    {
        "bootstrap_servers": ["b:1"],
        "group_id": "g",
        "topics": {
            "tickets": {"key": "id", "text": "{text}", "version": "v", "version_type": "time", "tasks": ["topic"]},
            "plain": {"key": "id", "text": "{text}", "payload_timestamp": True, "tasks": ["topic"]},
        },
        "dead_letter_topic": "dead",
    }
)
LIMITS = LimitsConfig()
HEADER_DECODER = decoder(payload_headers=["h", "refract-version"])


def check_headers(data: bytes) -> None:
    """Names and values of any bytes: the batch is read, and a letter about its record comes back as it was."""
    read_any_header_name()
    parts = data.split(b"\xff\x00")
    given = [(RawName(name), value or None) for name, value in zip(parts[::2], parts[1::2], strict=False)]
    records = fetched(with_headers(7, [("trace", b"1")], list(given), [("trace", b"2")]), offset=7)(None)[PARTITION]
    assert [record.offset for record in records] == [7, 8, 9]
    assert [list(records[at].headers) for at in (0, 2)] == [[("trace", b"1")], [("trace", b"2")]]
    read = list(records[1].headers)
    assert [value for _, value in read] == [value for _, value in given]
    for (name, _), (raw, _) in zip(read, given, strict=True):
        assert isinstance(name, InvalidName) or name.encode() == raw.raw
    decoded(HEADER_DECODER, b'{"id":"a","text":"x"}', b"a", read)
    decoded(HEADER_DECODER, None, b"a", read)
    sent_and_read(read)


def sent_and_read(headers: Sequence[tuple[str, bytes | None]]) -> None:
    """A dead letter with these headers, written and read back."""
    letter = DeadLetter(PLACE, Reason.INVALID_HEADER, b"a", b"{}", headers, "topic", "a detail")
    written = KafkaDeadLetters(CONFIG, "pipeline")._message(letter, None)
    found = letter_of(SimpleNamespace(**written, timestamp=NOW_MS))
    assert found is not None
    assert (found.position, found.reason, found.key, found.value) == (PLACE, letter.reason, b"a", b"{}")
    if not found.is_shortened:
        assert [*found.headers] == [(str(name), value) for name, value in headers]
    replayed(found)


def replayed(letter: StoredLetter) -> None:
    """What a replay makes of a letter's headers."""
    topic, partition, offset = origin_of(letter)
    assert partition >= 0 <= offset
    original = Original(letter, (topic, partition, offset), letter.key, letter.value, _plain(letter.headers))
    for name in ("tickets", "plain"):
        for value in (letter.value, None):
            names = [header for header, _ in replay_headers(replace(original, value=value), CONFIG.topics[name])]
            assert all(name.encode() is not None for name in names)


def check_letter(data: bytes) -> None:
    """A message of the dead-letter topic that something else may have written: name, value, name, value."""
    parts = [part.decode(errors="replace") for part in data.split(b"\xff\x00")]
    headers = [(name, value.encode()) for name, value in zip(parts[::2], parts[1::2], strict=False)]
    facts = {f"refract.{name}": b"1" for name in ("partition", "offset", "timestamp")}
    topic = [("refract.topic", b"tickets"), ("refract.reason", b"no_key")]
    message = SimpleNamespace(timestamp=NOW_MS, key=None, value=data, headers=[*facts.items(), *topic, *headers])
    found = letter_of(message)
    if found is None:
        return
    assert found.num_value_bytes >= 0 <= found.generation
    if found.position.partition >= 0 <= found.position.offset:
        replayed(found)
    if found.position.topic in CONFIG.topics:
        topic_decoder: Any = Decoders(CONFIG, LIMITS, lambda: NOW_MS).of(found.position.topic)
        decoded(topic_decoder, found.value, found.key, found.headers)


def check_offset(data: bytes) -> None:
    """The metadata of a committed offset, which another program may have written; and a point's `_source`."""
    metadata = data.decode(errors="surrogateescape")
    mark = Mark.load(metadata)
    if mark is not None:
        assert Mark.load(mark.dump()) == mark
    without_witness(metadata)
    witness = load_witness(metadata)
    if witness is not None:
        assert len(witness.id) == 16
    try:
        content = orjson.loads(data)
    except orjson.JSONDecodeError:
        content = None
    if isinstance(content, dict):
        for found in remembered(content).values():
            found.dump()
    place_of(metadata)


HEADERS = Target(
    check_headers,
    [
        joined(b"h", b"1", b"caf\xe9", b"2"),
        joined(b"refract-version", b"17", b"refract-replayed-version", b"12"),
        joined(b"original.x", b"1", b"", b"", b"h", b""),
        joined(b"refract-replayed-from", b"1:2"),
        joined(b"refract-replayed-from", b"9" * 5_000 + b":1"),
        joined(b"refract-replayed-from", "\u0667:\u00b2".encode()),
    ],
)
LETTERS = Target(
    check_letter,
    [
        joined(b"refract.offset", b"17", b"refract.generation", b"3", b"refract.size", b"9"),
        joined(b"refract.generation", "\u00b2".encode(), b"refract.size", "\u0667".encode()),
        joined(b"refract.size", b"9" * 4_400, b"refract.topic", b"plain"),
        joined(b"refract.shortened", b"true", b"original.a", b"1", b"original-null.b", b""),
    ],
    8_192,
)
OFFSETS = Target(
    check_offset,
    [
        b'{"id":"abc","n":3,"first":2,"gen":0,"held":["00112233445566778899aabbccddeeff",17,["0a1b2c3d"]]}',
        b'{"t":"{\\"id\\":\\"\\",\\"n\\":1,\\"first\\":1,\\"gen\\":0}","":"more"}',
        b'{"id":"","n":1e300,"first":"7","gen":-1}',
        b'{"held":["00",1e300,"ab"]}',
        b"topic:3:17",
        b"topic:1:" + b"9" * 4_400,
        "topic:\u0667:1".encode(),
    ],
    8_192,
)
