"""Several wordings of each instruction, so that a model learns what is asked and not a string."""

from collections.abc import Mapping, Sequence

import numpy as np

PLAIN = "#plain"
"""Prompt name of a text without an instruction."""

FRAMES = (
    "{instruction}?",
    "Question about the text: {instruction}",
    "Look only at this: {instruction}",
    "For each text, say: {instruction}",
    "Compare texts by one thing alone - {instruction}",
)
"""Put around an instruction when nobody gave other wordings. `refract evaluate` asks in other frames than these."""

CONFIGURED_SHARE = 0.4
"""Share of the draws that take the instruction as configured: it is what will be served."""


class Wordings:
    """The wordings of every task, and which prompt name each of them has."""

    def __init__(self, instructions: Mapping[str, str], others: Mapping[str, Sequence[str]]) -> None:
        """Takes the configured instruction of each task, and the user's other wordings of some."""
        self.by_task = {
            task: list(dict.fromkeys([instruction, *others.get(task, ()), *_framed(instruction)]))
            for task, instruction in instructions.items()
        }

    def prompt(self, task: str, number: int) -> str:
        """Returns the prompt name of a wording; number 0 is the instruction as configured."""
        return task if number == 0 else f"{task}#{number}"

    def draw(self, task: str, random: np.random.Generator) -> str:
        """Returns the prompt name of a wording, the configured one more often than each other one."""
        count = len(self.by_task[task])
        if count == 1 or random.random() < CONFIGURED_SHARE:
            return self.prompt(task, 0)
        return self.prompt(task, int(random.integers(1, count)))


def _framed(instruction: str) -> list[str]:
    bare = instruction.rstrip(" .?:")
    return [frame.format(instruction=bare) for frame in FRAMES]
