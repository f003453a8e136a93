"""Reads what a record's Kafka headers say."""

from pipeline.records.digits import whole_number
from pipeline.records.record import Headers


def carried(headers: Headers, wanted: str) -> list[bytes | None]:
    """Returns the values of a header, in order; Kafka allows a name twice."""
    return [value for name, value in headers if name == wanted]


def decimal(header: bytes | None) -> int | str:
    """Returns the header's integer; anything else as a text, which is not a version."""
    number = whole_number((header or b"").decode(errors="replace"))
    return "not digits" if number is None else number
