"""Repeating what an outage interrupted."""

import time
from threading import Event, Timer

import pytest

from pipeline.errors import EnvironmentFault, TransientError
from pipeline.live.retry import Retrier


class Flaky:
    """Fails as often as told, then answers."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.failures, self.error, self.calls = failures, error, 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return "done"


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.live.retry.FIRST_WAIT_S", 0.0001)


def test_outage_is_repeated_until_it_ends_and_counted() -> None:
    repeated: list[str] = []
    flaky = Flaky(7, TransientError("down"))
    assert Retrier(Event(), repeated.append)("store", flaky) == "done"
    assert repeated == ["store"] * 7


def test_what_a_person_must_mend_is_raised_at_once() -> None:
    flaky = Flaky(1, EnvironmentFault("no"))
    with pytest.raises(EnvironmentFault):
        Retrier(Event(), lambda _: None)("store", flaky)
    assert flaky.calls == 1


def test_wait_is_at_least_what_the_component_asked_for() -> None:
    began_s = time.monotonic()
    Retrier(Event(), lambda _: None)("store", Flaky(1, TransientError("busy", retry_after_s=0.05)))
    assert time.monotonic() - began_s >= 0.05


def test_stop_ends_the_waiting_and_raises_the_last_failure() -> None:
    stop = Event()
    Timer(0.05, stop.set).start()
    with pytest.raises(TransientError):
        Retrier(stop, lambda _: None)("store", Flaky(10**9, TransientError("down", retry_after_s=60)))


def test_how_long_the_oldest_call_has_failed_is_known_until_it_works() -> None:
    now, seen = 100.0, []

    def fail_twice() -> str:
        nonlocal now
        seen.append(retry.failing_s())
        now += 4
        if len(seen) < 3:
            raise TransientError("down")
        return "done"

    retry = Retrier(Event(), lambda _: None, clock=lambda: now)
    retry("store", fail_twice)
    assert (seen, retry.failing_s()) == ([0, 0, 4], 0)
    with pytest.raises(EnvironmentFault):
        retry("store", Flaky(1, EnvironmentFault("no")))
    assert retry.failing_s() == 0
