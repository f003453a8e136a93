"""Decompresses fetched batches up to a bound: without it a few kilobytes of zeros could take all memory."""

import gzip
import io
import struct
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import kafka.codec
import kafka.errors as kafka_errors
import lz4.frame
import snappy
import zstandard
from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.record import default_records, legacy_records

_PIECE_BYTES = 1 << 20
"""Inflated at once; a refused batch has taken at most this much more than its bound."""

_XERIAL_MAGIC = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES = 16


class InflatedTooLargeError(kafka_errors.KafkaError):  # type: ignore[misc]  # kafka-python ships no types
    """A compressed batch holds more than `source.max_inflated_batch_bytes`; fetched again it is the same."""


def bound_inflation(max_bytes: int) -> None:
    """Makes every consumer of this process refuse batches that inflate to more. The last call counts.

    The client has no setting for it: it inflates whatever a batch holds, by functions that its readers
    import by name.
    """
    Fetcher.PartitionRecords = _PartitionRecords
    # Of the first, its decoder for the oldest lz4 calls the newer one.
    for module in (kafka.codec, default_records, legacy_records):
        for name in vars(module).keys() & _DECODERS.keys():
            setattr(module, name, partial(_DECODERS[name], max_bytes=max_bytes))


class _PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]  # kafka-python ships no types
    """The client's own, but it says which batch is refused or damaged: the decoders do not know."""

    def _unpack_records(self, place: TopicPartition, records: Any, *deserializers: Any) -> Iterator[Any]:
        batches = _Batches(records)
        try:
            yield from super()._unpack_records(place, batches, *deserializers)
        except (InflatedTooLargeError, kafka_errors.CorruptRecordError) as error:
            last = getattr(batches.current, "last_offset", getattr(batches.current, "base_offset", None))
            batch = "a batch" if last is None else f"the batch that ends at offset {last}"
            where = f"{place.topic}[{place.partition}], {batch}, from offset {self.next_fetch_offset} on"
            raise type(error)(f"{where}: {error.args[0] if error.args else error}") from error


class _Batches:
    """What the client's reader takes batches from, with a memory for the last."""

    def __init__(self, records: Any) -> None:
        self._records = records
        self.current: Any = None

    def next_batch(self) -> Any:
        self.current = self._records.next_batch()
        return self.current


def _gzip_decode(payload: bytes | memoryview, *, max_bytes: int) -> bytearray:
    with gzip.GzipFile(fileobj=io.BytesIO(payload), mode="r") as reader:
        return _collect(_pieces(reader), "gzip", max_bytes)


def _snappy_decode(payload: bytes, *, max_bytes: int) -> bytes:
    # Blocks begin with their inflated length, so a refused batch is not inflated at all.
    blocks = list(_snappy_blocks(payload))
    if sum(map(_snappy_length, blocks)) > max_bytes:
        raise _too_large("snappy", max_bytes)
    return b"".join(map(snappy.decompress, blocks))


def _lz4_decode(payload: bytes, *, max_bytes: int) -> bytearray:
    return _collect(_lz4_pieces(payload), "lz4", max_bytes)


def _zstd_decode(payload: bytes, *, max_bytes: int) -> bytearray:
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(payload), read_across_frames=True) as reader:
        return _collect(_pieces(reader), "zstd", max_bytes)


_DECODERS = {
    "gzip_decode": _gzip_decode,
    "snappy_decode": _snappy_decode,
    "lz4_decode": _lz4_decode,
    "zstd_decode": _zstd_decode,
}
"""By the names of the client's functions that they replace. Within the bound they return the same."""


def _collect(pieces: Iterable[bytes], codec: str, max_bytes: int) -> bytearray:
    whole = bytearray()
    for piece in pieces:
        whole += piece
        if len(whole) > max_bytes:
            whole.clear()  # the error's traceback keeps this frame
            raise _too_large(codec, max_bytes)
    return whole


def _too_large(codec: str, max_bytes: int) -> InflatedTooLargeError:
    return InflatedTooLargeError(f"it is {codec} of more than {max_bytes} bytes")


def _pieces(reader: Any) -> Iterator[bytes]:
    return iter(partial(reader.read, _PIECE_BYTES), b"")


def _lz4_pieces(payload: bytes) -> Iterator[bytes]:
    """Yields the first frame; like the client's, without what stands behind it."""
    decoder = lz4.frame.LZ4FrameDecompressor()
    piece = decoder.decompress(payload, _PIECE_BYTES)
    while piece and not decoder.eof:
        yield piece
        piece = decoder.decompress(b"", _PIECE_BYTES)
    if not decoder.eof:
        raise RuntimeError("the lz4 frame is incomplete")
    yield piece


def _snappy_blocks(payload: bytes) -> Iterator[bytes]:
    """Yields the blocks of the framing that xerial's library writes, or what is one block."""
    if len(payload) <= _XERIAL_HEADER_BYTES or not payload.startswith(_XERIAL_MAGIC):
        yield payload
        return
    at = _XERIAL_HEADER_BYTES
    while at < len(payload):
        (size,) = struct.unpack_from("!i", payload, at)
        if size < 0:
            raise ValueError("a snappy block of negative length")
        yield payload[at + 4 : at + 4 + size]
        at += 4 + size


def _snappy_length(block: bytes) -> int:
    """Returns the varint at the beginning; 0 where there is no varint, which snappy then refuses."""
    length = 0
    for index, byte in enumerate(block[:5]):
        length |= (byte & 0x7F) << 7 * index
        if byte < 0x80:  # noqa: PLR2004 - the last byte of a varint
            return length
    return 0
