"""Bounded decompression gives what the client's own gives, and refuses what is larger without inflating it."""

import gzip
import importlib.util
import random
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import kafka.codec
import lz4.frame
import pytest
import snappy
import zstandard
from kafka.consumer.fetcher import Fetcher
from kafka.record import default_records, legacy_records

from pipeline.errors import EnvironmentFault
from pipeline.sources.client.inflate import InflatedTooLargeError, bound_inflation
from pipeline.sources.group.member import GroupMember
from tests.unit.compressed import CODECS, MIB, compressed, fetched, give_back_client
from tests.unit.fake_consumer import PLACE, Group, assign, messages


def _untouched_codecs() -> ModuleType:
    """The client's codecs as they are shipped, whatever this process has installed."""
    spec = importlib.util.find_spec("kafka.codec")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CLIENT = _untouched_codecs()

BOMB_BYTES = 200 * MIB

BOMBS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda zeros: gzip.compress(zeros, 1),
    "gzip of many members": lambda zeros: gzip.compress(zeros[:MIB]) * (len(zeros) // MIB),
    "snappy": CLIENT.snappy_encode,
    "snappy of one block": snappy.compress,
    "lz4": CLIENT.lz4_encode,
    "lz4 of unknown size": lambda zeros: lz4.frame.compress(zeros, store_size=False),
    "zstd": zstandard.ZstdCompressor().compress,
    "zstd of unknown size": zstandard.ZstdCompressor(write_content_size=False).compress,
    "zstd of many frames": lambda zeros: zstandard.ZstdCompressor().compress(zeros[:MIB]) * (len(zeros) // MIB),
}


@pytest.fixture(autouse=True)
def _client(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    give_back_client(monkeypatch)
    bound_inflation(MIB)
    yield
    monkeypatch.undo()


def decode(codec: str, payload: bytes, client: Any = default_records) -> bytes:
    """The decoder of a codec as the client's readers call it."""
    return bytes(getattr(client, f"{codec.split(maxsplit=1)[0]}_decode")(payload))


def outcome(codec: str, payload: bytes, client: Any) -> bytes | None:
    try:
        return decode(codec, payload, client)
    except Exception:  # noqa: BLE001 - codecs have many
        return None


def samples() -> Iterator[bytes]:
    rng = random.Random(7)
    for size in (1, 10, 1_000, 70_000, 300_000, MIB - 1, MIB):
        yield rng.randbytes(size)
        yield bytes(size)
        yield b"".join(rng.choices((b"ticket", b"printer", rng.randbytes(3)), k=size))[:size]


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_within_the_bound_is_what_the_client_makes_of_it(codec: str) -> None:
    for sample in samples():
        packed = getattr(CLIENT, f"{codec}_encode")(sample)
        assert decode(codec, packed) == decode(codec, packed, CLIENT) == sample


@pytest.mark.parametrize("codec", CODECS)
def test_nothing_compressed_is_nothing(codec: str) -> None:
    # The client's own framing of nothing is one that it cannot read.
    packed = snappy.compress(b"") if codec == "snappy" else getattr(CLIENT, f"{codec}_encode")(b"")
    assert decode(codec, packed) == decode(codec, packed, CLIENT) == b""


@pytest.mark.parametrize(
    ("codec", "payload"),
    [
        ("gzip", b""),
        ("gzip", gzip.compress(b"one") + gzip.compress(b"") + gzip.compress(b"two")),
        ("gzip", gzip.compress(b"one") + bytes(5)),
        ("gzip", gzip.compress(b"one") + b"junk"),
        ("snappy", b""),
        ("snappy", snappy.compress(b"one" * 100)),
        ("snappy", b"\xff\xff\xff\xff\xff\x01"),
        ("snappy", CLIENT.snappy_encode(b"x" * 100) + b"\xff\xff\xff\xf0"),
        ("snappy", CLIENT.snappy_encode(b"x" * 100)[:16]),
        ("lz4", b""),
        ("lz4", lz4.frame.compress(b"one", block_linked=True, content_checksum=True)),
        ("lz4", lz4.frame.compress(b"one" * MIB, store_size=False)[:-4]),
        ("lz4", lz4.frame.compress(b"one", store_size=False) + lz4.frame.compress(b"two")),
        ("lz4", lz4.frame.compress(b"one") + b"junk"),
        ("zstd", b""),
        ("zstd", b"".join(map(zstandard.ZstdCompressor().compress, (b"one", b"", b"two")))),
        ("zstd", zstandard.ZstdCompressor(write_content_size=False, write_checksum=True).compress(b"one" * 9_000)),
        ("zstd", zstandard.ZstdCompressor().compress(b"one") + b"junk"),
    ],
)
def test_odd_and_damaged_payloads_are_read_or_refused_as_by_the_client(codec: str, payload: bytes) -> None:
    assert outcome(codec, payload, default_records) == outcome(codec, payload, CLIENT)


@pytest.mark.parametrize("codec", CODECS)
def test_bytes_flipped_or_cut_anywhere_are_read_or_refused_as_by_the_client(codec: str) -> None:
    rng = random.Random(7)
    whole = getattr(CLIENT, f"{codec}_encode")(b"".join(rng.choice((b"ticket", b"printer")) for _ in range(9_000)))
    for _ in range(200):
        damaged = bytearray(whole[: rng.choice((len(whole), rng.randrange(len(whole))))])
        for _ in range(rng.randrange(3) if damaged else 0):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        expected = outcome(codec, bytes(damaged), CLIENT)
        if expected is None or len(expected) <= MIB:
            assert outcome(codec, bytes(damaged), default_records) == expected


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused_and_takes_little_more_than_the_bound(kind: str) -> None:
    bound_inflation(16 * MIB)
    bomb = BOMBS[kind](bytes(BOMB_BYTES))
    tracemalloc.start()
    try:
        with pytest.raises(InflatedTooLargeError, match=f"of more than {16 * MIB} bytes") as refusal:
            decode(kind, bomb)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 24 * MIB + 2 * len(bomb)
    assert held < 4 * MIB + 2 * len(bomb), f"{refusal.value!r} keeps it"


@pytest.mark.parametrize("codec", CODECS)
def test_one_byte_more_than_the_bound_is_refused(codec: str) -> None:
    for filler in (bytes(MIB + 1), random.Random(7).randbytes(MIB + 1)):
        packed = getattr(CLIENT, f"{codec}_encode")(filler)
        assert decode(codec, packed, CLIENT) == filler
        with pytest.raises(InflatedTooLargeError):
            decode(codec, packed)


def test_a_snappy_block_that_only_claims_to_be_large_takes_no_memory() -> None:
    claims = b"\x80\x80\x80\x80\x04" + b"\x00" * 20  # 1 GiB
    for payload in (claims, CLIENT.snappy_encode(b"x")[:16] + struct.pack("!i", len(claims)) + claims):
        with pytest.raises(InflatedTooLargeError):
            decode("snappy", payload)


def test_every_decoder_that_the_clients_readers_call_is_bounded() -> None:
    for module in (default_records, legacy_records):
        for codec in CODECS:
            name = f"{codec}_decode"
            assert hasattr(module, name) == (module is default_records or codec != "zstd")
            assert getattr(module, name, None) is not getattr(CLIENT, name)
            assert "kafka" not in str(getattr(module, name, ""))
    assert "kafka" not in str(kafka.codec.lz4_decode)


@pytest.mark.parametrize("codec", CODECS)
def test_the_clients_reader_reads_what_is_good_and_names_the_batch_that_it_refuses(codec: str) -> None:
    batches = compressed(codec, 5, b"one", b"two"), compressed(codec, 7, b"x", bytes(8 * MIB))
    reads = fetched(*batches, offset=5)
    assert [record.value for record in reads(None)[PLACE]] == [b"one", b"two"]
    with pytest.raises(
        InflatedTooLargeError, match=r"t\[0\], the batch that ends at offset 8, from offset 7 on: it is"
    ):
        fetched(batches[1], offset=7)(None)


def test_records_of_the_old_format_are_bounded_too() -> None:
    # The broker gives the batch its offset.
    small, large = (
        struct.pack("!q", 5) + compressed("gzip", 0, value, magic=1)[8:] for value in (b"one", bytes(8 * MIB))
    )
    assert [record.value for record in fetched(small, offset=5)(None)[PLACE]] == [b"one"]
    with pytest.raises(InflatedTooLargeError, match="ends at offset 5"):
        fetched(large, offset=5)(None)


@pytest.mark.parametrize("codec", CODECS)
def test_a_source_stops_at_once_and_says_what_to_do(codec: str) -> None:
    group = Group([assign, messages(0), fetched(compressed(codec, 1, bytes(8 * MIB)), offset=1)])
    bound_inflation(64 * MIB)  # of something else in the process
    config = group.source._config.model_copy(update={"max_inflated_batch_bytes": MIB})
    group.source._config = config
    group.source._member = GroupMember(config, make_consumer=group._make_consumer)
    assert group.poll(2) == [0]
    for _ in range(2):
        with pytest.raises(EnvironmentFault) as fault:
            group.poll()
    assert "t[0], the batch that ends at offset 1" in str(fault.value)
    assert f"raise source.max_inflated_batch_bytes ({MIB})" in str(fault.value)
    assert "the offset of group 'g'" in str(fault.value)
    assert len(group.consumers) == 1
    assert group.consumers[0].closed
    assert group.offset == 1


def test_the_last_bound_counts() -> None:
    packed = CLIENT.gzip_encode(bytes(2 * MIB))
    bound_inflation(2 * MIB)
    assert decode("gzip", packed) == bytes(2 * MIB)
    bound_inflation(MIB)
    with pytest.raises(InflatedTooLargeError):
        decode("gzip", packed)
    assert Fetcher.PartitionRecords.__mro__[1].__module__ == "kafka.consumer.fetcher"
