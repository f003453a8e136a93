"""Runs one packed group of items through the model: ids in, float32 rows out. The only place that computes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pipeline.engine.attention import KeysValues, Layout, layout_of
from pipeline.engine.heads import Heads
from pipeline.engine.layout import Pack, pack_of
from pipeline.engine.pooling import pool
from pipeline.engine.spec import ENCODER_TYPES, OFFSET_POSITIONS, ModelSpec
from pipeline.engine.st_files import Dense
from pipeline.engine.weights import load_dense
from pipeline.records.batches import Float32, Int32


class Forward:
    """A transformer, its pooling and what follows. Used from one thread.

    As loaded it takes packs of items of one length; `pipeline.engine.flat` proves what else it may do.
    """

    def __init__(self, spec: ModelSpec, model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype
        self.spec = spec
        self.flat = False
        """Whether items of mixed lengths run end to end."""
        self.reuses_prefixes = False
        """Whether packs may have prefixes."""
        self.heads = Heads(device)
        """What follows for tasks that have one."""
        self._model = model
        self._kwargs = {} if spec.model_type in ENCODER_TYPES else {"use_cache": False}
        self._after: list[nn.Module | None] = [
            load_dense(spec, module, device) if isinstance(module, Dense) else None for module in spec.after_pooling
        ]
        self._prefixes: dict[tuple[str | None, bytes], KeysValues] = {}

    @property
    def transformer(self) -> Any:
        """The transformers model, without adapters around it."""
        wrapped = getattr(self._model, "get_base_model", None)
        return self._model if wrapped is None else wrapped()

    def describe(self) -> dict[str, Any]:
        """Returns how batches run."""
        return {"batches": "flat" if self.flat else "exact length", "instruction_reuse": self.reuses_prefixes}

    @torch.inference_mode()
    def run(self, pack: Pack, adapter: str | None) -> Tensor:
        """Returns (num_items, dimension) float32 on the device, not yet cut and not yet normalised.

        Args:
            pack: What to compute; items of one length unless `flat`.
            adapter: The LoRA adapter of all of them, None without one.
        """
        if adapter is not None:
            self._model.set_adapter(adapter)  # type: ignore[operator] # a PEFT model
        states = self._pack_states(pack, adapter)
        lengths, excluded = self._to_device(pack.lengths), self._to_device(pack.excluded)
        rows = pool(states, lengths, excluded, self.spec.pooling)
        for module in self._after:
            rows = nn.functional.normalize(rows, dim=-1) if module is None else module(rows)
        return rows

    @torch.inference_mode()
    def states(self, ids: Int32) -> Tensor:
        """Returns the (num_items, length, hidden) last hidden states of items of one length."""
        states: Tensor = self._model(input_ids=self._to_device(ids), **self._kwargs).last_hidden_state
        return states

    @torch.inference_mode()
    def pack_states(self, pack: Pack) -> Tensor:
        """Returns the (num_tokens, hidden) last hidden states of a pack."""
        return self._pack_states(pack, None)

    def _pack_states(self, pack: Pack, adapter: str | None) -> Tensor:
        if not self.flat:
            return self.states(pack.ids.reshape(len(pack.lengths), -1)).flatten(0, 1)
        # A prompt without an instruction has an empty prefix, which has no keys and values.
        prefixes = tuple(self._prefix(ids, adapter) for ids in pack.prefixes if len(ids))
        return self._flat_states(pack, layout_of(pack, prefixes, self.device, self.dtype))

    def _flat_states(self, pack: Pack, layout: Layout) -> Tensor:
        padding_id = self.transformer.config.pad_token_id if self.spec.model_type in OFFSET_POSITIONS else None
        states: Tensor = self._model(
            input_ids=self._to_device(pack.ids)[None],
            position_ids=self._to_device(pack.positions(padding_id))[None],
            layout=layout,
            **self._kwargs,
        ).last_hidden_state
        return states[0]

    def _prefix(self, ids: Int32, adapter: str | None) -> KeysValues:
        """Keys and values of an instruction, per layer; computed when it is first seen, kept for good."""
        name = (adapter, ids.tobytes())
        if name not in self._prefixes:
            captured: dict[int, tuple[Tensor, Tensor]] = {}
            pack = pack_of([ids])
            self._flat_states(pack, Layout(pack.runs, captured=captured))
            self._prefixes[name] = captured
        return self._prefixes[name]

    def forget_prefixes(self) -> None:
        """Drops what is kept of instructions."""
        self._prefixes.clear()

    def _to_device(self, values: npt.NDArray[Any]) -> Tensor:
        """Integers as int64, by an asynchronous copy from pinned memory where there is CUDA."""
        host = torch.from_numpy(values.astype(np.int64, copy=False))
        return host.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else host

    def run_in_float32(self, pack: Pack, adapter: str | None) -> Tensor:
        """As `run`, with the weights held in float32 for the while: what overflows in half precision may not here.

        The pack has no prefixes: what is kept of them is in half precision.
        """
        with self._float32_weights():
            return self.run(pack, adapter)

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


class HostCopy:
    """Rows on their way to the host; on CUDA nobody waits for them before `numpy`."""

    def __init__(self, rows: Tensor) -> None:
        self._rows = rows
        self._arrived: torch.cuda.Event | None = None
        if rows.is_cuda:
            self._rows = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
            self._rows.copy_(rows, non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call] # torch leaves it bare
            self._arrived.record()

    def numpy(self) -> Float32:
        """Returns the rows, once they are there."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return np.asarray(self._rows.numpy(), np.float32)


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
