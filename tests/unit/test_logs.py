"""Logs carry no secret and no record's text."""

import errno
import io
import json

import pytest
import structlog

from pipeline.logs import REDACTED, configure_logs


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "sasl_password",
        "api_key",
        "apikey",
        "client_secret",
        "token",
        "authorization",
        "text",
        "value",
        "payload",
    ],
)
def test_fields_with_telling_names_are_hidden(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs()
    structlog.get_logger().warning("An event.", **{name: "hunter2"}, component="store")
    line = capsys.readouterr().err
    assert "hunter2" not in line
    assert json.loads(line) | {name: REDACTED, "component": "store", "level": "warning"} == json.loads(line)


def test_level_comes_from_the_environment(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFRACT_LOG_LEVEL", "ERROR")
    configure_logs()
    structlog.get_logger().warning("An event.")
    assert capsys.readouterr().err == ""


def test_control_characters_cannot_move_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs()
    structlog.get_logger().warning("An event.", detail="\x1b[2J\u202e")
    line = capsys.readouterr().err
    assert "\x1b" not in line
    assert "\u202e" not in line


class FullDisk(io.StringIO):
    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("level", ["info", "warning", "error"])
def test_a_line_that_cannot_be_written_stops_nobody(monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    full = FullDisk()
    monkeypatch.setattr("sys.stderr", full)
    configure_logs()
    getattr(structlog.get_logger(), level)("An event.")
    assert "An event." in full.getvalue()  # it was tried
