"""Where a record says which schema it was written with: in front of its bytes, or in a header.

Confluent's wire formats (docs.confluent.io, "Wire format", and `SchemaId` of confluent-kafka 2.16): a byte 0 and an id
of 4 bytes, or a byte 1 and a GUID of 16 bytes; in front of the value, or as the value of a header, where it wins. With
Protobuf there follow the message's indexes, as zigzag varints: how many, and each; a single 0 is the first message.
"""

import uuid

from pipeline.errors import Reason, RecordError
from pipeline.records.headers import carried
from pipeline.records.record import Headers
from pipeline.records.schemas.registry import SchemaId

VALUE_HEADER = "__value_schema_id"
KEY_HEADER = "__key_schema_id"

FIRST_MESSAGE = (0,)

_MAX_INDEXES = 32
"""Levels of nested messages."""

_MAX_VARINT_BYTES = 5


def frame_of(data: bytes, headers: Headers, header: str, *, indexed: bool) -> tuple[SchemaId, tuple[int, ...], int]:
    """Returns the schema's id, the message's indexes, and where in `data` the value begins.

    Args:
        data: Bytes of a value or a key.
        headers: The record's headers.
        header: Name of the header that may hold the id.
        indexed: Whether indexes follow the id.

    Raises:
        RecordError: WRONG_FORMAT.
    """
    given = carried(headers, header) if headers else ()
    if given:
        frame = given[-1] or b""
        identifier, end = _identifier(frame, f"the header {header}")
        indexes, end = _indexes(frame, end) if indexed else (FIRST_MESSAGE, end)
        if end != len(frame):
            raise RecordError(Reason.WRONG_FORMAT, f"the header {header} holds more than a schema id")
        return identifier, indexes, 0
    identifier, end = _identifier(data, "the value" if header == VALUE_HEADER else "the Kafka key")
    indexes, end = _indexes(data, end) if indexed else (FIRST_MESSAGE, end)
    return identifier, indexes, end


def _identifier(frame: bytes, what: str) -> tuple[SchemaId, int]:
    if frame[:1] == b"\x00" and len(frame) >= 5:  # noqa: PLR2004 - the byte and the id
        return int.from_bytes(frame[1:5], "big"), 5
    if frame[:1] == b"\x01" and len(frame) >= 17:  # noqa: PLR2004 - the byte and the GUID
        return uuid.UUID(bytes=frame[1:17]), 17
    begins = "ends within its schema id" if frame[:1] in {b"\x00", b"\x01"} else "does not begin with a schema id"
    raise RecordError(Reason.WRONG_FORMAT, f"{what} {begins}, and has none in a header")


def _indexes(frame: bytes, at: int) -> tuple[tuple[int, ...], int]:
    count, at = _varint(frame, at)
    if count == 0:
        return FIRST_MESSAGE, at
    if not 0 < count <= _MAX_INDEXES:
        raise RecordError(Reason.WRONG_FORMAT, "the message's indexes are no indexes")
    found = []
    for _ in range(count):
        index, at = _varint(frame, at)
        found.append(index)
    return tuple(found), at


def _varint(frame: bytes, at: int) -> tuple[int, int]:
    number = 0
    for place in range(_MAX_VARINT_BYTES):
        if at + place >= len(frame):
            break
        byte = frame[at + place]
        number |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:  # noqa: PLR2004 - the last byte of a varint
            return (number >> 1) ^ -(number & 1), at + place + 1
    raise RecordError(Reason.WRONG_FORMAT, "the message's indexes end too early")
