"""What a record is: one state of one key, its place in the source, and the identity of its points."""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from pipeline.errors import Reason
from pipeline.records.digits import whole_number

MAX_VERSION = 2**53 - 1
"""Qdrant compares payload numbers as float64, so a version must stay exactly representable."""

LOWEST_VERSION = 0
"""Of a file's row whose topic has no `version` field: below every live version of a generation from 1 on."""

OFFSET_BITS = 40
"""`(generation << 40) | offset`: a partition holds a trillion offsets, and 8,191 generations fit below 2^53."""

POINT_NAMESPACE = uuid.UUID("6f7a1c9e-2f0b-5a43-9a55-7be6a2f5c0de")
"""Namespace of every point id. Changing it would orphan every stored point."""


Headers = Sequence[tuple[str, bytes | None]]
"""A record's Kafka headers, in their order; a name may come twice."""


class InvalidName(str):
    """The name of a header that is not UTF-8: what is text of it, and hexadecimal escapes of the other bytes."""

    __slots__ = ()


class Partition(NamedTuple):
    """A topic partition."""

    topic: str
    number: int


@dataclass(frozen=True, slots=True)
class Position:
    """Where a record came from. Travels into payloads and dead letters."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    """Kafka's timestamp; -1 when the broker does not know it."""

    @property
    def source(self) -> str:
        """The place in one text, as it stands in payloads under `_source`."""
        return f"{self.topic}:{self.partition}:{self.offset}"


@dataclass(frozen=True, slots=True)
class Record:
    """One decoded record: what to embed, under which key, and how new it is."""

    key: str
    """Canonical key: `s:` + a string, `i:` + an integer, `b:` + hex, or of several fields `c:` + a JSON array.

    So 1 and "1" stay apart.
    """
    version: int
    text: str | None
    """None means the record deletes its key."""
    payload: Mapping[str, Any]
    position: Position
    is_key_misspelt: bool = False
    """Whether its Kafka key spells another key: a null value with that Kafka key would not delete it."""
    dropped: tuple[str, ...] = ()
    """Payload fields left out, because their values do not fit their types."""

    @property
    def deleted(self) -> bool:
        """Whether the record is a delete."""
        return self.text is None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that can never be stored, with what is needed to find and replay it."""

    position: Position
    reason: Reason
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    task: str = ""
    """The task that refused it; empty when the record itself is bad."""
    detail: str = ""
    """Names of fields, sizes, exception classes; never the record's text."""


@dataclass(slots=True, eq=False)
class Receipt:
    """One delivered offset that is not finished yet. Compared by identity; touched only by its tracker."""

    partition: Partition
    offset: int
    epoch: int
    delivered_s: float
    """When it was delivered, on the tracker's clock."""
    finished: bool = False


@dataclass(frozen=True, slots=True)
class Witness:
    """A point that was stored before an offset was committed; while it is there, the store is still the same."""

    id: bytes
    version: int
    collections: frozenset[str]
    """`collection_tag` of each collection that holds it."""


def collection_tag(collection: str) -> str:
    """Returns eight characters for a collection's name: many of them fit into the metadata of an offset."""
    return hashlib.sha256(collection.encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the source hands over for one offset: a record, or the reason why there is no record.

    Exactly one of `record` and `error` is set.
    """

    receipt: Receipt
    position: Position
    num_bytes: int
    """Size of key and value, for the bound on bytes in flight."""
    record: Record | None = None
    error: Reason | None = None
    detail: str = ""
    raw_key: bytes | None = None
    raw_value: bytes | None = None
    headers: Headers = ()

    def dead_letter(self, reason: Reason, detail: str = "", task: str = "") -> DeadLetter:
        """Returns this delivery as a dead letter."""
        return DeadLetter(self.position, reason, self.raw_key, self.raw_value, self.headers, task, detail)


def point_id(pipeline: str, key_space: str, key: str, chunk: int | None = None) -> bytes:
    """Returns the 16 bytes of uuid5(POINT_NAMESPACE, pipeline, key space, canonical key[, chunk]).

    The parts are length-prefixed, so that no two different tuples spell the same name. Equal to
    `uuid.uuid5` over that name; written out because it runs once per record.
    """
    name = f"{len(pipeline)}:{pipeline}{len(key_space)}:{key_space}{len(key)}:{key}"
    if chunk is not None:
        name += f"#{chunk}"
    digest = bytearray(hashlib.sha1(POINT_NAMESPACE.bytes + name.encode(), usedforsecurity=False).digest()[:16])
    digest[6] = (digest[6] & 0x0F) | 0x50
    digest[8] = (digest[8] & 0x3F) | 0x80
    return bytes(digest)


@dataclass(frozen=True, slots=True)
class PointIds:
    """Gives the records of a pipeline the ids of their points."""

    pipeline: str
    key_spaces: Mapping[str, str]
    """Topic -> its key space: records of two topics share a point only where both name one key space."""

    def of(self, topic: str, key: str) -> bytes:
        """Returns the id of a topic's record by its canonical key."""
        return point_id(self.pipeline, self.key_spaces[topic], key)


def uuid_text(point: bytes) -> str:
    """Returns a point's id as Qdrant writes it, with dashes. Three times as fast as through a UUID object."""
    digits = point.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


@lru_cache
def file_source(uri: str) -> str:
    """Returns what begins `_source` in the payloads of a file's rows: its name, and a hash of where it is.

    It ends in `#`, which no topic's name contains. `uri` is an address, or an absolute path on this machine.
    """
    name = uri.rpartition("/")[2]
    return f"{name}@{hashlib.sha256(uri.encode(errors='surrogateescape')).hexdigest()[:8]}#"


def place_of(source: str) -> tuple[Partition, int] | None:
    """Returns the partition and offset in a `_source`; None where it names a file, or nothing."""
    partition, _, offset = source.rpartition(":")
    topic, _, number = partition.rpartition(":")
    place = whole_number(number), whole_number(offset)
    if "#" in source or not topic or place[0] is None or place[1] is None:
        return None
    return Partition(topic, place[0]), place[1]


def offset_version(generation: int, offset: int) -> int:
    """Returns the version of a record without a version field: its generation and Kafka offset."""
    return (generation << OFFSET_BITS) | offset
