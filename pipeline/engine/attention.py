"""Attention over a flat batch, registered with transformers: every linear layer sees all tokens, attention each item.

On a CPU, items of one shape go through scaled_dot_product_attention together, without padding. On CUDA in half
precision the whole batch is one call of torch's variable-length kernel. That call is tested with a stand-in for the
kernel and has not run on a GPU yet; where the kernel does not take a model, the proof at load (`pipeline.engine.flat`)
finds out, and the model runs in groups of one length.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from pipeline.engine.layout import Pack, Run

NAME = "refract_flat"
_SHORT = 256
"""Tokens up to which all attention weights of an item are kept at once on a CPU."""

KeysValues = Mapping[int, tuple[Tensor, Tensor]]
"""Layer -> keys and values, each (heads, num_tokens, head_dim), positions already applied."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the items of a flat batch lie, on the device."""

    runs: list[Run]
    prefixes: tuple[KeysValues, ...] = ()
    keys: Tensor | None = None
    """`Pack.keys` where prefixes are reused."""
    cu_query: Tensor | None = None
    """(num_items + 1,) int32 borders of the items, for the variable-length kernel; None: not used."""
    cu_key: Tensor | None = None
    captured: dict[int, tuple[Tensor, Tensor]] | None = field(default=None, compare=False)
    """Filled with the keys and values of every layer, if there."""


def layout_of(pack: Pack, prefixes: tuple[KeysValues, ...], device: torch.device, dtype: torch.dtype) -> Layout:
    """Returns the layout of a pack whose prefixes' keys and values are given."""
    keys = torch.from_numpy(pack.keys()).to(device) if prefixes else None
    if device.type != "cuda" or dtype == torch.float32:
        return Layout(pack.runs, prefixes, keys)
    cu_query, cu_key = (
        torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)).pin_memory()
        for lengths in (pack.lengths, pack.lengths + pack.reused)
    )
    return Layout(
        pack.runs, prefixes, keys, cu_query.to(device, non_blocking=True), cu_key.to(device, non_blocking=True)
    )


class Scope(NamedTuple):
    """What a token attends to, and how much."""

    causal: bool
    window: int | None
    """Tokens this far away, and farther, are not seen; None: all are."""
    scaling: float | None


