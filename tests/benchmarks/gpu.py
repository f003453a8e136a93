"""Tokens a second and FLOP utilisation on one GPU, with random weights: speed does not ask what they say.

Shapes: BERT-base on 50-token and ticket-length texts, a 7B Mistral, Qwen3-0.6B; each beside sentence-transformers
in bfloat16 with the best attention it finds here. Needs pipeline.engine alone: torch, transformers, tokenizers,
safetensors, numpy, pydantic, structlog, and sentence-transformers. `--dry-run` takes tiny shapes on a CPU.
"""

import argparse
import gc
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.engine.build import build_engine
from pipeline.engine.flops import forward_flops, matmul_peak
from pipeline.engine.measure import Workload, count_tokens
from pipeline.engine.tokenizer import PromptTokenizer
from pipeline.records.batches import Float32

VOCABULARY = 1_000
NUM_COMPARED = 64
TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}


@dataclass(frozen=True)
class Shape:
    """A model and the texts it gets."""

    name: str
    config_class: str
    model_class: str
    config: dict[str, Any]
    pooling: str
    lengths: tuple[int, int]
    """Shortest and longest text, in tokens; drawn evenly."""
    num_texts: int
    goals: dict[str, float]
    """What the project aims at on an H200."""


BERT = {"hidden_size": 768, "intermediate_size": 3_072, "num_hidden_layers": 12, "num_attention_heads": 12}
MISTRAL = {"hidden_size": 4_096, "intermediate_size": 14_336, "num_hidden_layers": 32, "num_attention_heads": 32,
           "num_key_value_heads": 8, "head_dim": 128, "sliding_window": None}  # fmt: skip
QWEN = {"hidden_size": 1_024, "intermediate_size": 3_072, "num_hidden_layers": 28, "num_attention_heads": 16,
        "num_key_value_heads": 8, "head_dim": 128}  # fmt: skip

SHAPES = (
    Shape("bert-base-50", "BertConfig", "BertModel", BERT, "mean", (50, 50), 65_536, {"tokens_per_s": 1_900_000}),
    Shape("bert-base-tickets", "BertConfig", "BertModel", BERT, "mean", (10, 120), 32_768, {"ratio": 8.0}),
    Shape("qwen3-0.6b", "Qwen3Config", "Qwen3Model", QWEN, "lasttoken", (40, 160), 16_384, {"tokens_per_s": 450_000}),
    Shape("mistral-7b", "MistralConfig", "MistralModel", MISTRAL, "lasttoken", (64, 512), 2_048, {"utilisation": 0.6}),
)


def main() -> int:
    """Prints one row per shape and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write one JSON object here")
    parser.add_argument("--only", nargs="*", choices=[shape.name for shape in SHAPES])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on a CPU: whether the script works")
    given = parser.parse_args()
    if not given.dry_run and not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device; --dry-run tries the script on a CPU")
    rows = []
    for shape in SHAPES:
        if given.only and shape.name not in given.only:
            continue
        with TemporaryDirectory(prefix="refract-gpu-") as folder:
            rows.append(_measure(shape, Path(folder), given.runs, dry=given.dry_run))
        print(json.dumps({key: value for key, value in rows[-1].items() if key != "engine"}), flush=True)
    if given.json is not None:
        packages = ("torch", "transformers", "tokenizers", "sentence-transformers", "numpy")
        document = {
            "versions": {name: metadata.version(name) for name in packages} | {"python": platform.python_version()},
            "machine": {"device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"},
            "settings": {"runs": given.runs, "dry_run": given.dry_run},
            "rows": rows,
        }
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


def _measure(shape: Shape, folder: Path, runs: int, *, dry: bool) -> dict[str, Any]:
    device = torch.device("cpu" if dry else "cuda")
    _write_model(shape, folder, device, dry=dry)
    texts = _texts(shape, 48 if dry else shape.num_texts)
    row, rows = _ours(shape, folder, texts, runs, device)
    gc.collect()
    if not dry:
        torch.cuda.empty_cache()
    return row | _compare(folder, texts, rows, row["docs_per_s"], device)


def _ours(
    shape: Shape, folder: Path, texts: Sequence[str], runs: int, device: torch.device
) -> tuple[dict[str, Any], Float32]:
    """Returns the figures, and the first texts' rows; nothing stays on the device."""
    overrides = {"instruction_style": "none", "bidirectional": shape.config_class == "BertConfig"}
    model = ModelConfig.model_validate(
        {"model": str(folder), "device": device.type, "dtype": "bfloat16", "overrides": overrides}
    )
    tasks = {"t": TaskConfig(model="m")}
    began_s = time.perf_counter()
    engine = build_engine(model, tasks, threads=None)
    load_s = time.perf_counter() - began_s
    tokenizer = PromptTokenizer(engine.spec, tasks)
    work = Workload(engine, tokenizer, texts, ["t"])
    seconds = _median_seconds(work.embed_all, runs, device)
    batch = tokenizer.encode(texts, ["t"])
    alone_s = _median_seconds(partial(engine.embed, batch), runs, device)
    lengths = work.lengths()
    asked, computed = count_tokens(work)
    peak = matmul_peak(device, torch.bfloat16)
    row = {
        "name": shape.name,
        "parameters_millions": sum(value.numel() for value in engine.forward.transformer.parameters()) / 1e6,
        "num_tokens": int(lengths.sum()),
        "load_s": load_s,
        "tokens_per_s": float(lengths.sum()) / seconds,
        "tokens_per_s_without_tokenising": float(lengths.sum()) / alone_s,
        "docs_per_s": len(texts) / seconds,
        "utilisation": forward_flops(engine.spec, lengths) / alone_s / peak,
        "peak_tflops": peak / 1e12,
        "padding_share": 1 - asked / computed if computed else None,
        "device_memory_mb": torch.cuda.max_memory_allocated() / (1 << 20) if device.type == "cuda" else None,
        "engine": engine.describe(),
        "goals": shape.goals,
    }
    return row, engine.embed(tokenizer.encode(texts[:NUM_COMPARED], ["t"]))[0]


