"""The linear maps that tasks have behind the model, in float32 on its device."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.engine.head_files import HeadFiles, read_head
from pipeline.records.batches import Float32


class Heads:
    """The heads of one model's tasks, each read when it is first used. Used from one thread."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._maps: dict[Path, tuple[Tensor, Tensor | None]] = {}

    @torch.inference_mode()
    def unit(self, rows: Float32) -> Tensor:
        """Returns rows as every head takes them: on the device, L2-normalised, NaN where that is impossible."""
        return _unit(torch.from_numpy(rows).to(self._device))

    @torch.inference_mode()
    def run(self, head: HeadFiles, unit: Tensor, dimension: int) -> Float32:
        """Returns (num_items, dimension): the map's first values, L2-normalised, NaN where that is impossible.

        Args:
            head: Whose map.
            unit: (num_items, in_features) from `unit`.
            dimension: How many leading values to keep, at most out_features.

        Raises:
            ConfigError: the map's file does not hold what it should.
        """
        if head.folder not in self._maps:
            weight, bias = (
                None if values is None else torch.from_numpy(values).to(self._device) for values in read_head(head)
            )
            assert weight is not None  # noqa: S101 - mypy does not see which of the two it is
            self._maps[head.folder] = weight, bias
        weight, bias = self._maps[head.folder]
        kept = nn.functional.linear(unit, weight[:dimension], None if bias is None else bias[:dimension])
        return np.asarray(_unit(kept).cpu().numpy(), np.float32)


def _unit(rows: Tensor) -> Tensor:
    norm = rows.norm(dim=1, keepdim=True)
    return torch.where((norm > 0) & norm.isfinite(), rows / norm, torch.nan)
