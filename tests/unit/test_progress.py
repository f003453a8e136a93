"""What a long verb shows of itself: a bar on a terminal, now and then a line elsewhere, nothing when it is short."""

import io
import sys

import pytest

from pipeline.cli.progress import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The present, to be set."""
    now = [100.0]
    monkeypatch.setattr("pipeline.cli.progress.time.monotonic", lambda: now[0])
    return now


def test_a_short_verb_says_nothing(clock: list[float], capfd: pytest.CaptureFixture[str]) -> None:
    with progress() as step:
        for done in range(100):
            clock[0] += 0.01
            step("reading", done, 100)
    assert capfd.readouterr() == ("", "")


def test_a_pipe_gets_lines_on_stderr_more_and_more_seldom(
    clock: list[float], capfd: pytest.CaptureFixture[str]
) -> None:
    with progress() as step:
        for done in range(1, 301):
            clock[0] += 1
            step("reading", done, 300)
        for done in range(1, 7):
            clock[0] += 1
            step("checking", done, 10)
        clock[0] += 3
        step("waiting", 0, 0)
        clock[0] += 2
        step("waiting", 0, 0)
    out, err = capfd.readouterr()
    assert out == ""
    read = [line for line in err.splitlines() if line.startswith("reading")]
    assert read == [f"reading: {done} of 300" for done in (2, 6, 14, 30, 62, 122, 182, 242)]
    assert err.splitlines()[len(read) :] == ["checking: 2 of 10", "checking: 6 of 10", "waiting"]


def test_a_terminal_gets_a_bar_that_is_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress() as step:
        step("reading", 30, 100)
        step("checking", 1, 2)
        step("reading", 100, 100)
    shown = terminal.getvalue()
    assert "reading" in shown
    assert "100/100" in shown
    assert shown.endswith("\x1b[2K")
