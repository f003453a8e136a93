"""The clocks that code asks for by argument, so that tests own time."""

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Monotonic seconds."""

WallClock = Callable[[], float]
"""Unix seconds; only ever compared with Kafka's timestamps."""


def wall_clock_ms() -> int:
    """Returns milliseconds since 1970."""
    return time.time_ns() // 1_000_000
