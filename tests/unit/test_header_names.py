"""A header's name that is not UTF-8 costs its record, not its partition."""

from collections.abc import Iterator

import kafka.errors as kafka_errors
import pytest

from pipeline.errors import EnvironmentFault, Reason
from pipeline.records.record import InvalidName
from pipeline.sources.client.header_names import read_any_header_name
from pipeline.sources.client.inflate import bound_inflation
from tests.unit.compressed import CODECS, MIB, RawName, fetched, give_back_client, with_headers
from tests.unit.decoding import body, decode
from tests.unit.fake_consumer import PLACE, Group, assign

GOOD = [("trace", b"1"), ("ünïcode", None)]
BAD = [("trace", b"1"), (RawName(b"caf\xe9\xff"), b"2"), ("last", None)]


@pytest.fixture(autouse=True)
def _client(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    give_back_client(monkeypatch)
    bound_inflation(MIB)
    read_any_header_name()
    yield
    monkeypatch.undo()


@pytest.mark.parametrize("codec", [0, *CODECS.values()])
def test_every_record_of_the_batch_is_read_and_the_name_keeps_what_is_text(codec: int) -> None:
    batch = with_headers(5, GOOD, BAD, [], BAD, GOOD, codec=codec)
    records = fetched(batch, offset=5)(None)[PLACE]
    assert [record.offset for record in records] == [5, 6, 7, 8, 9]
    assert list(records[0].headers) == GOOD == list(records[4].headers)
    names = [name for name, _ in records[1].headers]
    assert names == ["trace", "caf\\xe9\\xff", "last"]
    assert [type(name) for name in names] == [str, InvalidName, str]
    assert [value for _, value in records[1].headers] == [b"1", b"2", None]


def test_the_record_is_a_dead_letter_and_the_partition_goes_on() -> None:
    group = Group([assign, fetched(with_headers(0, GOOD, BAD, GOOD), offset=0)])
    group.poll()
    good, bad, last = group.source.poll(0.1)
    assert good.record is not None
    assert last.record is not None
    letter = bad.dead_letter(bad.error, bad.detail) if bad.error else None
    assert letter is not None
    assert (letter.reason, letter.position.offset) == (Reason.INVALID_HEADER, 1)
    assert letter.headers[1] == ("caf\\xe9\\xff", b"2")
    # Replayed from its letter, the name is text.
    headers = [(str(name), value) for name, value in letter.headers]
    assert decode(body(), headers=headers).text == "hello"


def test_damage_is_named_with_its_place_and_a_way_past_it() -> None:
    batch = bytearray(with_headers(7, GOOD, GOOD))
    batch[-3] ^= 0xFF
    with pytest.raises(kafka_errors.CorruptRecordError, match=r"t\[0\].*ends at offset 8, from offset 7 on"):
        fetched(bytes(batch), offset=7)(None)
    group = Group(*[[assign, fetched(bytes(batch), offset=7)] for _ in range(9)])
    with pytest.raises(EnvironmentFault, match=r"t\[0\].*offset 8.*set the offset of group 'g' past that batch"):
        group.poll(30)
