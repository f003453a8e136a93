"""`refract verify` beside a pipeline that is behind: what it has not come to is pending, and waited for with sense."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.cli.exits import ExitCode
from pipeline.cli.main import invoke
from pipeline.compare.joined import JoinedRange
from pipeline.compare.waiting import Waiting
from pipeline.context import Context
from pipeline.usecases.compare import repair, verify
from pipeline.usecases.compared_sources import CompareRequest
from tests.broker import free_port
from tests.unit.comparing import FakeRange, at, quiet

TASKS = {"urgency": "How urgent is it", "topic": "What is it about"}


class Clock:
    """Time that passes in sleep only."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.pauses = 0
        monkeypatch.setattr("pipeline.compare.waiting.time.monotonic", lambda: self.now)
        monkeypatch.setattr("pipeline.compare.waiting.time.sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses += 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def config_of(folder: Path, store: dict[str, Any]) -> Path:
    tree = {
        "pipeline": "p",
        "source": {
            "bootstrap_servers": ["127.0.0.1:1"],
            "group_id": "p",
            "dead_letter_topic": "dead",
            "topics": {"tickets": {"key": "id", "text": "{text}", "version": "at", "tasks": list(TASKS)}},
        },
        "models": {"hash": {"model": "null:8"}},
        "tasks": {name: {"model": "hash", "instruction": text} for name, text in TASKS.items()},
        "store": store,
        "api": {"port": free_port()},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture
def behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, FakeRange]:
    """An embedded store that holds the first ten of thirty records, as far as the group has committed."""
    config = config_of(tmp_path, {"type": "edge", "path": str(tmp_path / "store")})
    source = FakeRange([at(f"k{number}", 1, number) for number in range(30)])
    monkeypatch.setattr("pipeline.usecases.compared_sources.Sources.open", lambda _: JoinedRange(source, []))
    source.found, later = source.found[:10], source.found
    assert repair(Context.open(config), CompareRequest(), quiet).complete
    source.found, source.finished = later, 10
    return config, source


def test_nothing_is_waited_for_beside_an_embedded_store(behind: tuple[Path, FakeRange], clock: Clock) -> None:
    report = verify(Context.open(behind[0]), CompareRequest(), quiet)
    assert clock.pauses == 0
    assert [(task.pending, task.missing) for task in report.tasks.values()] == [(20, 0), (20, 0)]
    assert (report.equal, report.has_pending, report.has_faults, report.running) == (False, True, False, False)


@pytest.mark.parametrize("verb", ["verify", "repair"])
def test_a_backlog_is_no_reason_to_repair(
    verb: str, behind: tuple[Path, FakeRange], clock: Clock, capfd: pytest.CaptureFixture[str]
) -> None:
    assert invoke([verb, str(behind[0])]) == (ExitCode.FAILED if verb == "verify" else ExitCode.OK)
    told = capfd.readouterr().err
    assert clock.pauses == 0
    assert f"start it with `refract run {behind[0]}`" in told
    assert "mend it" not in told
    assert ("not equal yet" in told) == (verb == "verify")


def test_what_is_missing_is_advised_to_repair_whatever_else_is_pending(
    behind: tuple[Path, FakeRange], capfd: pytest.CaptureFixture[str]
) -> None:
    config, source = behind
    source.finished = 11
    assert invoke(["verify", str(config)]) == ExitCode.FAILED
    told = capfd.readouterr().err
    assert f"not equal; mend it with: refract repair {config}" in told
    assert "a repair leaves them" in told


@pytest.mark.parametrize("members", [0, 2])
def test_beside_a_server_only_a_running_pipeline_is_waited_for(
    members: int,
    behind: tuple[Path, FakeRange],
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    config, _ = behind
    open_edge = Context.open(config).open_store
    server = config_of(config.parent, {"type": "qdrant", "url": "http://127.0.0.1:1"})
    monkeypatch.setattr(Context, "open_store", lambda _: open_edge())
    asked: list[int] = []

    def members_of(_: object) -> int:
        asked.append(members)
        return members

    monkeypatch.setattr("pipeline.sources.group.rewinding.members_of", members_of)
    assert invoke(["verify", str(server), "--wait", "5"]) == ExitCode.FAILED
    assert asked == [members]
    assert clock.now == (5 if members else 0)
    told = capfd.readouterr().err
    assert ("start it with" in told) == (not members)
    assert ("refract run" in told) != bool(members)
    assert told.endswith("not equal yet\n")


def test_one_wait_is_for_everything_and_is_told_in_place(clock: Clock) -> None:
    told: list[tuple[str, int, int]] = []
    waiting = Waiting(5.0, lambda: True, lambda *step: told.append(step))
    left = [10, 7, 3]
    while waiting.goes_on("records of urgency", left.pop(0)) and left:
        pass
    clock.now += 100  # another collection is read: that is no waiting
    while waiting.goes_on("records of topic", 4):
        pass
    assert clock.now == 105
    doing = "waiting up to 5 s for the pipeline to come to records of"
    assert told[:3] == [(f"{doing} urgency", done, 10) for done in (0, 3, 7)]
    assert set(told[3:]) == {(f"{doing} topic", 0, 4)}


def test_who_is_running_is_asked_once_and_only_where_something_is_pending() -> None:
    asked: list[str] = []

    def ask() -> bool:
        asked.append("asked")
        return False

    waiting = Waiting(5.0, ask, quiet)
    assert asked == []
    assert not waiting.goes_on("records", 1)
    assert not waiting.goes_on("records", 1)
    assert (waiting.is_running, asked) == (False, ["asked"])
