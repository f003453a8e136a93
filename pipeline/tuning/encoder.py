"""A model in training: the engine's own prompts and pooling, with a LoRA update in every linear layer."""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import peft
import torch
from torch import Tensor, nn

from pipeline.config.model import TaskConfig
from pipeline.engine.cpu_kernels import cpu_computes_in_bfloat16
from pipeline.engine.items import assemble
from pipeline.engine.layout import Pack
from pipeline.engine.pooling import pool
from pipeline.engine.spec import ENCODER_TYPES, ModelSpec
from pipeline.engine.st_files import Dense
from pipeline.engine.tokenizer import PromptTokenizer
from pipeline.engine.weights import load_dense, load_transformer
from pipeline.records.batches import Float32, TokenBatch
from pipeline.tuning.settings import LoraSettings

_CHUNK_TOKENS = 8_192
"""Tokens of one call of the model, padding included."""


_WIDTH_STEP = 16
"""Calls are padded to multiples of it: a CPU's matrix library prepares itself for every new width."""


class LoraEncoder:
    """Texts under prompts to unit vectors that gradients flow through. One thread."""

    def __init__(
        self, spec: ModelSpec, tasks: Mapping[str, TaskConfig], device: torch.device, settings: LoraSettings
    ) -> None:
        """Loads the model and puts untrained updates beside its weights: vectors are still the model's own.

        Args:
            spec: The model, without an adapter.
            tasks: Every prompt that will be used, by name.
            device: Where to train.
            settings: Rank, dropout and seed of the updates.

        Raises:
            ConfigError: the weights cannot be loaded, or a prompt leaves no room for text.
        """
        self.spec = spec
        self.device = device
        self._tokenizer = PromptTokenizer(spec, tasks)
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        base = load_transformer(spec, device, dtype)
        self._half = device.type == "cuda" or cpu_computes_in_bfloat16()
        if device.type == "cpu" and self._half:
            # torch 2.15's fused attention takes six times as long in bfloat16 on a CPU, backwards, as in float32.
            base.set_attn_implementation("eager")  # type: ignore[operator] # a transformers model
        torch.manual_seed(settings.seed)
        self._model = _with_updates(base, settings)
        self._after: list[nn.Module | None] = [
            load_dense(spec, module, device) if isinstance(module, Dense) else None for module in spec.after_pooling
        ]
        self._kwargs = {} if spec.model_type in ENCODER_TYPES else {"use_cache": False}

    @property
    def model(self) -> Any:
        """The PEFT model."""
        return self._model

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """What is trained, by name."""
        return {name: value for name, value in self._model.named_parameters() if value.requires_grad}

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Sets what is trained."""
        with torch.no_grad():
            for name, parameter in self.weights.items():
                parameter.copy_(weights[name])

    def scale(self, factor: float) -> None:
        """Multiplies the updates: 0 is the model as it was, 1 as it is."""
        with torch.no_grad():
            for name, parameter in self.weights.items():
                if "lora_B" in name:
                    parameter.mul_(factor)

    def train(self, *, seed: int) -> None:
        """Turns dropout on, drawn from the seed. The model's own stays off."""
        torch.manual_seed(seed)
        for name, module in self._model.named_modules():
            if "lora_dropout" in name:
                module.train()

    @contextmanager
    def untrained(self) -> Iterator[None]:
        """Vectors are the model's own inside, without gradients."""
        with torch.no_grad(), self._model.disable_adapter():
            self._model.eval()
            yield

    def rows(self, texts: Sequence[str], prompts: Sequence[str]) -> list[Tensor]:
        """Returns a (num_texts, dimension) tensor of unit vectors per prompt, cut to nothing."""
        return self._rows([self._tokenizer.encode(texts, prompts)])[0]

    def rows_each(self, texts: Sequence[str], prompts: Sequence[Sequence[str]]) -> list[Tensor]:
        """Returns the same where every text has prompts of its own, as many as any other: a tensor per place."""
        batches = [self._tokenizer.encode([text], own) for text, own in zip(texts, prompts, strict=True)]
        return [torch.cat(rows) for rows in zip(*self._rows(batches), strict=True)]

    def _rows(self, batches: Sequence[TokenBatch]) -> list[list[Tensor]]:
        """Returns a tensor per batch and prompt."""
        items = assemble(batches, self._tokenizer.prompts)
        order = np.argsort(items.lengths, kind="stable")
        parts = [self._forward(items.pack(group, reuse=False)) for group in _chunks(order, items.lengths)]
        found = torch.cat(parts)[torch.from_numpy(np.argsort(order))]
        unit = nn.functional.normalize(found, dim=-1)
        return [
            [unit[items.of(number, row)] for row in range(len(batch.prompts))] for number, batch in enumerate(batches)
        ]

    @torch.no_grad()
    def embed(self, texts: Sequence[str], prompts: Sequence[str]) -> dict[str, Float32]:
        """Returns the vectors of texts under each prompt, (num_texts, task's dimension), dropout off."""
        self._model.eval()
        parts = [self.rows(texts[begin : begin + 128], prompts) for begin in range(0, len(texts), 128)]
        found = {}
        for number, prompt in enumerate(prompts):
            rows = cut(torch.cat([part[number] for part in parts]), self.dimension(prompt), self.spec)
            found[prompt] = np.asarray(rows.float().cpu().numpy(), np.float32)
        return found

    def dimension(self, prompt: str) -> int:
        """Returns the width of a prompt's vectors as served."""
        return self._tokenizer.prompts[prompt].prompt.dimension

    def _forward(self, pack: Pack) -> Tensor:
        width = -(-int(pack.lengths.max()) // _WIDTH_STEP) * _WIDTH_STEP
        mask = torch.from_numpy(np.arange(width)[None] < pack.lengths[:, None]).to(self.device)
        ids = torch.zeros(mask.shape, dtype=torch.int64, device=self.device)
        ids[mask] = torch.from_numpy(pack.ids.astype(np.int64)).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._half):
            states = self._model(input_ids=ids, attention_mask=mask.long(), **self._kwargs).last_hidden_state[mask]
        lengths, excluded = (
            torch.from_numpy(values.astype(np.int64)).to(self.device) for values in (pack.lengths, pack.excluded)
        )
        rows = pool(states, lengths, excluded, self.spec.pooling)
        for module in self._after:
            rows = nn.functional.normalize(rows, dim=-1) if module is None else module(rows)
        return rows


