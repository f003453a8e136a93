"""`refract evaluate` as a person or a script sees it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pipeline.cli.exits import ExitCode
from pipeline.cli.main import invoke
from tests.unit.labelled_rows import config, rows, write

Command = Callable[..., int]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    path, tickets = tmp_path / "test.yaml", write(tmp_path / "tickets.jsonl", rows())
    path.write_text(yaml.safe_dump(config(tmp_path)), encoding="utf-8")

    def run_it(*options: str) -> int:
        return invoke(["evaluate", str(path), tickets, "--label", "technical_issue=issue", *options])

    return run_it


def test_tables_on_stdout_and_notes_on_stderr(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--reword") == ExitCode.OK
    out, err = capsys.readouterr()
    assert out.startswith("The instructions do not do their job.")
    for words in ("label urgency", "no instruction", "separation", "Cramér's V", "spread", "V-measure"):
        assert words in out
    assert "note: urgency: words alone tell" in err


def test_json_has_everything_but_texts(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--json") == ExitCode.OK
    out = capsys.readouterr().out
    tree = json.loads(out)
    assert tree["answer"] == "no"
    assert tree["missed"] == []
    assert {"separation", "flip_rate", "matrix", "tasks", "pairs", "notes", "rows"} <= tree.keys()
    assert "printer is" not in out


def test_html_is_written_with_texts(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    assert command("--html", str(path)) == ExitCode.OK
    assert "printer is" in path.read_text(encoding="utf-8")


def test_a_bound_that_is_missed_fails_a_script(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--require", "separation>-2", "--require", "flip_rate<1") == ExitCode.OK
    assert command("--require", "separation>0", "--json") == ExitCode.FAILED
    out, err = capsys.readouterr()
    assert "error: --require separation>0: separation is" in err
    assert '"missed": [\n    "separation>0: ' in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--label", "urgency"], "--label 'urgency': expected TASK=COLUMN"),
        (["--label", "=x"], "--label '=x': expected TASK=COLUMN"),
        (["--require", "seperation>0"], "Did you mean 'separation'"),
        (["--html", "/nowhere/page.html"], "--html /nowhere/page.html: the folder /nowhere does not exist"),
    ],
)
def test_a_wrong_option_is_refused(
    command: Command, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert command(*options) == ExitCode.CONFIG
    assert words in capsys.readouterr().err


def test_a_page_that_cannot_be_written_is_told(
    command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command("--html", str(tmp_path)) == ExitCode.FAILED
    assert "cannot be written (Is a directory)" in capsys.readouterr().err
