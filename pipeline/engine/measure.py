"""What one model does with given texts on this machine: rates, padding, utilisation, memory, and a comparison."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.engine.build import build_engine
from pipeline.engine.engine import MERGED_ITEMS
from pipeline.engine.flops import forward_flops, matmul_peak
from pipeline.engine.reference import ReferenceRun, Setting, compare, peak_memory_mb
from pipeline.engine.spec import resolve
from pipeline.engine.tokenizer import PromptTokenizer
from pipeline.engine.transformer import TransformerEngine
from pipeline.records.batches import Int64, TokenBatch

Step = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A loaded model and the texts and prompts it is measured with."""

    engine: TransformerEngine
    tokenizer: PromptTokenizer
    texts: Sequence[str]
    prompts: Sequence[str]

    def embed_all(self, done: Callable[[int, int], None] = lambda _, __: None) -> None:
        """Tokenises and embeds all texts under all prompts, in jobs as large as the scheduler's.

        `done` is called with the texts done and their number.
        """
        size = max(MERGED_ITEMS // len({self.engine.pass_of(prompt) for prompt in self.prompts}), 1)
        for start in range(0, len(self.texts), size):
            self.engine.embed(self.tokenizer.encode(self.texts[start : start + size], self.prompts))
            done(min(start + size, len(self.texts)), len(self.texts))

    def lengths(self) -> Int64:
        """Returns the tokens of every whole prompt."""
        return prompt_lengths(self.engine, self.tokenizer.encode(self.texts, self.prompts))


@dataclass(frozen=True, slots=True)
class Measured:
    """What `refract bench` reports. Rates are medians over the runs and include tokenising."""

    model: str
    device: str
    dtype: str
    threads: int
    num_texts: int
    num_tasks: int
    num_tokens: int
    """Of all prompts, instructions included."""
    documents_per_s: float
    """A document is one text under all tasks."""
    tokens_per_s: float
    """Of whole prompts: what an instruction's reuse saves counts as done."""
    padding_share: float | None
    """Padding among the computed tokens; None where the engine's forward pass cannot be counted."""
    computed_share: float | None
    """Tokens of the prompts that were computed, the rest being instructions computed once, and equal prompts of
    several tasks."""
    flop_utilisation: float
    """Operations of the computed tokens a second, over what a large matrix product reaches here (int8: in auto's
    precision)."""
    peak_tflops: float
    memory_mb: float
    """Peak of this process."""
    device_memory_mb: float | None
    ratio: float | None
    """Documents a second over those of sentence-transformers in float32."""
    comparison: ReferenceRun
    engine: Mapping[str, Any]


def measure(
    model: ModelConfig,
    tasks: Mapping[str, TaskConfig],
    texts: Sequence[str],
    runs: int,
    step: Step,
) -> Measured:
    """Loads the model and measures it, with as many threads as it is configured for, or else torch's.

    Raises as `pipeline.engine.entry.load_engine`.
    """
    step("loading the model", 0, 0)
    engine = build_engine(model, tasks, threads=model.threads)
    spec, device = resolve(model, weights=True), engine.forward.device
    tokenizer, names = PromptTokenizer(spec, tasks), list(tasks)
    work = Workload(engine, tokenizer, texts, names)
    median_s = _median_seconds(work, runs, step)
    memory_mb, device_memory_mb = peak_memory_mb(), _device_memory_mb(device)
    lengths = work.lengths()
    asked, computed = count_tokens(work)
    computed_share = asked / int(lengths.sum()) if asked else None
    facts = engine.describe()
    step("measuring a matrix product", 0, 0)
    peak = matmul_peak(device, engine.forward.dtype)
    step("running sentence-transformers", 0, 0)
    prompts = [tokenizer.show(name, text)[0] for name in names for text in texts]
    setting = Setting(device.type, torch.get_num_threads(), runs)
    comparison = compare(str(spec.files.folder), prompts, len(texts), setting)
    documents_per_s = len(texts) / median_s
    return Measured(
        model=model.model,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        dtype=facts["dtype"],
        threads=torch.get_num_threads(),
        num_texts=len(texts),
        num_tasks=len(tasks),
        num_tokens=int(lengths.sum()),
        documents_per_s=documents_per_s,
        tokens_per_s=float(lengths.sum()) / median_s,
        padding_share=1 - asked / computed if computed >= asked > 0 else None,
        computed_share=computed_share,
        flop_utilisation=forward_flops(spec, lengths) * (computed_share or 1.0) / median_s / peak,
        peak_tflops=peak / 1e12,
        memory_mb=memory_mb,
        device_memory_mb=device_memory_mb,
        ratio=documents_per_s / comparison.documents_per_s if comparison.documents_per_s else None,
        comparison=comparison,
        engine=facts,
    )


def _median_seconds(work: Workload, runs: int, step: Step) -> float:
    """Returns the median seconds of one pass, after one to warm up."""
    elapsed_s = []
    for run in range(runs + 1):
        doing = f"run {run} of {runs}" if run else "warming up"
        began_s = time.perf_counter()
        work.embed_all(partial(step, doing))
        elapsed_s.append(time.perf_counter() - began_s)
    return statistics.median(elapsed_s[1:])


def prompt_lengths(engine: TransformerEngine, batch: TokenBatch) -> Int64:
    """Returns the tokens of every whole prompt of a batch."""
    lengths = []
    for name, segments in zip(batch.prompts, batch.segments, strict=True):
        plan = engine.prompts[name]
        kept = np.minimum(batch.offsets[segments + 1] - batch.offsets[segments], plan.room)
        lengths.append(kept + len(plan.prefix) + len(plan.suffix))
    return np.concatenate(lengths).astype(np.int64)


def count_tokens(work: Workload) -> tuple[int, int]:
    """Returns the tokens that packs asked for in one pass, and those that went through the embedding layer.

    The second is zero where a compiled graph does not call the layer.
    """
    asked: list[int] = []
    computed: list[int] = []
    forward = work.engine.forward
    run = forward.run

    def counted(pack: Any, adapter: str | None) -> Any:
        asked.append(pack.num_tokens)
        return run(pack, adapter)

    with _seen_ids(forward.transformer, computed):
        forward.run = counted  # type: ignore[method-assign] # for this one pass
        try:
            work.embed_all()
        finally:
            del forward.run  # back to the class's
    return sum(asked), sum(computed)


@contextmanager
def _seen_ids(transformer: Any, counts: list[int]) -> Iterator[None]:
    def seen(_: object, inputs: tuple[Any, ...]) -> None:
        counts.append(int(inputs[0].numel()))

    hook = transformer.get_input_embeddings().register_forward_pre_hook(seen)
    try:
        yield
    finally:
        hook.remove()


def _device_memory_mb(device: torch.device) -> float | None:
    return torch.cuda.max_memory_allocated(device) / (1 << 20) if device.type == "cuda" else None
