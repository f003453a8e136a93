"""Repeats what an outage or a lost answer interrupted, politely and until it works or the worker stops."""

import time
from collections.abc import Callable
from threading import Event
from typing import TypeVar

import structlog
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_after_delay,
    stop_any,
    stop_when_event_set,
)
from tenacity.wait import wait_random_exponential

from pipeline.clock import Clock
from pipeline.errors import Action, TransientError, action_for

MAX_WAIT_S = 5.0
"""Cap of the backoff. With the 3 s a broken connection to a store rests, full speed is back in 10 s after an outage."""

FIRST_WAIT_S = 0.1

Result = TypeVar("Result")
log = structlog.get_logger(__name__)


class Retrier:
    """Calls something for as long as its failures are of the kind that `pipeline.errors.ACTIONS` repeats.

    Backs off exponentially with full jitter, waits at least what the component asked for, and gives
    up only when the worker stops: an outage is never a reason to drop or dead-letter anything.
    Thread-safe.
    """

    def __init__(
        self,
        stop: Event,
        on_retry: Callable[[str], None],
        clock: Clock = time.monotonic,
        *,
        limit_s: float | None = None,
    ) -> None:
        """Takes what ends every repetition, whom to tell, and after how long a call is given up; None is never."""
        self._stop = stop
        self._limits = [stop_when_event_set(stop)] + ([] if limit_s is None else [stop_after_delay(limit_s)])
        self._on_retry = on_retry
        self._clock = clock
        self._failing: dict[object, float] = {}
        """When each call that is being repeated failed first."""
        self._backoff = wait_random_exponential(multiplier=FIRST_WAIT_S, max=MAX_WAIT_S)

    def __call__(self, component: str, call: Callable[[], Result]) -> Result:
        """Returns the call's result.

        Raises its last outage once the worker stops or the limit is over, any other error at once.
        """
        this_call = object()

        def before_sleep(state: RetryCallState) -> None:
            self._failing.setdefault(this_call, self._clock())
            self._on_retry(component)
            error = state.outcome.exception() if state.outcome else None
            log.warning(
                "A component is unavailable; its call is repeated.",
                component=component,
                attempt=state.attempt_number,
                error=type(error).__name__,
                detail=str(error),
            )

        retrying = Retrying(
            retry=retry_if_exception(lambda error: action_for(error) is Action.RETRY),
            wait=self._wait_s,
            stop=stop_any(*self._limits),
            sleep=sleep_using_event(self._stop),
            before_sleep=before_sleep,
            reraise=True,
        )
        try:
            return retrying(call)
        finally:
            self._failing.pop(this_call, None)

    def failing_s(self) -> float:
        """Returns for how long the oldest of the calls that are being repeated has failed, else 0."""
        now = self._clock()
        return max((now - since for since in list(self._failing.values())), default=0.0)

    def _wait_s(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked_s = error.retry_after_s if isinstance(error, TransientError) else None
        return max(self._backoff(state), asked_s or 0.0)
