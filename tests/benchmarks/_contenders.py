"""What the engine's benchmark compares: each one a process of its own, which imports nothing of the others.

A contender turns whole prompts into unit rows, tokenising included, at its best documented setting.
"""

import os
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from pipeline.records.batches import Float32

BATCH_SIZE = 32
MODEL = "packaged:all-MiniLM-L6-v2"
MAX_LENGTH = 256
OVERRIDES = {
    "instruction_style": "free_form",
    "query_template": "{instruction}: {text}",
    "document_template": "{instruction}: {text}",
}
Encode = Callable[[], Float32]


@dataclass(frozen=True, slots=True)
class Work:
    """What every contender gets."""

    texts: Sequence[str]
    instructions: Sequence[str]
    folder: Path
    """The model, as sentence-transformers reads it."""
    exports: Path
    """Holds plain.onnx, model.onnx (fused) and int8.onnx."""
    threads: int

    @property
    def prompts(self) -> list[str]:
        """Every text under the first task, then under the next."""
        return [f"{instruction}: {text}" for instruction in self.instructions for text in self.texts]


def serve(connection: Connection, name: str, precision: str, work: Work) -> None:
    """The process of a contender: answers `run` with seconds, and `rows` with its rows and peak memory in MB."""
    os.environ.update(OMP_NUM_THREADS=str(work.threads), TOKENIZERS_PARALLELISM="true", HF_HUB_OFFLINE="1")
    encode = CONTENDERS[name, precision](precision, work)
    rows = encode()
    connection.send(metadata.version(PACKAGES[name]))
    while (order := connection.recv()) == "run":
        began_s = time.perf_counter()
        rows = encode()
        connection.send(time.perf_counter() - began_s)
    assert order == "rows"
    connection.send((rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def _refract(precision: str, work: Work) -> Encode:
    from pipeline.config.model import ModelConfig, TaskConfig  # noqa: PLC0415 - its own process
    from pipeline.engine.engine import MERGED_ITEMS  # noqa: PLC0415 - as above
    from pipeline.engine.entry import load_engine, load_tokenizer  # noqa: PLC0415 - as above

    model = ModelConfig.model_validate({"model": MODEL, "dtype": precision, "device": "cpu", "overrides": OVERRIDES})
    tasks = {str(i): TaskConfig(model="m", instruction=text) for i, text in enumerate(work.instructions)}
    engine, tokenizer = load_engine(model, tasks, threads=work.threads), load_tokenizer(model, tasks)
    size = MERGED_ITEMS // len(tasks)
    chunks = [work.texts[start : start + size] for start in range(0, len(work.texts), size)]

    def encode() -> Float32:
        parts = [engine.embed(tokenizer.encode(chunk, list(tasks))) for chunk in chunks]
        return np.concatenate([part[row] for row in range(len(tasks)) for part in parts])

    return encode


def _refract_compiled(precision: str, work: Work) -> Encode:
    """The same engine, and what stands between two attentions in a graph of inductor's with frozen weights."""
    import torch  # noqa: PLC0415 - its own process
    from torch._inductor import config as inductor  # noqa: PLC0415 - as above

    inductor.freezing = True
    inductor.cpp.threads = 1  # batches run beside each other, a thread each

    def compile_layers(model: Any) -> None:
        for layer in model.encoder.layer:
            layer.attention.output.compile(dynamic=True)
            layer.feed_forward_chunk = torch.compile(layer.feed_forward_chunk, dynamic=True)

    with patch("pipeline.engine.build.pack", compile_layers):
        return _refract(precision, work)


def _sentence_transformers(precision: str, work: Work) -> Encode:
    import torch  # noqa: PLC0415 - its own process
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - as above

    torch.set_num_threads(work.threads)
    model = SentenceTransformer(
        str(work.folder), device="cpu", local_files_only=True, model_kwargs={"dtype": getattr(torch, precision)}
    )
    prompts = work.prompts

    def encode() -> Float32:
        rows = model.encode(prompts, batch_size=BATCH_SIZE, show_progress_bar=False, normalize_embeddings=True)
        return np.asarray(rows, np.float32)

    return encode


class _Padded:
    """Batches of like length, padded, as sentence-transformers makes them, for engines that take arrays."""

    def __init__(self, work: Work) -> None:
        from tokenizers import Tokenizer  # noqa: PLC0415 - its own process

        self._tokenizer = Tokenizer.from_file(str(work.folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(MAX_LENGTH)
        self._tokenizer.no_padding()
        self._prompts = work.prompts

    def encode(self, run: Callable[[list[dict[str, Any]]], list[Float32]]) -> Float32:
        """Returns unit rows, the mean over each prompt's tokens; `run` takes all batches and returns their states."""
        encodings = self._tokenizer.encode_batch_fast(self._prompts)
        order = np.argsort([-len(encoding.ids) for encoding in encodings], kind="stable")
        groups = [order[start : start + BATCH_SIZE] for start in range(0, len(order), BATCH_SIZE)]
        batches = [self._batch([encodings[i].ids for i in group]) for group in groups]
        rows = np.empty((len(order), 0), np.float32)
        for group, batch, states in zip(groups, batches, run(batches), strict=True):
            mask = batch["attention_mask"][:, :, None].astype(np.float32)
            means = (states * mask).sum(axis=1) / mask.sum(axis=1)
            if not rows.size:
                rows = np.empty((len(order), means.shape[1]), np.float32)
            rows[group] = means / np.linalg.norm(means, axis=1, keepdims=True)
        return rows

    @staticmethod
    def _batch(ids: list[list[int]]) -> dict[str, Any]:
        longest = max(map(len, ids))
        padded, mask = np.zeros((len(ids), longest), np.int64), np.zeros((len(ids), longest), np.int64)
        for row, values in enumerate(ids):
            padded[row, : len(values)], mask[row, : len(values)] = values, 1
        return {"input_ids": padded, "attention_mask": mask}


def _onnxruntime(precision: str, work: Work) -> Encode:
    import onnxruntime  # noqa: PLC0415 - its own process

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = work.threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    file = work.exports / ("int8.onnx" if precision == "int8" else "model.onnx")
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    padded = _Padded(work)
    return lambda: padded.encode(lambda batches: [session.run(None, batch)[0] for batch in batches])


def _openvino(precision: str, work: Work) -> Encode:
    """Throughput mode: as many streams as it finds best for so many threads, and asynchronous requests."""
    import openvino  # noqa: PLC0415 - its own process

    core = openvino.Core()
    settings = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_NUM_THREADS": work.threads,
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
    }
    compiled = core.compile_model(core.read_model(str(work.exports / "plain.onnx")), "CPU", settings)
    padded = _Padded(work)

    def run(batches: list[dict[str, Any]]) -> list[Float32]:
        found: list[Float32] = [np.empty(0, np.float32)] * len(batches)
        queue = openvino.AsyncInferQueue(compiled)
        queue.set_callback(lambda request, i: found.__setitem__(i, request.get_output_tensor(0).data.copy()))
        for number, batch in enumerate(batches):
            queue.start_async(batch, number)
        queue.wait_all()
        return found

    return lambda: padded.encode(run)


def export(work: Work) -> None:
    """Writes plain.onnx; model.onnx, fused as ONNX Runtime knows how; int8.onnx from it, activations dynamic."""
    import torch  # noqa: PLC0415 - its own process
    import transformers  # noqa: PLC0415 - as above
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415 - as above
    from onnxruntime.transformers.optimizer import optimize_model  # noqa: PLC0415 - as above

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call] # transformers leaves it bare
    bert: Any = transformers.AutoModel.from_pretrained(str(work.folder), add_pooling_layer=False).eval()
    ids, mask = torch.ones((2, 8), dtype=torch.int64), torch.ones((2, 8), dtype=torch.int64)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    plain = work.exports / "plain.onnx"

    class States(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            states: torch.Tensor = bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            return states

        def __init__(self) -> None:
            super().__init__()
            self.bert = bert

    torch.onnx.export(
        States().eval(), (ids, mask), str(plain), input_names=["input_ids", "attention_mask"], output_names=["states"],
        dynamic_shapes=(axes, axes), verbose=False,
    )  # fmt: skip
    config = bert.config
    fused = optimize_model(
        str(plain), "bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size, opt_level=1
    )
    print("fused:", {name: count for name, count in fused.get_fused_operator_statistics().items() if count})
    fused.save_model_to_file(str(work.exports / "model.onnx"))
    quantize_dynamic(work.exports / "model.onnx", work.exports / "int8.onnx", weight_type=QuantType.QInt8)


PACKAGES = {
    "sentence-transformers": "sentence-transformers",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "refract": "torch",
    "refract, compiled": "torch",
}
"""Whose version a row shows; ours is torch's."""

CONTENDERS: dict[tuple[str, str], Callable[[str, Work], Encode]] = {
    ("sentence-transformers", "float32"): _sentence_transformers,
    ("sentence-transformers", "bfloat16"): _sentence_transformers,
    ("onnxruntime", "float32"): _onnxruntime,
    ("onnxruntime", "int8"): _onnxruntime,
    ("openvino", "float32"): _openvino,
    ("openvino", "bfloat16"): _openvino,
    ("refract", "float32"): _refract,
    ("refract", "bfloat16"): _refract,
    ("refract", "int8"): _refract,
    ("refract, compiled", "bfloat16"): _refract_compiled,
}
"""(name, precision) -> what makes its `Encode`."""
