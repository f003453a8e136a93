"""What `refract run` makes of an app that does not answer."""

from typing import Any

import pytest

from actors.supervisor import GONE_S, RunningApp
from pipeline.errors import RefractError, TransientError
from tests.config_trees import CONFIGS


class Monitor:
    """The handle of the monitor: silent, or with nothing to report."""

    silent = True

    @property
    def reports(self) -> "Monitor":
        return self

    def remote(self) -> "Monitor":
        return self

    def result(self, timeout_s: float) -> list[Any]:
        assert timeout_s
        if self.silent:
            raise TimeoutError
        return []


@pytest.fixture
def monitor() -> Monitor:
    return Monitor()


@pytest.fixture
def app(monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> RunningApp:
    made = RunningApp(CONFIGS / "null.yaml")
    made._monitor = monitor  # type: ignore[assignment] # a stand-in
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    return made


def at(monkeypatch: pytest.MonkeyPatch, now_s: float) -> None:
    monkeypatch.setattr("time.monotonic", lambda: now_s)


def test_silence_is_an_outage_for_a_minute_and_then_the_end(app: RunningApp, monkeypatch: pytest.MonkeyPatch) -> None:
    for now_s in (100.0, 100.0 + GONE_S):
        at(monkeypatch, now_s)
        with pytest.raises(TransientError):
            app.ready()
    at(monkeypatch, 101.0 + GONE_S)
    with pytest.raises(RefractError, match="Start again") as caught:
        app.ready()
    assert not isinstance(caught.value, TransientError)
    stopped = []
    monkeypatch.setattr("ray.shutdown", lambda: stopped.append(True))
    app.stop(lambda line: pytest.fail(f"it asks those who are gone: {line}"))
    assert stopped == [True]


def test_an_answer_in_between_begins_the_minute_anew(
    app: RunningApp, monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for now_s, silent in ((100.0, True), (150.0, False), (200.0, True)):
        at(monkeypatch, now_s)
        monitor.silent = silent
        if not silent:
            assert app.ready()[0] is False
            continue
        with pytest.raises(TransientError):
            app.ready()
