"""Token states to one row per item, in float32, as sentence-transformers 6.2 defines each mode."""

from collections.abc import Sequence

import torch
from torch import Tensor


def pool(states: Tensor, lengths: Tensor, excluded: Tensor, modes: Sequence[str]) -> Tensor:
    """Returns (num_items, len(modes) * hidden) float32.

    Args:
        states: (num_tokens, hidden) last hidden states, item after item.
        lengths: (num_items,) tokens of each, none of them 0.
        excluded: (num_items,) how many leading tokens stay out.
        modes: Names of `pipeline.engine.st_files.POOLINGS`; several are concatenated.
    """
    ends = lengths.cumsum(0)
    return torch.cat([_pool(states, lengths, ends, excluded, mode) for mode in modes], dim=-1)


def _pool(states: Tensor, lengths: Tensor, ends: Tensor, excluded: Tensor, mode: str) -> Tensor:
    starts = ends - lengths
    if mode == "lasttoken":
        return states[ends - 1].float()
    if mode == "cls":
        return states[starts + torch.minimum(excluded, lengths - 1)].float()
    positions = torch.arange(len(states), device=states.device) - starts.repeat_interleave(
        lengths, output_size=len(states)
    )
    kept = positions >= excluded.repeat_interleave(lengths, output_size=len(states))
    states = states.float()
    if mode == "max":
        return torch.segment_reduce(states.masked_fill(~kept[:, None], float("-inf")), "max", lengths=lengths)
    weights = kept.float()
    if mode == "weightedmean":
        weights = weights * (positions + 1)
    total = torch.segment_reduce(states * weights[:, None], "sum", lengths=lengths)
    count = torch.segment_reduce(weights, "sum", lengths=lengths).clamp(min=1e-9)[:, None]
    return total / (count.sqrt() if mode == "mean_sqrt_len_tokens" else count)
