"""Holds a model to what it was: general texts, a few in every step, are to keep their neighbours.

What is trained on one kind of text moves everything else too. Repeating a little of the old beside the new is the
oldest remedy (Robins, "Catastrophic forgetting, rehearsal and pseudorehearsal", Connection Science 1995).
"""

import json
from collections.abc import Sequence
from importlib.resources import files

import numpy as np
import torch
from torch import Tensor

from pipeline.tuning.encoder import LoraEncoder
from pipeline.tuning.loss import keeping_loss

_CHUNK = 128
"""Texts of one call of the model."""


class Rehearsal:
    """General texts and the vectors that the untrained model gives them. One thread."""

    def __init__(self, encoder: LoraEncoder, prompt: str, texts: Sequence[str], size: int) -> None:
        """Embeds the texts with the untrained model.

        Args:
            encoder: The model in training.
            prompt: Name of its form without an instruction.
            texts: Nothing of what is trained, nor of what general ability is measured on.
            size: Texts of a step.
        """
        self._encoder = encoder
        self._prompt = prompt
        self._texts = texts
        self._size = min(size, len(texts))
        with encoder.untrained():
            parts = [encoder.rows(texts[at : at + _CHUNK], [prompt])[0] for at in range(0, len(texts), _CHUNK)]
            self._before = torch.cat(parts)

    def loss(self, random: np.random.Generator, temperature: float) -> Tensor:
        """Returns how far the neighbourhoods of some of the texts have moved, a scalar."""
        drawn = random.choice(len(self._texts), self._size, replace=False)
        now = self._encoder.rows([self._texts[row] for row in drawn], [self._prompt])[0]
        return keeping_loss(now, self._before[torch.from_numpy(drawn).to(self._before.device)], temperature)


def general_texts() -> list[str]:
    """Returns the packaged texts."""
    lines = files("pipeline.tuning").joinpath("plain_texts.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