def cut(rows: Tensor, dimension: int, spec: ModelSpec) -> Tensor:
    """Returns unit vectors of the leading values, as the engine serves a task of this dimension."""
    if dimension >= rows.shape[1]:
        return rows
    if spec.layer_norm_before_truncation:
        rows = nn.functional.layer_norm(rows, rows.shape[1:])
    return nn.functional.normalize(rows[:, :dimension], dim=-1)


def _with_updates(base: nn.Module, settings: LoraSettings) -> Any:
    names = [name for name, module in base.named_modules() if isinstance(module, nn.Linear) and "pooler" not in name]
    patterns = sorted({re.sub(r"\d+", r"\\d+", re.escape(name)) for name in names})
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules="|".join(patterns),
        task_type="FEATURE_EXTRACTION",
    )
    with warnings.catch_warnings():
        # peft 0.21 reads an attribute that transformers 5 has renamed
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        model = peft.get_peft_model(base, config)  # type: ignore[arg-type, unused-ignore]
    model.eval()
    return model


def _chunks(order: Any, lengths: Any) -> Iterator[Any]:
    """Yields items in order, as many as stay within the tokens of one call."""
    begin = 0
    for end in range(1, len(order) + 1):
        widest = int(lengths[order[min(end, len(order) - 1)]])
        if end == len(order) or widest * (end + 1 - begin) > _CHUNK_TOKENS:
            yield order[begin:end]
            begin = end
