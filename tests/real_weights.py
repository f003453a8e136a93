"""Two published models with their real weights: from the ONNX files of Maven artifacts to folders the engine loads."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from pipeline.records.batches import Float32

MAX_LENGTH = 512
SCRIPT = Path(__file__).parent.parent / "infra" / "weights.sh"
FETCH_S = 260


class NoWeightsError(Exception):
    """They are not here and cannot be fetched."""


@dataclass(frozen=True)
class RealModel:
    """One model, as its authors describe it."""

    hub_id: str
    """By which the catalogue knows it; the folder is named after it."""
    artifact: str
    stem: str
    """Of its files in the jar."""
    pooling: str
    prefixes: Mapping[str, str]
    """What stands in front of a text of a symmetric task (`t`), of a document (`find`) and of a query."""
    num_heads: int = 12
    """Of attention: the one size that no tensor's shape tells."""

    @property
    def jar(self) -> str:
        """Its file as Maven names it."""
        return f"langchain4j-embeddings-{self.artifact}-0.36.2.jar"


MODELS = {
    "e5": RealModel(
        "intfloat/e5-small-v2",
        "e5-small-v2",
        "e5-small-v2",
        "mean",
        {"t": "query: ", "find": "passage: ", "find:query": "query: "},
    ),
    "bge": RealModel(
        "BAAI/bge-small-en-v1.5",
        "bge-small-en-v15",
        "bge-small-en-v1.5",
        "cls",
        {"t": "", "find": "", "find:query": "Represent this sentence for searching relevant passages: "},
    ),
}


def fetch_weights() -> Path:
    """Returns the folder of the jars, downloading them the first time. Raises NoWeightsError with the reason."""
    try:
        done = subprocess.run(  # noqa: S603 - our own script
            [str(SCRIPT), "fetch"], capture_output=True, text=True, timeout=FETCH_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise NoWeightsError(f"infra/weights.sh did not end in {FETCH_S} s") from None
    if done.returncode:
        raise NoWeightsError(done.stderr.strip().splitlines()[-1])
    return Path(done.stdout.strip())


def unpack(model: RealModel, jars: Path, folder: Path) -> tuple[Path, Path]:
    """Returns a folder that the engine loads, and the ONNX file that its weights are from; both below `folder`."""
    target = folder / model.hub_id.replace("/", "--")
    target.mkdir(parents=True)
    with ZipFile(jars / model.jar) as jar:
        file = Path(jar.extract(f"{model.stem}.onnx", folder))
        (target / "tokenizer.json").write_bytes(jar.read(f"{model.stem}-tokenizer.json"))
    state = _state(onnx.load(str(file)))
    save_file(state, target / "model.safetensors", metadata={"format": "pt"})
    words, hidden = state["embeddings.word_embeddings.weight"].shape
    config = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": words,
        "hidden_size": hidden,
        "num_attention_heads": model.num_heads,
        "num_hidden_layers": sum(name.endswith("attention.self.query.weight") for name in state),
        "intermediate_size": state["encoder.layer.0.intermediate.dense.bias"].shape[0],
        "max_position_embeddings": state["embeddings.position_embeddings.weight"].shape[0],
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
    }
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return target, file


def _state(model: onnx.ModelProto) -> dict[str, Any]:
    """BERT's weights by their own names: the exporter transposes linear weights and takes their names away.

    Each is the constant of a MatMul whose node is named after the layer, as /encoder/layer.0/output/dense/MatMul.
    """
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    state = {name: value for name, value in tensors.items() if name.startswith(("embeddings.", "encoder."))}
    state.pop("embeddings.position_ids", None)
    for node in model.graph.node:
        constant = next((name for name in node.input if name in tensors), None)
        if node.op_type == "MatMul" and constant is not None:
            layer = node.name.strip("/").removesuffix("/MatMul").replace("/", ".")
            state[f"{layer}.weight"] = np.ascontiguousarray(tensors[constant].T)
    return state


class OnnxReference:
    """ONNX Runtime, text by text: no padding, no batch."""

    def __init__(self, model: RealModel, folder: Path, file: Path) -> None:
        self._pooling = model.pooling
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # several spin while they wait, which a busy machine pays for
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(MAX_LENGTH)

    def rows(self, prompts: Sequence[str]) -> Float32:
        """Returns the unit vectors of whole prompts."""
        rows = np.stack([self._row(prompt) for prompt in prompts])
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)

    def _row(self, prompt: str) -> Float32:
        ids = np.array([self._tokenizer.encode(prompt).ids], np.int64)
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        (states,) = self._session.run(None, given)
        return np.asarray(states[0, 0] if self._pooling == "cls" else states[0].mean(axis=0), np.float32)
