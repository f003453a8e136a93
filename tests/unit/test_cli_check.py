"""`refract check` finds everything at once, starts nothing and creates nothing."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.binding import Task
from pipeline.cli.exits import ExitCode
from pipeline.cli.main import invoke
from pipeline.errors import ConfigError, EnvironmentFault, TransientError
from pipeline.interfaces import CollectionState
from tests.config_trees import tree

FACTS = {"brokers": 1, "topics": {"tickets": 4}}
Check = Callable[..., tuple[int, dict[str, Any]]]


class InspectingStore:
    def __init__(self, inspect: Callable[[Task], CollectionState]) -> None:
        self._inspect = inspect
        self.closed = False

    def check(self) -> str:
        return "a store 1.0"

    def inspect(self, tasks: Iterable[Task]) -> Mapping[str, CollectionState]:
        return {task.name: self._inspect(task) for task in tasks}

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    """Runs `check --json` on a changed null.yaml whose store lies in tmp_path."""
    monkeypatch.setattr("pipeline.sources.client.admin.inspect_cluster", lambda _config: FACTS)

    def run(*options: str, **changes: Any) -> tuple[int, dict[str, Any]]:
        path = tmp_path / "test.yaml"
        path.write_text(yaml.safe_dump(tree(**{"store__path": str(tmp_path / "store"), **changes})), encoding="utf-8")
        code = invoke(["check", str(path), "--json", *options])
        return code, json.loads(capsys.readouterr().out)

    return run


def messages(plan: dict[str, Any]) -> list[str]:
    return [fault["message"] for fault in plan["faults"]]


def fails(error: Exception) -> Callable[..., Any]:
    def fail(*_args: Any, **_options: Any) -> Any:
        raise error

    return fail


def test_a_plan_names_topics_tasks_collections_and_prompts(check: Check, tmp_path: Path) -> None:
    code, plan = check()
    assert (code, plan["ok"]) == (ExitCode.OK, True)
    urgency, issue = plan["tasks"]
    assert (urgency["topic"], urgency["task"], urgency["dimension"], urgency["alias"]) == (
        "tickets",
        "urgency",
        384,
        "urgency",
    )
    assert urgency["collection"].startswith("urgency__")
    assert "<title>\n\n<body>" in urgency["record_prompt"]
    assert issue["state"] == "new"
    assert plan["source"] == FACTS
    assert not (tmp_path / "store").exists(), "check created the store"


def test_offline_asks_nobody_and_says_so(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("pipeline.sources.client.admin.inspect_cluster", fails(AssertionError("asked")))
    monkeypatch.setattr("pipeline.context.open_store", fails(AssertionError("asked")))
    code, plan = check("--offline")
    assert code == ExitCode.OK
    assert plan["skipped"] == ["brokers and topics (--offline)", "store and collections (--offline)"]
    assert {task["state"] for task in plan["tasks"]} == {"not checked"}


def test_offline_a_hub_model_that_is_not_here_is_no_fault(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def absent(name: str, *_: Any) -> None:
        raise ConfigError(f"models.{name}: not in the cache") from TransientError("not in the cache")

    monkeypatch.setattr("pipeline.usecases.check.check_tasks", absent)
    code, plan = check("--offline")
    assert code == ExitCode.OK
    assert "models.null: null:384 is not on this machine (--offline)" in plan["skipped"]
    code, plan = check()
    assert code == ExitCode.UNREACHABLE
    assert messages(plan) == ["models.null: not in the cache"]


def test_faults_of_the_file_come_as_json_too(check: Check) -> None:
    code, plan = check(api__port=0, unknown=1)
    assert code == ExitCode.CONFIG
    assert len(plan["faults"]) == 2


def test_every_fault_is_found_in_one_go(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sources.client.admin.inspect_cluster", fails(TransientError("no broker answers")))
    code, plan = check(
        tasks__urgency__dimension=4096,
        tasks__technical_issue__dimension=9999,
        source__security={"protocol": "SSL", "ca_file": "/absent.pem"},
    )
    assert code == ExitCode.CONFIG
    found = "\n".join(messages(plan))
    for part in ("ca_file: /absent.pem cannot be read", "tasks.urgency.dimension", "tasks.technical_issue.dimension"):
        assert part in found
    assert "no broker answers" in found


def test_only_reachability_gives_its_own_exit_code(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sources.client.admin.inspect_cluster", fails(TransientError("no broker answers")))
    code, plan = check()
    assert code == ExitCode.UNREACHABLE
    assert plan["faults"] == [{"kind": "unreachable", "message": "no broker answers"}]


def test_a_store_is_asked_about_each_collection_and_closed(
    check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store").mkdir()

    def inspect(task: Task) -> CollectionState:
        if task.name == "urgency":
            raise EnvironmentFault("holds other vectors")
        return CollectionState(exists=True, alias=task.alias)

    store = InspectingStore(inspect)
    monkeypatch.setattr("pipeline.context.open_store", lambda *_, **__: store)
    code, plan = check()
    assert code == ExitCode.CONFIG
    assert messages(plan) == ["tasks.urgency: holds other vectors"]
    assert [task["state"] for task in plan["tasks"]] == ["not checked", "exists"]
    assert plan["store"] == "a store 1.0"
    assert store.closed


@pytest.mark.parametrize("app", ["null", "another"])
def test_a_directory_that_the_running_app_holds_is_no_fault(
    app: str,
    check: Check,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "store").mkdir()
    monkeypatch.setattr("pipeline.context.open_store", fails(EnvironmentFault("belongs to another process")))
    monkeypatch.setattr("pipeline.usecases.client.AppClient.status", lambda *_: {"pipeline": app})
    code, plan = check()
    if app == "null":
        assert (code, plan["store"]) == (ExitCode.OK, "in use by the running app")
    else:
        assert messages(plan) == ["store: belongs to another process"]


def test_people_see_a_table_advice_and_faults_but_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.sources.client.admin.inspect_cluster", fails(TransientError("no broker answers")))
    path = tmp_path / "test.yaml"
    monkeypatch.setenv("API_KEY", "hunter2")
    changed = tree(api__api_key="${API_KEY}", models__spare={"model": "null:8"}, store__path=str(tmp_path / "store"))
    path.write_text(yaml.safe_dump(changed), encoding="utf-8")
    assert invoke(["check", str(path)]) == ExitCode.UNREACHABLE
    printed = capsys.readouterr()
    assert "urgency__" in printed.out
    assert "<title>\\n\\n<body>" in printed.out
    assert "No fault found." not in printed.out
    assert "advice: models.spare: no task names it" in printed.err
    assert "error: no broker answers" in printed.err
    assert "hunter2" not in printed.out + printed.err


def test_people_see_what_the_brokers_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = {"brokers": 3, "codecs": ["lz4", "zstd"], "topics": {"tickets": 4}}
    monkeypatch.setattr("pipeline.sources.client.admin.inspect_cluster", lambda _config: facts)
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump(tree(store__path=str(tmp_path / "store"))), encoding="utf-8")
    assert invoke(["check", str(path)]) == ExitCode.OK
    shown = capsys.readouterr().out
    for line in (
        "kafka brokers: 3",
        "kafka codecs: lz4, zstd",
        "kafka topics: tickets (4 partitions)",
        "No fault found.",
    ):
        assert line in shown
    assert "which will be created" in shown


def test_people_get_a_wrong_file_as_messages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump(tree(api__port=0, unknown=1)), encoding="utf-8")
    assert invoke(["check", str(path), "--offline"]) == ExitCode.CONFIG
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 2
    assert printed.out == ""


def test_a_store_that_does_not_answer_is_a_fault_of_the_store(
    check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Plain:
        def check(self) -> str:
            raise TransientError("the server is away")

        def close(self) -> None:
            pass

    (tmp_path / "store").mkdir()
    monkeypatch.setattr("pipeline.context.open_store", lambda *_, **__: Plain())
    code, plan = check()
    assert code == ExitCode.UNREACHABLE
    assert messages(plan) == ["store: the server is away"]


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"tasks__urgency__instruction": "Classify this text"}, "tasks.urgency.instruction: names neither an aspect"),
        (
            {"tasks__urgency__instruction": "What is the technical issue in this support ticket?"},
            "tasks.urgency: asks the same of the same model as tasks.technical_issue",
        ),
    ],
)
def test_advice_on_instructions(check: Check, changes: dict[str, Any], advice: str) -> None:
    code, plan = check("--offline", **changes)
    assert code == ExitCode.OK
    assert any(line.startswith(advice) for line in plan["advice"])
    assert not any(line.startswith("tasks.") for line in check("--offline")[1]["advice"])
