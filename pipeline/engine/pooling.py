"""Token states to one row per item, in float32, as sentence-transformers 6.2 defines each mode."""

from collections.abc import Sequence

import torch
from torch import Tensor


def pool(states: Tensor, excluded: Tensor, modes: Sequence[str]) -> Tensor:
    """Returns (num_items, len(modes) * hidden) float32.

    Args:
        states: (num_items, length, hidden) last hidden states, no padding.
        excluded: (num_items,) how many leading tokens stay out.
        modes: Names of `pipeline.engine.st_files.POOLINGS`; several are concatenated.
    """
    states = states.float()
    positions = torch.arange(states.shape[1], device=states.device)
    kept = (positions >= excluded[:, None]).unsqueeze(-1)
    return torch.cat([_pool(states, excluded, kept, mode) for mode in modes], dim=-1)


def _pool(states: Tensor, excluded: Tensor, kept: Tensor, mode: str) -> Tensor:
    if mode == "lasttoken":
        return states[:, -1]
    if mode == "cls":
        first = excluded.clamp(max=states.shape[1] - 1)
        return states[torch.arange(states.shape[0], device=states.device), first]
    if mode == "max":
        return states.masked_fill(~kept, float("-inf")).amax(dim=1)
    weights = kept.float()
    if mode == "weightedmean":
        weights = weights * torch.arange(1, states.shape[1] + 1, device=states.device).unsqueeze(-1)
    total = (states * weights).sum(dim=1)
    count = weights.sum(dim=1).clamp(min=1e-9)
    return total / (count.sqrt() if mode == "mean_sqrt_len_tokens" else count)
