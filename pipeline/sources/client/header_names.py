"""Reads records whose header names are not UTF-8, which the client refuses together with all that follow them.

Kafka's brokers and its Java client take any bytes as a header's name. kafka-python 3.0 decodes the names strictly,
while it reads a batch: one such name makes a batch unreadable for ever.
"""

from typing import Any

from kafka.record.default_records import DefaultRecordBatch

from pipeline.records.record import InvalidName

_read_strictly = DefaultRecordBatch._read_msg  # noqa: SLF001 - the client has no setting for it


def read_any_header_name() -> None:
    """Makes every consumer of this process read such records; each of those names is an `InvalidName`."""
    DefaultRecordBatch._read_msg = _read_msg  # noqa: SLF001 - see above


def _read_msg(self: Any, *args: Any) -> Any:
    try:
        return _read_strictly(self, *args)
    except UnicodeDecodeError:
        buffer = self._buffer
        # Its position is still before this record: it moves when a record is read to its end.
        self._buffer = _Lenient(buffer)
        try:
            return _read_strictly(self, *args)
        finally:
            self._buffer = buffer


class _Lenient(bytearray):
    """Bytes of which every part can be decoded. Slow, so only the record that needs it is read through it."""

    def __getitem__(self, at: Any) -> Any:
        part = super().__getitem__(at)
        return _Lenient(part) if isinstance(at, slice) else part

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Returns a name as it is, or an InvalidName."""
        try:
            return super().decode(encoding, errors)
        except UnicodeDecodeError:
            return InvalidName(super().decode(encoding, "backslashreplace"))
