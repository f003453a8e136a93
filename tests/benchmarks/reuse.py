"""What instructions cost: computed once for all records of a causal model, and put around the ids of every record.

A causal model of 60 million random weights takes 60-token texts under 25-token instructions, with and without
reuse. Then MiniLM's tickets pass through everything but the model, on one core: processor time per record and task.
"""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one core

import torch

from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.engine.entry import load_engine, load_tokenizer
from pipeline.engine.layout import Pack
from pipeline.engine.tokenizer import PromptTokenizer
from pipeline.engine.transformer import TransformerEngine
from tests.benchmarks._harness import MINILM, TASKS, arguments, median, report, tickets
from tests.unit.engine.tiny_models import FAMILIES, build

NUM_TEXTS = 64
NUM_TICKETS = 512
INSTRUCTION_TOKENS = 25
TEXT_TOKENS = 60
CAUSAL = {
    "hidden_size": 640,
    "intermediate_size": 1_920,
    "num_hidden_layers": 12,
    "num_attention_heads": 10,
    "num_key_value_heads": 5,
    "head_dim": 64,
    "max_position_embeddings": 512,
    "initializer_range": 0.02,
}
WORDS = ["server", "printer", "invoice", "account", "password", "network", "mail", "login", "order", "screen"]


def main() -> None:
    """Measures both."""
    given = arguments(__doc__)
    with TemporaryDirectory(prefix="refract-reuse-") as folder:
        figures = _reuse(Path(folder), given.runs)
    figures |= _outside_the_model(given.runs)
    settings = {"runs": given.runs, "causal_model": CAUSAL, "num_texts": NUM_TEXTS, "num_tickets": NUM_TICKETS}
    report(figures, settings | {"threads": torch.get_num_threads()}, given.json)


def _reuse(folder: Path, runs: int) -> dict[str, Any]:
    FAMILIES["causal"] = replace(FAMILIES["qwen3"], config=CAUSAL, max_length=256)
    model = ModelConfig(model=str(build("causal", folder)), device="cpu", overrides=dict(FAMILIES["qwen3"].overrides))
    tasks = {f"t{number}": TaskConfig(model="m", instruction=_instruction(model, number)) for number in range(4)}
    engine, tokenizer = load_engine(model, tasks), load_tokenizer(model, tasks)
    assert isinstance(engine, TransformerEngine)
    assert engine.forward.reuses_prefixes
    texts = [_sized(_text_tokens(tokenizer), TEXT_TOKENS, number) for number in range(NUM_TEXTS)]
    one, four = tokenizer.encode(texts, ["t0"]), tokenizer.encode(texts, list(tasks))
    plain_s, reused_s = [], []
    for run in range(runs + 1):
        engine.forward.reuses_prefixes = False
        plain_s.append(_seconds(lambda: engine.embed(one)))
        engine.forward.reuses_prefixes = True
        reused_s.append(_seconds(lambda: engine.embed(four)))
        print(f"run {run} of {runs}: one task without reuse {plain_s[-1]:.2f} s, four with {reused_s[-1]:.2f} s")
    return {
        "parameters_millions": sum(value.numel() for value in engine.forward.transformer.parameters()) / 1e6,
        "instruction_tokens": len(engine.prompts["t0"].prefix),
        "text_tokens": one.num_tokens / NUM_TEXTS,
        "dtype": engine.describe()["dtype"],
        "one_task_without_reuse_s": median(plain_s[1:]),
        "four_tasks_with_reuse_s": median(reused_s[1:]),
        "cost_of_four_tasks_to_four_times_one": median(reused_s[1:]) / (4 * median(plain_s[1:])),
    }


def _outside_the_model(runs: int) -> dict[str, Any]:
    model = ModelConfig.model_validate(MINILM | {"device": "cpu", "max_batch_tokens": 2_048})
    tasks = {name: TaskConfig(model="m", instruction=text) for name, text in TASKS.items()}
    engine, tokenizer = load_engine(model, tasks, threads=1), load_tokenizer(model, tasks)
    assert isinstance(engine, TransformerEngine)
    texts = tickets(NUM_TICKETS)

    def no_model(pack: Pack, adapter: str | None) -> torch.Tensor:
        del adapter
        assert len(pack.runs) <= len(pack.positions(None))
        return torch.ones(len(pack.lengths), engine.dimension)

    engine.forward.run = no_model  # type: ignore[method-assign] # nothing is computed
    batch = tokenizer.encode(texts, list(tasks))
    tokenise_s = [_cpu_seconds(lambda: tokenizer.encode(texts, list(tasks))) for _ in range(runs + 1)]
    pack_s = [_cpu_seconds(lambda: engine.embed(batch)) for _ in range(runs + 1)]
    items = len(texts) * len(tasks)
    tokenise_us, pack_us = (median(values[1:]) / items * 1e6 for values in (tokenise_s, pack_s))
    return {
        "tokenise_us_per_record_and_task": tokenise_us,
        "pack_and_unpack_us_per_record_and_task": pack_us,
        "outside_the_model_us_per_record_and_task": tokenise_us + pack_us,
    }


def _instruction(model: ModelConfig, number: int) -> str:
    def tokens(instruction: str) -> int:
        tokenizer = load_tokenizer(model, {"t": TaskConfig(model="m", instruction=instruction)})
        assert isinstance(tokenizer, PromptTokenizer)
        return len(tokenizer.prompts["t"].prefix)

    return _sized(tokens, INSTRUCTION_TOKENS, number)


def _text_tokens(tokenizer: Any) -> Callable[[str], int]:
    return lambda text: int(tokenizer.encode([text], ["t0"]).num_tokens)


def _sized(tokens: Callable[[str], int], wanted: int, seed: int) -> str:
    """Returns words, and letters at their end, of exactly so many tokens, or of the next count there is."""
    words: list[str] = []
    while tokens(" ".join([*words, WORDS[(seed + 3 * len(words)) % len(WORDS)]])) <= wanted:
        words.append(WORDS[(seed + 3 * len(words)) % len(WORDS)])
    text = " ".join(words)
    while tokens(text) < wanted:
        text += " " + "qxzj"[seed % 4]
    return text


def _seconds(function: Callable[[], Any]) -> float:
    began_s = time.perf_counter()
    function()
    return time.perf_counter() - began_s


def _cpu_seconds(function: Callable[[], Any]) -> float:
    began_s = time.process_time()
    function()
    return time.process_time() - began_s


if __name__ == "__main__":
    main()
