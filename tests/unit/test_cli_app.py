"""The verbs that ask the running app: search and status; and what they say when it does not answer."""

import functools
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import yaml

from pipeline.cli.exits import ExitCode
from pipeline.cli.filter_options import parse_filter_options
from pipeline.cli.main import invoke
from pipeline.config.payload_fields import PayloadField
from pipeline.errors import ConfigError
from pipeline.usecases.client import AppClient
from tests.config_trees import CONFIGS, parsed, tree

NO_ROUTE = "Path '/v1/status' not found. Ping http://.../-/routes for available routes."
"""What Serve's proxy answers before the app is deployed."""

NULL = str(CONFIGS / "null.yaml")
HITS = {
    "task": "urgency",
    "collection": "urgency",
    "hits": [
        {
            "id": "u",
            "key": "T-1",
            "score": 0.91,
            "version": 7,
            "payload": {"title": "[red]fire[/red]", "n": 1, "_source": {}},
        },
        {"id": "v", "key": "T-2", "score": 0.5, "version": 7, "payload": {"title": "x" * 200}},
    ],
}
TASK = {
    "written": 1200,
    "stale": 3,
    "deleted": 2,
    "embedded": 1205,
    "truncated": 1,
    "freshness_p50_s": 0.05,
    "freshness_p99_s": None,
}
STATE = {
    "pipeline": "null",
    "ready": True,
    "reason": "",
    "uptime_s": 3725.0,
    "topics": {
        "tickets": {
            "lag_records": 41,
            "lag_seconds": 75.2,
            "received": 1300,
            "dead_letters": {"invalid_json": 4, "no_key": 1},
            "paused": True,
            "tasks": {"urgency": TASK},
        }
    },
    "models": {"null": {"replicas": 2, "occupancy": 0.25, "queued": 3, "tokens_per_s": 123456.0}},
}

Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Callable[[Handler], list[httpx.Request]]:
    """Puts an app behind every AppClient and returns what it was asked."""

    def install(handler: Handler) -> list[httpx.Request]:
        asked: list[httpx.Request] = []

        def answer(request: httpx.Request) -> httpx.Response:
            asked.append(request)
            return handler(request)

        client = functools.partial(AppClient, transport=httpx.MockTransport(answer))
        monkeypatch.setattr("pipeline.usecases.client.AppClient", client)
        return asked

    return install


Install = Callable[[Handler], list[httpx.Request]]


def answers(body: Any, status: int = 200) -> Handler:
    return lambda _request: httpx.Response(status, json=body)


