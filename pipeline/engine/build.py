"""Builds a ready engine: weights, budget and self-test. Imports torch."""

from collections.abc import Mapping
from typing import Any

import torch

from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.engine.budget import TokenBudget, measure_budget
from pipeline.engine.cpu_kernels import pack, quantise
from pipeline.engine.flat import prove
from pipeline.engine.forward import Forward
from pipeline.engine.parallel import Streams
from pipeline.engine.selftest import PROBE_TEXTS, self_test
from pipeline.engine.spec import ModelSpec, resolve
from pipeline.engine.tokenizer import PromptTokenizer
from pipeline.engine.transformer import TransformerEngine
from pipeline.engine.weights import load_transformer, pick_device, pick_dtype
from pipeline.records.batches import Float32

_PROBE_TOKENS = 1_024


def build_engine(model: ModelConfig, tasks: Mapping[str, TaskConfig], *, threads: int | None) -> TransformerEngine:
    """Returns a loaded and tested engine. Raises as `pipeline.engine.entry.load_engine`."""
    if threads is not None:
        torch.set_num_threads(threads)
    spec = resolve(model, weights=True)
    tokenizer = PromptTokenizer(spec, tasks)
    device = pick_device(model)
    dtype = pick_dtype(model, spec, device)
    facts = _facts(spec, tokenizer, device, model.dtype if model.dtype == "int8" else str(dtype).split(".")[1])
    if model.dtype == "int8":
        forward, facts["cosine_to_float32"] = _in_int8(spec, tokenizer, device, dtype)
    else:
        transformer = load_transformer(spec, device, dtype)
        if device.type == "cpu":
            pack(transformer)
        forward = Forward(spec, transformer, device, dtype)
        prove(forward)
    self_test(spec, tokenizer, forward)
    streams = Streams(torch.get_num_threads() if device.type == "cpu" and not spec.adapters else 1)
    budget = TokenBudget(model.max_batch_tokens or measure_budget(forward, spec.max_length, streams))
    return TransformerEngine(spec, tokenizer.prompts, forward, budget, facts, streams)


def _in_int8(
    spec: ModelSpec, tokenizer: PromptTokenizer, device: torch.device, dtype: torch.dtype
) -> tuple[Forward, dict[str, float]]:
    """The model with its linear layers in 8 bits, and what that costs: cosines of a few texts' rows to float32.

    What it may do is proven before: 8 bits turn a last digit's difference into one of a step.
    """
    transformer = load_transformer(spec, device, torch.float32)
    exact = Forward(spec, transformer, device, torch.float32)
    prove(exact)
    rows = _probe_rows(spec, tokenizer, exact)
    exact.forget_prefixes()
    quantise(transformer)
    forward = Forward(spec, transformer.to(dtype), device, dtype)
    forward.flat, forward.reuses_prefixes = exact.flat, exact.reuses_prefixes
    cosines = (rows * _probe_rows(spec, tokenizer, forward)).sum(axis=1)
    return forward, {"mean": float(cosines.mean()), "min": float(cosines.min())}


def _probe_rows(spec: ModelSpec, tokenizer: PromptTokenizer, forward: Forward) -> Float32:
    engine = TransformerEngine(spec, tokenizer.prompts, forward, TokenBudget(_PROBE_TOKENS), {})
    return engine.embed(tokenizer.encode(PROBE_TEXTS, [next(iter(tokenizer.prompts))]))[0]


def _facts(spec: ModelSpec, tokenizer: PromptTokenizer, device: torch.device, dtype: str) -> dict[str, Any]:
    return {
        "model": spec.files.name,
        "revision": spec.files.commit,
        "catalogue": spec.catalogue_id,
        "model_type": spec.model_type,
        "instruction_style": spec.instruction_style,
        "dimension": spec.dimension,
        "pooling": "+".join(spec.pooling),
        "max_length": spec.max_length,
        "device": str(device),
        "dtype": dtype,
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
