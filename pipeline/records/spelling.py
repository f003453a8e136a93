"""How values that JSON has no type for are spelt in it, the same for every input; docs/files.md has the table.

Nothing is rounded, and nothing depends on the time zones or packages of the machine that reads.
"""

import datetime as dt
from uuid import UUID

from pipeline.errors import Reason, RecordError

NS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
"""Nanoseconds of a unit."""

_EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - zones are told apart by a value's type
_EPOCH_DAY = dt.date(1970, 1, 1).toordinal()
_DAY_NS = 86_400 * NS["s"]
_INFINITY = float("inf")


def number_or_null(value: float) -> float | None:
    """Returns a number; null for NaN, which is how many tools write a missing one, and for the infinities."""
    return value if -_INFINITY < value < _INFINITY else None


def text(value: bytes) -> str:
    """Returns the text that bytes are in UTF-8. Raises RecordError."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise RecordError(Reason.INVALID_ROW, "not UTF-8") from None


def decimal(unscaled: int, scale: int) -> str:
    """Returns all digits of `unscaled / 10 ** scale`. `scale` is not negative."""
    if not scale:
        return str(unscaled)
    digits = str(abs(unscaled)).rjust(scale + 1, "0")
    return f"{'-' if unscaled < 0 else ''}{digits[:-scale]}.{digits[-scale:]}"


def date(day: int) -> str:
    """Returns the date so many days after 1970-01-01. Raises RecordError."""
    try:
        return dt.date.fromordinal(_EPOCH_DAY + day).isoformat()
    except (ValueError, OverflowError):
        raise RecordError(Reason.INVALID_ROW, "a date outside the years 1 to 9999") from None


def time_of_day(ns: int) -> str:
    """Returns the time so many nanoseconds after midnight. Raises RecordError."""
    if not 0 <= ns < _DAY_NS:
        raise RecordError(Reason.INVALID_ROW, "a time of day of 24 hours or more")
    us, rest = divmod(ns, 1_000)
    return _with_ns((_EPOCH + dt.timedelta(microseconds=us)).time().isoformat(), rest)


def moment(ns: int) -> str:
    """Returns the date and time so many nanoseconds after 1970, without a zone. Raises RecordError."""
    us, rest = divmod(ns, 1_000)
    try:
        return _with_ns((_EPOCH + dt.timedelta(microseconds=us)).isoformat(), rest)
    except OverflowError:
        raise RecordError(Reason.INVALID_ROW, "a time outside the years 1 to 9999") from None


def _with_ns(spelt: str, rest: int) -> str:
    """Adds nanoseconds, if there are any, to a text that ends in seconds or microseconds."""
    if not rest:
        return spelt
    return f"{spelt}{rest:03}" if "." in spelt else f"{spelt}.000000{rest:03}"


def duration(ns: int) -> str:
    """Returns ISO 8601's text of a duration, such as -P1DT2H3M4.5S."""
    sign, ns = ("-", -ns) if ns < 0 else ("", ns)
    seconds, fraction = divmod(ns, NS["s"])
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    second = f"{seconds}.{fraction:09}".rstrip("0") if fraction else str(seconds)
    parts = [(hours, f"{hours}H"), (minutes, f"{minutes}M"), (seconds or fraction, f"{second}S")]
    clock = "".join(part for number, part in parts if number)
    day = f"{days}D" if days else ""
    return f"{sign}P{day}T{clock}" if clock else f"{sign}P{day or 'T0S'}"


def uuid(value: bytes) -> str:
    """Returns the text of 16 bytes, with dashes."""
    return str(UUID(bytes=value))
