"""Tests a loaded model on a few texts before anybody relies on it: a wrong setting shows here, not in a collection."""

from collections.abc import Mapping

import numpy as np

from pipeline.config.model import TaskConfig
from pipeline.engine.budget import TokenBudget
from pipeline.engine.catalogue import FREE_STYLES
from pipeline.engine.forward import Forward
from pipeline.engine.spec import ENCODER_TYPES, ModelSpec
from pipeline.engine.tokenizer import PromptTokenizer
from pipeline.engine.transformer import TransformerEngine
from pipeline.errors import ConfigError
from pipeline.records.batches import Float32

PROBE_TEXTS = (
    "The printer on the second floor does not answer.",
    "Hello",
    "Since this morning nobody in the office can log in to the VPN, the client says that the certificate has expired.",
)
_INSTRUCTIONS = ("urgency", "product")
_TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 2e-2}
"""Largest difference of a value between a text alone and in company: generous, for it looks for faults."""

_SAME = 1e-4
"""Two instructions whose vectors differ by less in every value are not told apart."""


def self_test(spec: ModelSpec, tokenizer: PromptTokenizer, forward: Forward) -> None:
    """Runs all tests.

    Raises:
        ConfigError: names what is wrong and the setting it comes from.
    """
    engine = TransformerEngine(spec, tokenizer.prompts, forward, TokenBudget(1_024), {})
    _check_end_token(spec, tokenizer)
    _check_direction(spec, tokenizer, forward)
    for name in tokenizer.prompts:
        together = engine.embed(tokenizer.encode(PROBE_TEXTS, [name]))[0]
        _check_rows(spec, name, together)
        alone = np.concatenate([engine.embed(tokenizer.encode([text], [name]))[0] for text in PROBE_TEXTS])
        precision = str(forward.dtype).removeprefix("torch.")
        if np.abs(alone - together).max() > _TOLERANCE[precision]:
            raise _fault(spec, f"a text's vector under the prompt {name} depends on the other texts of its batch")
    if spec.instruction_style in FREE_STYLES:
        _check_instructions(spec, forward)


def _check_rows(spec: ModelSpec, name: str, rows: Float32) -> None:
    if not np.isfinite(rows).all():
        raise _fault(spec, f"vectors under the prompt {name} are not finite; try another dtype")
    if np.abs(np.linalg.norm(rows, axis=1) - 1).max() > 1e-3:  # noqa: PLR2004 - far above rounding
        raise _fault(spec, f"vectors under the prompt {name} are not of unit length")


def _check_end_token(spec: ModelSpec, tokenizer: PromptTokenizer) -> None:
    if spec.append_eos and not tokenizer.end_tokens:
        raise _fault(spec, "its family ends every prompt with an end token, and the tokenizer adds no end token")


def _check_direction(spec: ModelSpec, tokenizer: PromptTokenizer, forward: Forward) -> None:
    """Changes the last token: the first one's state must move in a bidirectional model, and only there."""
    if spec.bidirectional is None or spec.model_type in ENCODER_TYPES or spec.adapters:
        return
    ids = tokenizer.encode([PROBE_TEXTS[0]], [next(iter(tokenizer.prompts))]).ids[:8]
    pair = np.stack([ids, ids])
    pair[1, -1] = ids[0]
    states = forward.states(pair)
    moved = float((states[0, 0] - states[1, 0]).abs().max()) > _SAME
    if moved != spec.bidirectional:
        found, wanted = ("both ways", "only back") if moved else ("only back", "both ways")
        raise _fault(spec, f"its tokens look {found}, and should look {wanted} (bidirectional: {spec.bidirectional})")


def _check_instructions(spec: ModelSpec, forward: Forward) -> None:
    tasks: Mapping[str, TaskConfig] = {
        str(number): TaskConfig(instruction=instruction, model="self-test")
        for number, instruction in enumerate(_INSTRUCTIONS)
    }
    try:
        tokenizer = PromptTokenizer(spec, tasks)
    except ConfigError:
        return  # prompts so short that not even one word fits: there is nothing to compare
    engine = TransformerEngine(spec, tokenizer.prompts, forward, TokenBudget(1_024), {})
    first, second = engine.embed(tokenizer.encode(PROBE_TEXTS, list(tasks)))
    if np.abs(first - second).max() < _SAME:
        raise _fault(spec, "two instructions give the same vectors")


def _fault(spec: ModelSpec, what: str) -> ConfigError:
    return ConfigError(f"{spec.files.name}: failed its self-test: {what}")