def refuses(_request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


def test_search_asks_for_what_was_typed(app: Install, capsys: pytest.CaptureFixture[str]) -> None:
    asked = app(answers(HITS))
    args = [
        "--task",
        "urgency",
        "server room is on fire",
        "-n",
        "3",
        "-f",
        "language=en",
        "-f",
        "issue=a",
        "-f",
        "issue=b",
    ]
    assert invoke(["search", NULL, *args]) == ExitCode.OK
    [request] = asked
    assert str(request.url) == "http://127.0.0.1:8000/v1/search"
    assert json.loads(request.content) == {
        "task": "urgency",
        "text": "server room is on fire",
        "limit": 3,
        "filter": {"language": "en", "issue": ["a", "b"]},
    }
    shown = capsys.readouterr().out
    assert "[red]fire[/red]" in shown
    assert "0.910" in shown
    assert "x" * 79 + "…" in shown
    assert "_source" not in shown


def test_search_by_a_records_key_and_as_json(app: Install, capsys: pytest.CaptureFixture[str]) -> None:
    asked = app(answers(HITS))
    assert invoke(["search", NULL, "--task", "urgency", "--id", "T-1", "--json"]) == ExitCode.OK
    assert json.loads(asked[0].content)["id"] == "T-1"
    assert json.loads(capsys.readouterr().out) == HITS


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--task", "urgncy", "x"], "no task 'urgncy'"),
        (["--task", "urgency"], "give either TEXT or --id"),
        (["--task", "urgency", "x", "--id", "y"], "give either TEXT or --id"),
        (["--task", "urgency", "x", "-f", "oops"], "expected field=value"),
        (["x"], "Missing option '--task'"),
    ],
)
def test_a_search_that_cannot_be_asked_is_refused(
    args: list[str], message: str, app: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = app(answers(HITS))
    assert invoke(["search", NULL, *args]) == ExitCode.CONFIG
    assert message in capsys.readouterr().err
    assert asked == []


@pytest.mark.parametrize(
    ("condition", "value"),
    [
        *(("a=1", 1), ("a=1.5", 1.5), ("a=true", True), ('a="1"', "1"), ("a=b=c", "b=c"), ("a=", ""), ("a=[1]", "[1]")),
        *(("a>=1", {"gte": 1}), ("a>1", {"gt": 1}), ("a<=1.5", {"lte": 1.5}), ("a<-1", {"lt": -1})),
        *(("a~two words", {"text": "two words"}), ("a~7", {"text": "7"}), ('a~"x"', {"text": "x"})),
        *(("a=null", {"is_null": True}), ("a!=null", {"is_null": False}), ('a="null"', "null")),
    ],
)
def test_a_filters_value_is_typed_as_in_json(condition: str, value: Any) -> None:
    assert parse_filter_options([condition], {}) == {"a": value}


@pytest.mark.parametrize(
    ("kind", "condition", "value"),
    [
        ("keyword", "a=7", "7"),
        ("keyword", 'a="7"', "7"),
        ("keyword", "a=true", "true"),
        ("uuid", "a=7", "7"),
        ("datetime", "a>=2026-01-31", {"gte": "2026-01-31"}),
        ("integer", "a=7", 7),
        ("float", "a=7", 7),
        ("bool", "a=true", True),
    ],
)
def test_a_filters_value_is_read_as_its_fields_type(kind: Any, condition: str, value: Any) -> None:
    assert parse_filter_options([condition], {"a": PayloadField(type=kind)}) == {"a": value}


def test_filters_of_one_field_are_joined_and_a_fields_name_may_hold_an_operator() -> None:
    fields = {"a": PayloadField(type="integer"), "a=b": PayloadField()}
    assert parse_filter_options(["a>=1", "a<5", "a=b=c"], fields) == {"a": {"gte": 1, "lt": 5}, "a=b": "c"}
    assert parse_filter_options(["a=1", "a=2"], fields) == {"a": [1, 2]}


@pytest.mark.parametrize(
    ("handler", "code", "message"),
    [
        (refuses, ExitCode.UNREACHABLE, "Start it with: refract run CONFIG"),
        (answers({"error": {"message": "loading"}}, 503), ExitCode.UNREACHABLE, "503: loading"),
        (answers({}, 429), ExitCode.UNREACHABLE, "429: Too Many Requests"),
        (
            lambda _request: httpx.Response(404, text=NO_ROUTE),
            ExitCode.UNREACHABLE,
            "is starting: Ray Serve has no route",
        ),
        (answers("Path '/v1/status' not found.", 404), ExitCode.UNREACHABLE, "is starting: Ray Serve has no route"),
        (answers({"error": {"message": "no such task"}}, 404), ExitCode.FAILED, "404: no such task"),
        (answers({}, 401), ExitCode.CONFIG, "refuses the key"),
        (answers({"error": {"message": "no such field"}}, 400), ExitCode.FAILED, "400: no such field"),
        (lambda _request: httpx.Response(200, text="<html>"), ExitCode.FAILED, "is not this app"),
    ],
)
def test_every_answer_but_success_is_one_message_and_an_exit_code(
    handler: Handler, code: ExitCode, message: str, app: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    app(handler)
    assert invoke(["status", NULL]) == code
    assert message in capsys.readouterr().err


def test_an_argument_that_is_not_utf_8_is_told(app: Install, capsys: pytest.CaptureFixture[str]) -> None:
    app(answers(HITS))
    for arguments in (
        ["caf\udce9"],
        ["--id", "\udce9"],
        ["x", "--filter", "issue=caf\udce9"],
        ["x", "--filter", "\udce9~a"],
    ):
        assert invoke(["search", NULL, *arguments, "--task", "urgency"]) == ExitCode.CONFIG
        assert "not UTF-8" in capsys.readouterr().err


def test_a_slow_app_is_told_from_an_absent_one(app: Install, capsys: pytest.CaptureFixture[str]) -> None:
    def slow(_request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow")

    app(slow)
    assert invoke(["status", NULL]) == ExitCode.UNREACHABLE
    assert "did not answer within 30 s" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:8000"), ("0.0.0.0", "http://127.0.0.1:8000"), ("::", "http://[::1]:8000")],  # noqa: S104 - read only
)
def test_the_client_calls_the_app_where_it_listens_and_sends_the_key(host: str, url: str) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={})

    with AppClient(parsed(api__host=host, api__api_key="secret"), httpx.MockTransport(answer)) as client:
        client.status()
        assert client.url == url
    assert asked[0].headers["api-key"] == "secret"


def test_status_shows_every_figure(app: Install, capsys: pytest.CaptureFixture[str]) -> None:
    app(answers(STATE))
    assert invoke(["status", NULL]) == ExitCode.OK
    shown = capsys.readouterr().out
    for figure in (
        "ready, up 1 h 02 min",
        "1,200",
        "41",
        "1 min 15 s",
        "invalid_json 4, no_key 1",
        "50 ms",
        "25%",
        "123,456",
    ):
        assert figure in shown
    assert "tickets (paused)" in shown


def test_status_says_why_the_app_is_not_ready(app: Install, capsys: pytest.CaptureFixture[str]) -> None:
    app(answers({**STATE, "ready": False, "reason": "1 of 2 embedders are up"}))
    invoke(["status", NULL])
    assert "not ready: 1 of 2 embedders are up" in capsys.readouterr().out


def test_status_as_json_is_the_apps_answer(app: Install, capsys: pytest.CaptureFixture[str]) -> None:
    app(answers(STATE))
    assert invoke(["status", NULL, "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == STATE


def test_watching_through_a_pipe_prints_one_json_line_a_time_until_interrupted(
    app: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt_at_second(_duration_s: float, sleeps: list[int] = []) -> None:  # noqa: B006 - counts on purpose
        sleeps.append(1)
        if len(sleeps) == 2:
            raise KeyboardInterrupt

    app(answers(STATE))
    monkeypatch.setattr("pipeline.cli.status.time.sleep", interrupt_at_second)
    assert invoke(["status", NULL, "--json", "--watch"]) == ExitCode.INTERRUPTED
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [STATE, STATE]


def test_tasks_lists_what_the_file_says_and_shows_prompts(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["tasks", NULL]) == ExitCode.OK
    assert "How urgent is this support ticket" in capsys.readouterr().out
    assert invoke(["tasks", NULL, "--show", "--text", "T\x1b[2J"]) == ExitCode.OK
    shown = capsys.readouterr().out
    assert "urgency, record and query side" in shown
    assert "T\\x1b[2J" in shown


def test_tasks_as_json_holds_both_sides_of_a_retrieval_task(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump(tree(tasks__urgency__mode="retrieval")))
    assert invoke(["tasks", str(path), "--show", "--json"]) == ExitCode.OK
    shown = json.loads(capsys.readouterr().out)
    assert [(prompt["task"], prompt["side"]) for prompt in shown["prompts"]] == [
        ("technical_issue", "record and query"),
        ("urgency", "record"),
        ("urgency", "query"),
    ]
    assert all(prompt["token_ids"] for prompt in shown["prompts"])


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        (["=x"], "expected field=value"),
        (["oops"], "expected field=value"),
        (["a!=1"], "!= is for null only"),
        (["a=1", "a>1"], "does not go together"),
        (["a~x", "a=null"], "does not go together"),
    ],
)
def test_a_condition_that_cannot_be_read_is_refused(conditions: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_filter_options(conditions, {})
