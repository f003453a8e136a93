"""Other words for an instruction, given or built in."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.quality.instructions import is_vague
from pipeline.quality.paraphrases import FRAMES, GENERIC, NONSENSE, frame, read_wordings


def test_frames_keep_the_question_and_differ() -> None:
    found = frame("How urgent is this ticket:")
    assert len(set(found)) == len(FRAMES) >= 5
    assert all("How urgent is this ticket" in words and "ticket:" not in words for words in found)


def test_a_frame_takes_an_instruction_with_braces_as_it_is() -> None:
    assert all("{text} {0}" in words for words in frame("{text} {0}"))


def test_the_generic_control_is_what_advice_warns_of_and_nonsense_is_not_a_question() -> None:
    assert is_vague(GENERIC)
    assert NONSENSE


def test_wordings_of_a_file() -> None:
    tree = {"urgency": ["How urgent?", "State the urgency"]}
    assert read_wordings(Path("w.yaml"), tree, ["urgency", "issue"]) == tree


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (None, "expected a mapping"),
        ({}, "expected a mapping"),
        (["a"], "expected a mapping"),
        ({"urgncy": ["a"]}, "no task 'urgncy' is evaluated. Did you mean 'urgency'"),
        ({"urgency": "a"}, "urgency: expected a list of wordings"),
        ({"urgency": []}, "urgency: expected a list of wordings"),
        ({"urgency": ["a", 3]}, "urgency: expected a list of wordings"),
        ({"urgency": [" "]}, "urgency: expected a list of wordings"),
    ],
)
def test_other_files_are_refused(tree: Any, words: str) -> None:
    with pytest.raises(ConfigError, match="w.yaml.*" + words):
        read_wordings(Path("w.yaml"), tree, ["urgency", "issue"])
