"""Builds a ready engine: weights, budget and self-test. Imports torch."""

from collections.abc import Mapping
from typing import Any

import torch

from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.engine.budget import TokenBudget, measure_budget
from pipeline.engine.flat import prove
from pipeline.engine.forward import Forward
from pipeline.engine.selftest import self_test
from pipeline.engine.spec import ModelSpec, resolve
from pipeline.engine.tokenizer import PromptTokenizer
from pipeline.engine.transformer import TransformerEngine
from pipeline.engine.weights import load_transformer, pick_device, pick_dtype


def build_engine(model: ModelConfig, tasks: Mapping[str, TaskConfig], *, threads: int | None) -> TransformerEngine:
    """Returns a loaded and tested engine. Raises as `pipeline.engine.load.load_engine`."""
    if threads is not None:
        torch.set_num_threads(threads)
    spec = resolve(model, weights=True)
    tokenizer = PromptTokenizer(spec, tasks)
    device = pick_device(model)
    dtype = pick_dtype(model, spec, device)
    forward = Forward(spec, load_transformer(spec, device, dtype), device, dtype)
    prove(forward)
    self_test(spec, tokenizer, forward)
    budget = TokenBudget(model.max_batch_tokens or measure_budget(forward, spec.max_length))
    return TransformerEngine(spec, tokenizer.prompts, forward, budget, _facts(spec, tokenizer, forward))


def _facts(spec: ModelSpec, tokenizer: PromptTokenizer, forward: Forward) -> dict[str, Any]:
    return {
        "model": spec.files.name,
        "revision": spec.files.commit,
        "catalogue": spec.catalogue_id,
        "model_type": spec.model_type,
        "instruction_style": spec.instruction_style,
        "dimension": spec.dimension,
        "pooling": "+".join(spec.pooling),
        "max_length": spec.max_length,
        "device": str(forward.device),
        "dtype": str(forward.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "origins": dict(spec.origins),
        "warnings": warnings_of(spec, tokenizer),
    }


def warnings_of(spec: ModelSpec, tokenizer: PromptTokenizer) -> list[str]:
    """Returns what a user should know before trusting the vectors, a sentence each."""
    found = []
    if spec.instruction_style == "free_form" and spec.trained_on_instructions is False:
        found.append(
            f"{spec.files.name} was not trained on instructions: overrides put one in front of the text, and the "
            "vectors of two tasks will differ, but not because the model understood them"
        )
    if tokenizer.whole_prompts:
        found.append(
            f"no cut is proven for the prompts {', '.join(tokenizer.whole_prompts)}: each is tokenised whole per record"
        )
    return found
