"""Holds a model to what it was: general texts, a few in every step, are to keep their neighbours.

What is trained on one kind of text moves everything else too. Repeating a little of the old beside the new is the
oldest remedy (Robins, "Catastrophic forgetting, rehearsal and pseudorehearsal", Connection Science 1995).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.tuning.encoder import LoraEncoder
from pipeline.tuning.loss import keeping_loss
from pipeline.tuning.wordings import PLAIN


class Rehearsal:
    """General texts and the vectors that the untrained model gives them. One thread."""

    def __init__(self, encoder: LoraEncoder, texts: Sequence[str], size: int) -> None:
        """Embeds the texts with the untrained model.

        Args:
            encoder: The model in training.
            texts: Nothing of what is trained, nor of what general ability is measured on.
            size: Texts of a step.
        """
        self._encoder = encoder
        self._texts = texts
        self._size = min(size, len(texts))
        with encoder.untrained():
            self._before = torch.from_numpy(encoder.embed(texts, [PLAIN])[PLAIN])

    def loss(self, random: np.random.Generator, temperature: float) -> Tensor:
        """Returns how far the neighbourhoods of some of the texts have moved, a scalar."""
        drawn = random.choice(len(self._texts), self._size, replace=False)
        now = self._encoder.rows([self._texts[row] for row in drawn], [PLAIN])[0]
        return keeping_loss(now, self._before[torch.from_numpy(drawn)].to(now), temperature)
