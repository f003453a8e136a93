"""`refract run`: waits until the app is ready, heeds signals, and always takes the app down in order."""

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from pipeline.cli.exits import ExitCode
from pipeline.cli.main import invoke
from pipeline.errors import ConfigError, TransientError
from pipeline.usecases.running import total_written
from tests.config_trees import CONFIGS

NULL = str(CONFIGS / "null.yaml")


class FakeApp:
    """Stands for actors.supervisor.RunningApp; `script` is what `ready` does, call by call."""

    calls: ClassVar[list[str]]
    script: ClassVar[Iterator[Callable[[], tuple[bool, str]]]]
    failure: ClassVar[Exception | None]
    url = "http://127.0.0.1:8000"

    def __init__(self, path: Path, address: str | None) -> None:
        self.calls.append(f"new {path.name} {address}")

    def start(self, progress: Callable[[str], None]) -> None:
        self.calls.append("start")
        progress("starting")
        if self.failure is not None:
            raise self.failure

    def ready(self) -> tuple[bool, str]:
        return next(self.script)()

    def state(self) -> dict[str, Any]:
        signal.raise_signal(signal.SIGTERM)
        return {"topics": {"t": {"lag_records": 5, "tasks": {"a": {"written": 3}, "b": {"written": 4}}}}}

    def stop(self, _progress: Callable[[str], None]) -> None:
        self.calls.append("stop")


@pytest.fixture(autouse=True)
def fake_app(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeApp]]:
    module = ModuleType("actors.supervisor")
    module.RunningApp = FakeApp  # type: ignore[attr-defined] # a stand-in
    monkeypatch.setitem(sys.modules, "actors.supervisor", module)
    monkeypatch.setattr("actors.launch.start_ray", lambda *_: None)
    monkeypatch.setattr("pipeline.logs.configure_logs", lambda: None)
    monkeypatch.setattr("pipeline.usecases.running.LOOK_S", 0.001)
    monkeypatch.setattr("pipeline.cli.run_view._LINE_S", 0.001)
    FakeApp.calls = []
    FakeApp.failure = None
    FakeApp.script = iter([lambda: (True, "")])
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield FakeApp
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_a_signal_ends_the_run_in_order(fake_app: type[FakeApp], capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", NULL, "--address", "auto"]) == ExitCode.OK
    assert fake_app.calls == ["new null.yaml auto", "start", "stop"]
    said = capsys.readouterr().err
    assert "ready after 0 s: http://127.0.0.1:8000/docs" in said
    assert "7 points written, 5 records behind" in said


def test_it_says_once_what_it_waits_for(fake_app: type[FakeApp], capsys: pytest.CaptureFixture[str]) -> None:
    def away() -> tuple[bool, str]:
        raise TransientError("the monitor does not answer")

    waiting = lambda: (False, "0 of 1 ingestors are up")  # noqa: E731 - a step of the script
    fake_app.script = iter([waiting, waiting, away, lambda: (True, "")])
    assert invoke(["run", NULL]) == ExitCode.OK
    said = capsys.readouterr().err.splitlines()
    assert said.count("waiting: 0 of 1 ingestors are up") == 1
    assert said.count("waiting: the monitor does not answer") == 1


def test_a_signal_while_waiting_ends_the_run_too(fake_app: type[FakeApp], capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> tuple[bool, str]:
        signal.raise_signal(signal.SIGINT)
        return False, "loading"

    fake_app.script = iter([interrupted])
    assert invoke(["run", NULL]) == ExitCode.OK
    assert fake_app.calls[-1] == "stop"
    assert "ready after" not in capsys.readouterr().err


def test_a_second_signal_stops_at_once(fake_app: type[FakeApp]) -> None:
    def impatient() -> tuple[bool, str]:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("still running")

    fake_app.script = iter([impatient])
    assert invoke(["run", NULL]) == ExitCode.INTERRUPTED
    assert fake_app.calls[-1] == "stop"


def test_an_app_that_cannot_start_is_taken_down(fake_app: type[FakeApp], capsys: pytest.CaptureFixture[str]) -> None:
    fake_app.failure = ConfigError("api.port: taken")
    assert invoke(["run", NULL]) == ExitCode.CONFIG
    assert fake_app.calls == ["new null.yaml None", "start", "stop"]
    assert "error: api.port: taken" in capsys.readouterr().err


def test_points_are_summed_over_topics_and_tasks() -> None:
    facts = {"tasks": {"a": {"written": 3}, "b": {"written": 4}}}
    assert total_written({"topics": {"x": facts, "y": facts}}) == 14
