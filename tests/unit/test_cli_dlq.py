"""`refract dlq list`: where each dead letter was, why, and the record itself only when asked for."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.cli.exits import ExitCode
from pipeline.cli.main import invoke
from pipeline.records.record import Position
from pipeline.sources.letters.letter_reader import StoredLetter
from tests.config_trees import CONFIGS

NULL = str(CONFIGS / "null.yaml")
LETTERS = [
    StoredLetter(
        position=Position("tickets", 2, 17, 1_767_225_600_000),
        reason="invalid_json",
        detail="JSONDecodeError",
        task="",
        pipeline="null",
        written_ms=1_767_225_601_000,
        key=b"T-1",
        value=b"{broken",
        headers=(),
        is_shortened=False,
        num_value_bytes=7,
    ),
    StoredLetter(
        position=Position("tickets", 0, 3, -1),
        reason="no_key",
        detail="",
        task="urgency",
        pipeline="null",
        written_ms=1_767_225_602_000,
        key=None,
        value=b"\xff\x00",
        headers=(),
        is_shortened=False,
        num_value_bytes=2,
    ),
]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the reader was asked for."""
    seen: dict[str, Any] = {"letters": LETTERS}

    def read(_config: Any, **options: Any) -> Iterator[StoredLetter]:
        seen.update(options)
        yield from seen["letters"]

    monkeypatch.setattr("pipeline.sources.letters.letter_reader.read_dead_letters", read)
    return seen


def test_letters_are_listed_with_place_and_reason(asked: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["dlq", "list", NULL]) == ExitCode.OK
    shown = capsys.readouterr().out
    for part in ("2026-01-01T00:00:01+00:00", "tickets", "17", "invalid_json", "T-1", "no_key", "urgency"):
        assert part in shown
    assert "{broken" not in shown
    assert asked["limit"] == 20


def test_the_record_itself_is_shown_only_when_asked_for(
    asked: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["dlq", "list", NULL, "--values", "--json"]) == ExitCode.OK
    first, second = json.loads(capsys.readouterr().out)
    assert (first["value"], first["offset"], first["key"]) == ("{broken", 17, "T-1")
    assert (second["value"], second["key"]) == ("hex:ff00", None)
    assert asked["reason"] is None


def test_letters_are_chosen_by_topic_and_reason(asked: dict[str, Any]) -> None:
    assert invoke(["dlq", "list", NULL, "--topic", "tickets", "--reason", "no_key", "-n", "5"]) == ExitCode.OK
    assert (asked["topic"], asked["reason"], asked["limit"]) == ("tickets", "no_key", 5)


@pytest.mark.parametrize(
    ("option", "value", "suggestion"), [("--reason", "nokey", "'no_key'"), ("--topic", "ticket", "'tickets'")]
)
def test_a_mistyped_choice_suggests_the_nearest(
    option: str, value: str, suggestion: str, asked: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["dlq", "list", NULL, option, value]) == ExitCode.CONFIG
    assert f"Did you mean {suggestion}?" in capsys.readouterr().err
    assert "limit" not in asked


def test_an_empty_topic_is_said_to_be_empty(asked: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    asked["letters"] = []
    assert invoke(["dlq", "list", NULL]) == ExitCode.OK
    assert capsys.readouterr().out == "no dead letters\n"