def _compare(
    folder: Path, texts: Sequence[str], rows: Float32, docs_per_s: float, device: torch.device
) -> dict[str, Any]:
    """The same texts through sentence-transformers: flash attention where it is installed, SDPA elsewhere."""
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - after our own figures

    refused: list[str] = []
    for attention in ("flash_attention_2", "sdpa"):
        kwargs = {"dtype": torch.bfloat16, "attn_implementation": attention}
        try:
            rival = SentenceTransformer(str(folder), device=device.type, local_files_only=True, model_kwargs=kwargs)
            few = rival.encode(list(texts[:NUM_COMPARED]), normalize_embeddings=True, show_progress_bar=False)
        except (ImportError, ValueError, RuntimeError, OSError) as error:
            refused.append(f"{attention}: {type(error).__name__}")
            continue
        encode = partial(rival.encode, list(texts), show_progress_bar=False)
        theirs = len(texts) / _median_seconds(encode, 1, device)
        return {
            "sentence_transformers": {"attention": attention, "docs_per_s": theirs, "refused": refused},
            "ratio": docs_per_s / theirs,
            "cosine": float((few * rows).sum(axis=1).mean()),
        }
    return {"sentence_transformers": {"refused": refused}, "ratio": None}


def _median_seconds(function: Callable[[], Any], runs: int, device: torch.device) -> float:
    elapsed_s = []
    for _ in range(runs + 1):
        began_s = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        elapsed_s.append(time.perf_counter() - began_s)
    return statistics.median(elapsed_s[1:])


def _write_model(shape: Shape, folder: Path, device: torch.device, *, dry: bool) -> None:
    known = getattr(transformers, shape.config_class)().to_dict()
    tiny = {key: value for key, value in TINY.items() if key in known}
    settings = shape.config | (tiny if dry else {})
    config = getattr(transformers, shape.config_class)(vocab_size=VOCABULARY, pad_token_id=0, **settings)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            getattr(transformers, shape.model_class)(config).save_pretrained(folder)
    finally:
        torch.set_default_dtype(default)
    _tokenizer().save(str(folder / "tokenizer.json"))
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "1_Pooling").mkdir()
    files = {
        "modules.json": modules,
        "1_Pooling/config.json": {"embedding_dimension": settings["hidden_size"], "pooling_mode": shape.pooling},
        "sentence_bert_config.json": {"max_seq_length": 512, "do_lower_case": False},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": "[PAD]",
            "eos_token": "[SEP]",
            "model_max_length": 512,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")


def _tokenizer() -> Tokenizer:
    """One token a word, so that lengths are what the shape says; [CLS] and [SEP] around, as both families have ends."""
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3} | {f"w{i}": i for i in range(4, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106 - a token of the vocabulary
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def _texts(shape: Shape, count: int) -> list[str]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(shape.lengths[0], shape.lengths[1] + 1, count) - 2
    return [" ".join(f"w{i}" for i in rng.integers(4, VOCABULARY, length)) for length in lengths]


if __name__ == "__main__":
    raise SystemExit(main())
