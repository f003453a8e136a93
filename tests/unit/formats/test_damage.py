"""Whatever a record's bytes are, a record or a reason comes of them."""

import json
import random
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import RecordError
from pipeline.records.decode import RecordDecoder
from pipeline.records.record import Record
from pipeline.records.schemas.avro import AvroReader
from pipeline.records.schemas.registry import Schema
from pipeline.records.schemas.wanted import EVERYTHING
from tests.fuzz.of_records import storable
from tests.fuzz.of_schemas import FORMATS, RECORDS, SCHEMA, decoders
from tests.unit.formats.messages import Sent


@pytest.fixture(scope="module", params=list(FORMATS))
def read(request: pytest.FixtureRequest) -> tuple[RecordDecoder, bytes]:
    """A decoder, and a good record of its format."""
    return decoders()[request.param], RECORDS[request.param]


def survives(by: RecordDecoder, data: bytes) -> Record | None:
    try:
        found = Sent(data, data[:40] or None).decoded(by)
    except RecordError:
        return None
    storable(found)
    return found


def test_the_good_record_is_read(read: tuple[RecordDecoder, bytes]) -> None:
    found = survives(*read)
    assert found is not None
    assert (found.text, found.payload["day"]) == ("hello", "2026-01-02")


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_bytes_are_a_record_or_a_reason(read: tuple[RecordDecoder, bytes], data: st.DataObject) -> None:
    by, good = read
    start = data.draw(st.sampled_from([0, 5]))
    damaged = bytearray(good)
    for place in data.draw(st.lists(st.integers(start, len(good) - 1), max_size=6)):
        damaged[place] = data.draw(st.integers(0, 255))
    survives(by, bytes(damaged[: data.draw(st.integers(start, len(good)))]) + data.draw(st.binary(max_size=8)))


@given(rest=st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_random_bytes_behind_a_good_schema_id_are_a_record_or_a_reason(
    read: tuple[RecordDecoder, bytes], rest: bytes
) -> None:
    by, good = read
    survives(by, good[:6] + rest)


def test_a_schema_that_is_damaged_is_a_reason() -> None:
    dice = random.Random(7)
    text = json.dumps(SCHEMA)
    parts: list[Any] = ["null", "int", '"x"', "{}", "[]", "1", '"type"', "-5", "true", '{"type":"record"}']
    for _ in range(500):
        start = dice.randrange(len(text))
        damaged = text[:start] + dice.choice(parts) + text[start + dice.randrange(12) :]
        with suppress(RecordError):
            AvroReader(Schema("AVRO", damaged), {}, EVERYTHING, 64)(b"\x02a\x0ahello", 0)
