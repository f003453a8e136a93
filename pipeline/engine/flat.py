"""Proves at load what a model may do: run items end to end, and reuse the keys and values of instructions.

Each is tried on a few probe items and kept only where the states are those of the plain way: exactness wins over
speed. A family that builds its own attention (MPNet) or needs a bias between positions (T5) stays as it is.
"""

from collections.abc import Callable

import numpy as np
import structlog
import torch
from torch import Tensor

from pipeline.engine.attention import NAME
from pipeline.engine.forward import Forward
from pipeline.engine.layout import Pack, pack_of
from pipeline.engine.spec import ENCODER_TYPES, OFFSET_POSITIONS
from pipeline.records.batches import Int32

log = structlog.get_logger(__name__)

_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Largest error of a token's state, relative to its norm. A wrong position or mask is ten times off and more."""

_LENGTHS = (21, 21, 12, 3)
_PREFIX_LENGTH = 9
_LONGEST_PROBE = 600
"""A window longer than this is not reached by the probe."""


def prove(forward: Forward) -> None:
    """Switches on what holds for this model, and leaves the rest off."""
    if not getattr(forward.transformer, "_supports_attention_backend", False):
        return
    items = _probe_items(forward)
    plain = [forward.states(item[None])[0] for item in items]
    before = forward.transformer.config._attn_implementation  # noqa: SLF001 - transformers has no reader for it
    forward.transformer.set_attn_implementation(NAME)
    forward.flat = True
    if not _holds(forward, lambda: forward.pack_states(pack_of(items)), torch.cat(plain)):
        forward.flat = False
        forward.transformer.set_attn_implementation(before)
        return
    both_ways = forward.spec.bidirectional or forward.spec.model_type in ENCODER_TYPES
    if both_ways or forward.spec.pooling != ("lasttoken",) or any(len(item) <= _PREFIX_LENGTH for item in items[:-1]):
        return
    shared = items[0][:_PREFIX_LENGTH]
    heads = [np.concatenate([shared, item[_PREFIX_LENGTH:]]) for item in items[:-1]]
    whole = [forward.states(item[None])[0, _PREFIX_LENGTH:] for item in heads]
    rests = [item[_PREFIX_LENGTH:] for item in heads]
    zeros = np.zeros(len(rests), np.int32)
    pack = Pack(np.concatenate(rests), np.array([len(rest) for rest in rests], np.int32), zeros, (shared,), zeros)
    forward.reuses_prefixes = _holds(forward, lambda: forward.pack_states(pack), torch.cat(whole))
    forward.forget_prefixes()


def _probe_items(forward: Forward) -> list[Int32]:
    """Longest first, one of them beyond the sliding window where that is affordable."""
    config = forward.transformer.config
    window = getattr(config, "sliding_window", None) or 0
    lengths = [min(length, forward.spec.max_length) for length in _LENGTHS]
    if lengths[0] < window + 3 <= min(_LONGEST_PROBE, forward.spec.max_length):
        lengths.insert(0, window + 3)
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, config.vocab_size, length).astype(np.int32) for length in lengths]
    if forward.spec.model_type in OFFSET_POSITIONS:
        return ids
    padding_id = getattr(config, "pad_token_id", None)
    return [np.where(item == padding_id, (item + 1) % config.vocab_size, item) for item in ids]


def _holds(forward: Forward, compute: Callable[[], Tensor], expected: Tensor) -> bool:
    try:
        found = compute()
    except (NotImplementedError, TypeError, ValueError, IndexError, KeyError, AttributeError, RuntimeError) as error:
        log.info("A model runs the plain way", model=forward.spec.files.name, cause=type(error).__name__)
        return False
    found, expected = found.float(), expected.float()
    distance = (found - expected).norm(dim=-1) / expected.norm(dim=-1).clamp(min=1e-6)
    return bool(distance.max() <= _TOLERANCE[forward.dtype])
