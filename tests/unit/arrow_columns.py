"""A column of every Arrow type that files can have, and what its values mean as JSON."""

import datetime as dt
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

BAD: Any = object()
"""Stands for a value that has no meaning as JSON: its row is rejected."""

MOMENT = dt.datetime(2026, 1, 2, 3, 4, 5, 678_901, dt.UTC)
WITH_ZONE = "2026-01-02T03:04:05.678901+00:00"
TOO_LATE = 2_932_897
"""Days to the year 10000."""

_TEXTS = ["a", None, "\u00e9\n\"'\x00", ""]
_STRUCT = pa.struct([("at", pa.timestamp("ns", "Z")), ("sizes", pa.list_(pa.duration("ns")))])


def _bytes(kind: Any) -> Any:
    return pa.array([b"one", b"\xff", None, b"\xc3\xa9"], pa.binary()).cast(kind)


def _broken_text(kind: Any) -> Any:
    """Strings that are not UTF-8, as Parquet's writers may write them."""
    return pa.Array.from_buffers(
        kind, 2, pa.array([b"a", b"\xff"], pa.binary() if kind == pa.string() else pa.large_binary()).buffers()
    )


COLUMNS: Sequence[tuple[Any, Sequence[Any]]] = [
    (pa.nulls(2), [None, None]),
    (pa.array([True, None, False]), [True, None, False]),
    *((pa.array([1, None, 0], kind), [1, None, 0]) for kind in (pa.int8(), pa.uint16(), pa.int32(), pa.int64())),
    (pa.array([2**64 - 1, 2**63], pa.uint64()), [2**64 - 1, 2**63]),
    (pa.array([-(2**63), 2**63 - 1]), [-(2**63), 2**63 - 1]),
    (pa.array(np.array([1.5, np.nan], np.float16)), [1.5, None]),
    (pa.array([0.1, None], pa.float32()), [0.10000000149011612, None]),
    (pa.array([1.5, 5.0, float("nan"), float("inf"), float("-inf")]), [1.5, 5.0, None, None, None]),
    *((pa.array(_TEXTS, kind), _TEXTS) for kind in (pa.string(), pa.large_string())),
    (pa.array(_TEXTS).cast(pa.string_view()), _TEXTS),
    *((_bytes(kind), ["one", BAD, None, "\u00e9"]) for kind in (pa.binary(), pa.large_binary(), pa.binary_view())),
    (pa.array([b"ab", b"\xff\xff", None], pa.binary(2)), ["ab", BAD, None]),
    *((_broken_text(kind), ["a", BAD]) for kind in (pa.string(), pa.large_string())),
    (pa.array([b"\x01" * 16, None], pa.uuid()), ["01010101-0101-0101-0101-010101010101", None]),
    (pa.array(["a", "b", None, "a"]).dictionary_encode(), ["a", "b", None, "a"]),
    (pa.array([Decimal("1.10"), None, Decimal("-2.00")]), ["1.10", None, "-2.00"]),
    (pa.array([Decimal("0E-10")], pa.decimal128(20, 10)), ["0.0000000000"]),
    (pa.array([Decimal(10) ** 40], pa.decimal256(50, 0)), ["1" + "0" * 40]),
    (pa.array([MOMENT.date(), None, dt.date(1, 1, 1)]), ["2026-01-02", None, "0001-01-01"]),
    (pa.array([0, TOO_LATE, -719_163], pa.int32()).cast(pa.date32()), ["1970-01-01", BAD, BAD]),
    (pa.array([MOMENT.date()], pa.date64()), ["2026-01-02"]),
    (pa.array([5, 86_400], pa.int32()).cast(pa.time32("s")), ["00:00:05", BAD]),
    (pa.array([1], pa.time32("ms")), ["00:00:00.001000"]),
    (pa.array([1, None], pa.time64("us")), ["00:00:00.000001", None]),
    (
        pa.array([1, 1_000, 86_399_999_999_999], pa.time64("ns")),
        ["00:00:00.000000001", "00:00:00.000001", "23:59:59.999999999"],
    ),
    (pa.array([MOMENT, None], pa.timestamp("us", "UTC")), [WITH_ZONE, None]),
    *(
        (pa.array([MOMENT], pa.timestamp("us", zone)), [WITH_ZONE])
        for zone in ("Z", "+05:30", "Europe/Berlin", "Mars/Base")
    ),
    (pa.array([MOMENT.replace(tzinfo=None)], pa.timestamp("us")), ["2026-01-02T03:04:05.678901"]),
    (
        pa.array([1, -1], pa.timestamp("ns", "UTC")),
        ["1970-01-01T00:00:00.000000001+00:00", "1969-12-31T23:59:59.999999999+00:00"],
    ),
    (pa.array([-1], pa.timestamp("ms")), ["1969-12-31T23:59:59.999000"]),
    (pa.array([2**62, 0], pa.timestamp("us", "UTC")), [BAD, "1970-01-01T00:00:00+00:00"]),
    (pa.array([2**40, 0], pa.timestamp("s")), [BAD, "1970-01-01T00:00:00"]),
    (pa.array([0, 1, -93_784_500_000_000, None], pa.duration("ns")), ["PT0S", "PT0.000000001S", "-P1DT2H3M4.5S", None]),
    (pa.array([86_400, 3_600], pa.duration("s")), ["P1D", "PT1H"]),
    (pa.array([[1, 2], None, [], [None]]), [[1, 2], None, [], [None]]),
    (pa.array([["a"], None, []], pa.large_list(pa.large_string())), [["a"], None, []]),
    (pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int64(), 2)), [[1, 2], None, [3, 4]]),
    (pa.array([[1], None, [], [2, 3]], pa.list_view(pa.int64())), [[1], None, [], [2, 3]]),
    (pa.array([[0], [TOO_LATE], None], pa.list_(pa.int32())).cast(pa.list_(pa.date32())), [["1970-01-01"], BAD, None]),
    (pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": None}]), [{"a": 1, "b": "x"}, None, {"a": None, "b": None}]),
    (
        pa.array([{"at": 1, "sizes": [1]}, {"at": None, "sizes": None}], _STRUCT),
        [{"at": "1970-01-01T00:00:00.000000001+00:00", "sizes": ["PT0.000000001S"]}, {"at": None, "sizes": None}],
    ),
    (pa.array([[("a", 1), ("b", None)], None, []], pa.map_(pa.string(), pa.int64())), [{"a": 1, "b": None}, None, {}]),
    (pa.array([[(1, True)], [(2, None)]], pa.map_(pa.int64(), pa.bool_())), [{"1": True}, {"2": None}]),
    (pa.array([[("a", 1), ("a", 2)], [("a", 1)]], pa.map_(pa.string(), pa.int64())), [BAD, {"a": 1}]),
    (pa.array([{"n": [{"d": [b"x", b"\xff"]}]}, {"n": [{"d": [b"y"]}]}]), [BAD, {"n": [{"d": ["y"]}]}]),
]
"""(column, what each of its values means)."""


def name_of(column: Any) -> str:
    """The column's type, for the names of tests."""
    return str(column.type)[:60]
