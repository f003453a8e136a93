"""What SIGINT and SIGTERM do to a verb that runs until it is stopped."""

import signal
import threading
from typing import Any


def heed_signals() -> threading.Event:
    """Returns an event that the first SIGINT or SIGTERM sets; the second one interrupts whatever runs.

    Call it from the main thread.
    """
    stop = threading.Event()

    def on_signal(_number: int, _frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    return stop
