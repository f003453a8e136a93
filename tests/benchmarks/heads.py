"""What tasks cost beside each other: with instructions of their own, and with heads behind one instruction.

MiniLM on tickets, tokenised and embedded in this process. One, two and four tasks of each sort take turns on the same
few tickets, so that what else the machine does meets all of them alike; a cost is a run's time over that of one task
without a head in the same run.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.engine.entry import load_engine, load_tokenizer
from pipeline.engine.measure import Workload
from pipeline.engine.tokenizer import PromptTokenizer
from pipeline.engine.transformer import TransformerEngine
from tests.benchmarks._harness import MINILM, arguments, median, report, tickets, told

NUM_TICKETS = 256
CHUNK = 32
"""Tickets of one turn."""

WIDTH = 384
COUNTS = (1, 2, 4)
INSTRUCTIONS = (
    "How urgent is this support ticket",
    "What is the technical issue in this support ticket",
    "What is the tone of this support ticket",
    "What does the writer of this ticket want",
)


def main() -> None:
    """Measures all of them."""
    given = arguments(__doc__)
    texts = tickets(NUM_TICKETS)
    with TemporaryDirectory(prefix="refract-heads-") as folder:
        engine, tokenizer, prompts = _loaded(Path(folder))
        works = {
            name: [Workload(engine, tokenizer, texts[at : at + CHUNK], some) for at in range(0, len(texts), CHUNK)]
            for name, some in prompts.items()
        }
        runs = [told("cost", run, _run(works)) for run in range(-1, given.runs)][1:]
    figures = {name: median([run[name] for run in runs]) for name in runs[0]}
    settings = {"runs": given.runs, "tickets": NUM_TICKETS, "threads": torch.get_num_threads()}
    report(figures, settings | {"dtype": engine.describe()["dtype"]}, given.json)


def _loaded(folder: Path) -> tuple[TransformerEngine, PromptTokenizer, dict[str, list[str]]]:
    """Returns one model with all tasks, and the prompts of each sort and number by name."""
    plain = {f"t{n}": TaskConfig(model="m", instruction=text) for n, text in enumerate(INSTRUCTIONS)}
    headed = {
        f"h{n}": TaskConfig(model="m", instruction=INSTRUCTIONS[0], head=_head(folder / str(n), n))
        for n in range(len(INSTRUCTIONS))
    }
    model = ModelConfig.model_validate(MINILM | {"device": "cpu", "max_batch_tokens": 2_048})
    tasks = plain | headed
    engine, tokenizer = load_engine(model, tasks), load_tokenizer(model, tasks)
    assert isinstance(engine, TransformerEngine)
    assert isinstance(tokenizer, PromptTokenizer)
    prompts = {
        f"{count}_{kind}": list(some)[:count]
        for count in COUNTS
        for kind, some in (("plain", plain), ("headed", headed))
    }
    return engine, tokenizer, prompts


def _head(folder: Path, seed: int) -> Path:
    folder.mkdir()
    weight = np.random.default_rng(seed).normal(0, WIDTH**-0.5, (WIDTH, WIDTH)).astype(np.float32)
    save_file({"linear.weight": weight}, folder / "model.safetensors")
    settings = {
        "in_features": WIDTH,
        "out_features": WIDTH,
        "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def _run(works: Mapping[str, Sequence[Workload]]) -> dict[str, Any]:
    """Returns the cost of each, by the clock and by processor time, which others on the machine disturb less."""
    seconds, cpu_seconds = dict.fromkeys(works, 0.0), dict.fromkeys(works, 0.0)
    for turn in range(len(next(iter(works.values())))):
        for name in np.roll(list(works), turn).tolist():  # what comes first in a turn costs a little more
            work = works[name][turn]
            began_s, began_cpu_s = time.perf_counter(), time.process_time()
            work.embed_all()
            seconds[name] += time.perf_counter() - began_s
            cpu_seconds[name] += time.process_time() - began_cpu_s
    return {
        "one_task_s": seconds["1_plain"],
        **{f"cost_{name}": value / seconds["1_plain"] for name, value in seconds.items()},
        **{f"cpu_cost_{name}": value / cpu_seconds["1_plain"] for name, value in cpu_seconds.items()},
    }


if __name__ == "__main__":
    main()
