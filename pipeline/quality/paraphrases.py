"""Instructions that an evaluation holds a task's own one against: controls, and other words for the same question."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, nearest

NONSENSE = "Quomble the fritzen barlow of every snorp"
"""Shaped like an instruction, and means nothing: what any words in front of a text do to its vector."""

GENERIC = "Classify this text"
"""A real instruction that names neither an aspect nor a kind of text."""

FRAMES = (
    "Please answer this: {instruction}",
    "Your task: {instruction}",
    "{instruction}. Look at nothing else",
    "Group the following by this question: {instruction}",
    "Read the text below with one question in mind: {instruction}",
)
"""Ways to put any instruction in other words, where the user gives none."""


def frame(instruction: str) -> list[str]:
    """Returns an instruction in other words."""
    asked = instruction.strip().rstrip(".:")
    return [words.format(instruction=asked) for words in FRAMES]


def read_wordings(
    path: Path, tree: Any, tasks: Sequence[str], *, option: str = "--paraphrases"
) -> dict[str, list[str]]:
    """Returns the wordings of each task.

    Args:
        path: Of the file, for messages.
        tree: What the file holds: a mapping of a task to a list of wordings.
        tasks: Names there are.
        option: Which gave the file, for messages.

    Raises:
        ConfigError: The file holds something else, or names an unknown task.
    """
    if not isinstance(tree, Mapping) or not tree:
        raise ConfigError(f"{option} {path}: expected a mapping of a task to a list of wordings")
    for name, wordings in tree.items():
        if name not in tasks:
            raise ConfigError(
                f"{option} {path}: no task {name!r} is evaluated.{nearest(str(name), tasks)} Tasks: {', '.join(tasks)}"
            )
        if not isinstance(wordings, list) or not wordings or not all(_is_wording(one) for one in wordings):
            raise ConfigError(f"{option} {path}: {name}: expected a list of wordings, each a text")
    return {name: [str(one) for one in wordings] for name, wordings in tree.items()}


def _is_wording(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
