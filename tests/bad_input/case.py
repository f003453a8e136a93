"""One line of the table of bad input: what is given, what must come of it, and how to see that."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

MARKER_TEXT = "zq7-marker-text"
"""Stands for what a record says. Planted in everything bad; must reach no log and no detail of a dead letter."""

MARKER_SECRET = "zq7-marker-secret"  # noqa: S105 - it guards nothing
"""Stands for a password that somebody put into a record, a header or a configuration."""


@dataclass(frozen=True)
class Place:
    """What a case may use: an empty folder, and patches that are taken back afterwards."""

    folder: Path
    patch: pytest.MonkeyPatch


See = Callable[[Place], str]
"""Does what the case says with the real product, and tells in the words of `expected` what came of it."""


@dataclass(frozen=True)
class Case:
    """One bad thing. Without `see` another test proves it."""

    row: int
    given: str
    """The bytes, the call or the setting."""
    expected: str
    see: See | None = None
    proven_by: str = ""
    """Id of the test that shows it where this suite cannot, for want of a broker, a server or a model."""


def leaks(shown: str) -> list[str]:
    """Returns what of the markers stands in a text that people or other programs see."""
    return [marker for marker in (MARKER_TEXT, MARKER_SECRET) if marker in shown]


def verdict(outcome: str, problems: list[str]) -> str:
    """Returns the outcome, with what went wrong besides."""
    return "; ".join([outcome, *problems])
