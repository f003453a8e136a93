"""Compressed batches as a broker stores them, and the client's own reader for them."""

from collections.abc import Callable, Sequence
from typing import Self

import kafka.codec
import pytest
from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.record import MemoryRecords, default_records, legacy_records
from kafka.record.memory_records import MemoryRecordsBuilder

from tests.unit.fake_consumer import PLACE, Message

CODECS = {"gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
"""Their numbers in a batch."""

MIB = 1 << 20


def give_back_client(patch: pytest.MonkeyPatch) -> None:
    """Has the patch take back what this process does to its Kafka client from here on."""
    patch.setattr(Fetcher, "PartitionRecords", Fetcher.PartitionRecords)
    patch.setattr(default_records.DefaultRecordBatch, "_read_msg", default_records.DefaultRecordBatch._read_msg)
    for module in (kafka.codec, default_records, legacy_records):
        for name in [name for name in vars(module) if name.endswith("_decode")]:
            patch.setattr(module, name, getattr(module, name))


def compressed(codec: str, first_offset: int, *values: bytes, magic: int = 2) -> bytes:
    """One batch of these values."""
    builder = MemoryRecordsBuilder(magic, CODECS[codec], batch_size=1 << 40, offset=first_offset)
    for value in values:
        builder.append(timestamp=1, key=b"k", value=value, headers=[])
    builder.close()
    return bytes(builder.buffer())


class RawName(str):
    """A header's name as other clients may send it: any bytes."""

    __slots__ = ("__dict__",)

    raw: bytes

    def __new__(cls, raw: bytes) -> Self:
        made = super().__new__(cls, raw.decode(errors="replace"))
        made.raw = raw
        return made

    def encode(self, *_encoding: str) -> bytes:
        return self.raw


def with_headers(first_offset: int, *headers: list[tuple[str, bytes | None]], codec: int = 0) -> bytes:
    """One batch with a record for each list of headers."""
    builder = MemoryRecordsBuilder(2, codec, batch_size=1 << 40, offset=first_offset)
    for number, some in enumerate(headers):
        builder.append(timestamp=1, key=b"k", value=b'{"id":"k%d","text":"x"}' % number, headers=some)
    builder.close()
    return bytes(builder.buffer())


def fetched(*batches: bytes, offset: int) -> Callable[[object], dict[TopicPartition, Sequence[Message]]]:
    """A step of a consumer's script: a poll that reads what a broker sent for a fetch from this offset."""

    def step(_consumer: object) -> dict[TopicPartition, Sequence[Message]]:
        records = MemoryRecords(b"".join(batches))
        return {PLACE: Fetcher.PartitionRecords(offset, PLACE, records).take()}

    return step
