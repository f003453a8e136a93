"""What oneDNN does faster on a CPU than the modules of transformers: packed weights, GELU in its linear layer, int8.

Packed: weights in bfloat16 are laid out once as its kernels read them, which otherwise happens in every call.

int8: weights per output channel, activations per token, each scaled on its own, so that a token's result does not
depend on its batch. Both run on the instructions for 8-bit products (VNNI), which take unsigned activations: without
them, and with signed ones, oneDNN falls back to reference code a thousand times slower.
"""

from collections.abc import Callable
from pathlib import Path
from threading import local
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import GELUActivation

_INT8_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
_BFLOAT16_FLAGS = frozenset({"amx_bf16", "avx512_bf16"})
_WEIGHT_STEPS = 127.0
_STEPS = 126.0
"""One fewer than there are: in bfloat16 the largest value may come out half a step larger, and 256 would wrap to 0."""

_ZERO_POINT = 128
_SMALLEST = 1e-6
"""A token of nothing but zeros is divided by this."""


def cpu_computes_in_bfloat16() -> bool:
    """Returns whether the processor has the instructions; without them bfloat16 is emulated."""
    return bool(_BFLOAT16_FLAGS & _cpu_flags())


def cpu_computes_in_int8() -> bool:
    """Returns whether the processor has the instructions, and torch the library that uses them."""
    return bool(_INT8_FLAGS & _cpu_flags()) and _has_onednn()


def packs_bfloat16() -> bool:
    """Returns whether oneDNN takes packed weights in bfloat16 here; torch refuses them on processors before AVX-512."""
    return _has_onednn() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 - a torch operator


def _has_onednn() -> bool:
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call] # torch leaves it bare


def _cpu_flags() -> frozenset[str]:
    try:
        return frozenset(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return frozenset()


class PackedLinear(nn.Module):
    """A linear layer, and what comes right after it, in one pass over the result."""

    def __init__(self, linear: nn.Linear, after: str = "none") -> None:
        super().__init__()
        self.bias: Tensor | None = linear.bias
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._after = after
        self._is_packed = linear.weight.dtype == torch.bfloat16
        # Not a parameter: what moves or converts a model's parameters does not know the layout.
        self._weight: Tensor = linear.weight.detach()
        if self._is_packed:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(self._weight)  # noqa: SLF001 - a torch operator

    @property
    def weight(self) -> Tensor:
        """The weight as it was, (out_features, in_features); a copy where it is packed."""
        return self._weight.to_dense() if self._is_packed else self._weight

    def forward(self, states: Tensor) -> Tensor:
        """Returns after(states @ weight.T + bias); states in float32 are computed in it."""
        weight, bias = self._weight, self.bias
        if states.dtype != weight.dtype:
            weight = self.weight.to(states.dtype)
            bias = bias if bias is None else bias.to(states.dtype)
        result: Tensor = torch.ops.mkldnn._linear_pointwise(states, weight, bias, self._after, [], "none")  # noqa: SLF001 - a torch operator
        return result


def pack(model: nn.Module) -> None:
    """Replaces linear layers in place, on a CPU: those with GELU after them as in BERT, and all in bfloat16.

    Layers in bfloat16 stay as they are where oneDNN does not take them packed.
    """
    if not _has_onednn():
        return
    refused = None if packs_bfloat16() else torch.bfloat16
    for module in list(model.modules()):
        dense, activation = getattr(module, "dense", None), getattr(module, "intermediate_act_fn", None)
        exact = isinstance(activation, GELUActivation) and activation.act is nn.functional.gelu
        if type(dense) is nn.Linear and exact and dense.weight.dtype != refused:
            module.dense = PackedLinear(dense, "gelu")
            module.intermediate_act_fn = nn.Identity()
    if refused is None:
        _replace_linear(model, lambda linear: PackedLinear(linear) if linear.weight.dtype == torch.bfloat16 else linear)


def _replace_linear(model: nn.Module, replacement: Callable[[nn.Linear], nn.Module]) -> None:
    """Puts something else in the place of every linear layer."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, replacement(child))


class _Activations(local):
    """Activations that the linear layers of one module share, per thread: query, key and value take the same ones.

    Each layer may take them once. Kept any longer, a tensor that is changed in place would be read as it was before.
    """

    def __init__(self, num_layers: int) -> None:
        self._num_layers = num_layers
        self._states: Tensor | None = None
        self._quantised: tuple[Tensor, Tensor] | None = None
        self._num_left = 0

    def quantise(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Returns 8-bit values and their scales, (…, width) and (…, 1)."""
        if self._states is not states or self._quantised is None:
            steps = _STEPS / states.abs().amax(-1, keepdim=True).clamp_(min=_SMALLEST)
            values = (states * steps).round_().add_(_ZERO_POINT).to(torch.uint8)
            self._states, self._quantised, self._num_left = states, (values, steps.reciprocal()), self._num_layers
        quantised = self._quantised
        self._num_left -= 1
        if not self._num_left:
            self._states = self._quantised = None
        return quantised


class Int8Linear(nn.Module):
    """A linear layer over 8-bit weights and activations; the result has the activations' precision."""

    def __init__(self, linear: nn.Linear, shared: _Activations) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scales = weight.abs().amax(1).clamp_(min=_SMALLEST).div_(_WEIGHT_STEPS)
        values = (weight / scales[:, None]).round_().to(torch.int8)
        self.weight: Any = torch.ops.onednn.qlinear_prepack(values, None)
        self.bias: Tensor | None = linear.bias
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._scales = scales
        self._zeros = torch.zeros(len(scales), dtype=torch.int64)
        self._shared = shared

    def forward(self, states: Tensor) -> Tensor:
        """Returns states @ weight.T + bias, nearly."""
        values, scales = self._shared.quantise(states)
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            values, 1.0, _ZERO_POINT, self.weight, self._scales, self._zeros, None, 1.0, 0, states.dtype,
            "none", [], "",
        )  # fmt: skip
        if self.bias is None:
            return product.mul_(scales)
        return torch.addcmul(self.bias, product, scales)


def quantise(model: nn.Module) -> None:
    """Replaces every linear layer in place."""
    for module in list(model.modules()):
        layers = [(name, child) for name, child in module.named_children() if type(child) is nn.Linear]
        shared = _Activations(len(layers))
        for name, layer in layers:
            setattr(module, name, Int8Linear(layer, shared))