def flat_attention(  # noqa: PLR0913, PLR0917 - transformers calls it so
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    layout: Layout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attends within items, as transformers calls it: (1, heads, num_tokens, head_dim) with a layout.

    Without a layout the items are the rows of (num_items, heads, length, head_dim), all of one length.
    Returns (1 or num_items, num_tokens or length, heads, head_dim).
    """
    if attention_mask is not None or any(
        kwargs.get(name) is not None for name in ("softcap", "position_bias", "s_aux")
    ):
        raise NotImplementedError("attention with a mask, a bias or a cap")
    scope = Scope(_is_causal(module), sliding_window, scaling)
    if layout is None:
        return _attend(query, key, value, scope).transpose(1, 2), None
    if layout.captured is not None:
        layout.captured[_layer(module)] = key[0].clone(), value[0].clone()
    if layout.keys is not None:
        before = [prefix[_layer(module)] for prefix in layout.prefixes]
        key = torch.cat([*(keys for keys, _ in before), key[0]], 1).index_select(1, layout.keys)[None]
        value = torch.cat([*(values for _, values in before), value[0]], 1).index_select(1, layout.keys)[None]
    if layout.cu_query is not None and layout.cu_key is not None and query.dtype != torch.float32:
        borders = layout.cu_query, layout.cu_key
        return _by_kernel((query, key, value), borders, layout.runs, scope), None
    return _by_runs(query, key, value, layout.runs, scope), None


def _layer(module: nn.Module) -> int:
    number: Any = module.layer_idx
    return int(number)


def _is_causal(module: nn.Module) -> bool:
    """The config overrules the module: a decoder that was made to look both ways says so there only."""
    config = getattr(module, "config", None)
    both_ways = getattr(config, "use_bidirectional_attention", False) or not getattr(config, "is_causal", True)
    return bool(getattr(module, "is_causal", True)) and not both_ways


def _by_runs(query: Tensor, key: Tensor, value: Tensor, runs: list[Run], scope: Scope) -> Tensor:
    out = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
    first_query = first_key = 0
    for count, length, reused in runs:
        num_queries, num_keys = count * length, count * (length + reused)
        keys = slice(first_key, first_key + num_keys)
        queries = slice(first_query, first_query + num_queries)
        rows = _attend(
            _items(query[0, :, queries], count), _items(key[0, :, keys], count), _items(value[0, :, keys], count), scope
        )
        out[0, queries] = rows.transpose(1, 2).flatten(0, 1)
        first_query += num_queries
        first_key += num_keys
    return out


def _items(states: Tensor, count: int) -> Tensor:
    """(heads, count * length, head_dim) to (count, heads, length, head_dim)."""
    heads, num_tokens, width = states.shape
    return states.reshape(heads, count, num_tokens // count, width).transpose(0, 1)


def _attend(query: Tensor, key: Tensor, value: Tensor, scope: Scope) -> Tensor:
    """Items of one shape, (count, heads, length, head_dim); queries are the last of the keys' tokens."""
    if query.shape[1] != key.shape[1]:
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    num_queries, num_keys = query.shape[2], key.shape[2]
    (causal, window, scaling), mask = scope, None
    if (window is not None and num_keys > window) or (causal and num_keys > num_queries > 1):
        distance = torch.arange(num_keys - num_queries, num_keys, device=query.device)[:, None] - torch.arange(
            num_keys, device=query.device
        )
        mask = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
        if window is not None:
            mask &= distance.abs() < window
    if mask is None and not causal and num_keys <= _SHORT and query.dtype == torch.bfloat16 and query.is_cpu:
        return _attend_short(query, key, value, scaling)
    return nn.functional.scaled_dot_product_attention(
        query, key, value, mask, is_causal=causal and mask is None and num_queries > 1, scale=scaling
    )


def _attend_short(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    """The same by two products with all weights between them: for short items the kernel costs a third more."""
    count, heads, num_queries, width = query.shape
    queries, keys, values = (states.flatten(0, 1) for states in (query, key, value))
    scale = width**-0.5 if scaling is None else scaling
    weights = torch.baddbmm(queries.new_empty(1, 1, 1), queries, keys.transpose(1, 2), beta=0, alpha=scale).softmax(-1)
    return torch.bmm(weights, values).view(count, heads, num_queries, -1)


def _by_kernel(
    states: tuple[Tensor, Tensor, Tensor], borders: tuple[Tensor, Tensor], runs: list[Run], scope: Scope
) -> Tensor:
    """Attends by torch's kernel for items of many lengths; `states` are query, key and value."""
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415 - only where CUDA is

    query, key, value = states
    known = _kernel_options()
    options: dict[str, Any] = {"num_splits": 1} if "num_splits" in known else {}
    if query.shape[1] != key.shape[1]:
        if "enable_gqa" in known:
            options["enable_gqa"] = True
        else:
            groups = query.shape[1] // key.shape[1]
            key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    reach = -1 if scope.window is None else scope.window - 1
    longest_query = max(run.length for run in runs)
    longest_key = max(run.length + run.reused for run in runs)
    q, k, v = (each[0].transpose(0, 1).contiguous() for each in (query, key, value))
    rows: Any = varlen_attn(
        q, k, v, *borders, longest_query, longest_key,
        scale=scope.scaling, window_size=(reach, 0 if scope.causal else reach), **options,
    )  # fmt: skip
    return rows[None]  # type: ignore[no-any-return] # without return_aux it is one tensor


@cache
def _kernel_options() -> frozenset[str]:
    """In torch 2.11 there is neither num_splits (bits independent of the batch) nor enable_gqa (K/V not repeated)."""
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415 - as above

    return frozenset(inspect.signature(varlen_attn).parameters)


AttentionInterface.register(NAME, flat_attention)
