"""Runs one packed group of items through the model: ids in, float32 rows out. The only place that computes."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.engine.pooling import pool
from pipeline.engine.spec import ENCODER_TYPES, ModelSpec
from pipeline.engine.st_files import Dense
from pipeline.engine.weights import load_dense
from pipeline.records import Float32, Int32


class Forward:
    """A transformer, its pooling and what follows. Groups hold items of one length: no padding, no mask."""

    def __init__(self, spec: ModelSpec, model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype
        self._spec = spec
        self._model = model
        self._kwargs = {} if spec.model_type in ENCODER_TYPES else {"use_cache": False}
        self._after: list[nn.Module | None] = [
            load_dense(spec, module, device) if isinstance(module, Dense) else None for module in spec.after_pooling
        ]

    @torch.inference_mode()
    def run(self, ids: Int32, excluded: Int32, adapter: str | None) -> Tensor:
        """Returns (num_items, dimension) float32 on the device, not yet cut and not yet normalised.

        Args:
            ids: (num_items, length) token ids.
            excluded: (num_items,) leading tokens that stay out of the pooling.
            adapter: The LoRA adapter of all of them, None for none.
        """
        if adapter is not None:
            self._model.set_adapter(adapter)  # type: ignore[operator] # a PEFT model
        device_ids = torch.from_numpy(ids).to(self.device, torch.long)
        device_excluded = torch.from_numpy(excluded).to(self.device, torch.long)
        rows = pool(self._states(device_ids), device_excluded, self._spec.pooling)
        for module in self._after:
            rows = nn.functional.normalize(rows, dim=-1) if module is None else module(rows)
        return rows

    @torch.inference_mode()
    def states(self, ids: Int32) -> Tensor:
        """Returns the (num_items, length, hidden) last hidden states, for tests of the model itself."""
        return self._states(torch.from_numpy(ids).to(self.device, torch.long))

    def _states(self, ids: Tensor) -> Tensor:
        states: Tensor = self._model(input_ids=ids, **self._kwargs).last_hidden_state
        return states

    def run_in_float32(self, ids: Int32, excluded: Int32, adapter: str | None) -> Tensor:
        """As `run`, with the weights held in float32 for the while: what overflows in half precision may not here."""
        with self._float32_weights():
            return self.run(ids, excluded, adapter)

    @contextmanager
    def _float32_weights(self) -> Iterator[None]:
        """Half-precision values are exact in float32, so going there and back changes no weight."""
        changed = [p for p in self._model.parameters() if p.dtype in {torch.bfloat16, torch.float16}]
        dtypes = [parameter.dtype for parameter in changed]
        try:
            for parameter in changed:
                parameter.data = parameter.data.float()
            yield
        finally:
            for parameter, dtype in zip(changed, dtypes, strict=True):
                parameter.data = parameter.data.to(dtype)


def finish(rows: Float32, dimension: int, *, layer_norm: bool) -> Float32:
    """Returns rows cut to a Matryoshka dimension and L2-normalised; what cannot be normalised becomes NaN.

    Args:
        rows: (num_items, width) as the model made them.
        dimension: How many leading values to keep.
        layer_norm: Whether the model was trained with a layer norm before the cut (nomic-embed-text-v1.5).
    """
    if dimension < rows.shape[1]:
        if layer_norm:
            rows = (rows - rows.mean(1, keepdims=True)) / np.sqrt(rows.var(1, keepdims=True) + np.float32(1e-5))
        rows = rows[:, :dimension]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    unit[~np.isfinite(unit).all(axis=1)] = np.nan
    return np.asarray(unit, np.float32)
