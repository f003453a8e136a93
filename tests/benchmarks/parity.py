"""Our vectors beside sentence-transformers' own, one row per architecture and precision.

Tiny random-weight models of every family on texts that hurt, each without and with a head behind it, and the packaged
MiniLM on real tickets. E5-small-v2 and BGE-small-en-v1.5 stand beside ONNX Runtime; infra/weights.sh fetches them.
The reference always runs in float32; the figures are the smallest cosine and the largest error over the texts.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from sentence_transformers import SentenceTransformer

from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.engine.entry import identify, load_engine, load_tokenizer
from pipeline.engine.spec import resolve
from pipeline.records.batches import Float32
from tests.benchmarks._harness import tickets
from tests.real_weights import MODELS, NoWeightsError, OnnxReference, fetch_weights, unpack
from tests.unit.engine.reference import reference_rows
from tests.unit.engine.tiny_models import FAMILIES, NASTY_TEXTS, build, build_head, instruction_of

NUM_TICKETS = 1_000
HEAD_WIDTH = 12
MIN_COSINE = {"float32": 0.99999, "bfloat16": 0.999}
MAX_ERROR = {"float32": 1e-5, "bfloat16": None}


def main() -> int:
    """Prints the table, writes the JSON, and returns 1 when a row failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write one JSON object here")
    parser.add_argument("--tickets", type=int, default=NUM_TICKETS, help="real tickets for MiniLM; 0 leaves it out")
    given = parser.parse_args()
    rows = [*_tiny_rows(), *_real_rows(), *(_minilm_rows(given.tickets) if given.tickets else ())]
    _print(rows)
    if given.json is not None:
        packages = ("torch", "transformers", "tokenizers", "sentence-transformers", "numpy")
        document = {
            "versions": {name: importlib.metadata.version(name) for name in packages},
            "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
            "settings": {"num_nasty_texts": len(NASTY_TEXTS), "num_tickets": given.tickets},
            "rows": rows,
        }
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0 if all(row["passed"] for row in rows) else 1


def _tiny_rows() -> Iterator[dict[str, Any]]:
    with TemporaryDirectory(prefix="refract-parity-") as root:
        for family, tiny in FAMILIES.items():
            folder = build(family, Path(root) / family)
            texts = [text for text in NASTY_TEXTS if not tiny.tail or len(text) < tiny.max_length]
            model = ModelConfig(model=str(folder), device="cpu", overrides=dict(tiny.overrides))
            width = identify(model).dimension
            for head in (None, build_head(Path(root) / f"{family}-head", width, HEAD_WIDTH, bias=True)):
                expected = reference_rows(family, folder, texts, head)
                task = TaskConfig(instruction=instruction_of(family), model="m", head=head)
                name = family if head is None else f"{family}, head"
                for precision in MIN_COSINE:
                    exact = model.model_copy(update={"dtype": precision})
                    yield _row(name, "+".join(tiny.pooling), precision, _ours(exact, task, texts), expected)


def _real_rows() -> Iterator[dict[str, Any]]:
    try:
        jars = fetch_weights()
    except NoWeightsError as error:
        print(f"real weights are left out: {error}", file=sys.stderr)
        return
    for real in MODELS.values():
        with TemporaryDirectory(prefix="refract-parity-") as root:
            folder, file = unpack(real, jars, Path(root))
            expected = OnnxReference(real, folder, file).rows([real.prefixes["t"] + text for text in NASTY_TEXTS])
            for precision in MIN_COSINE:
                model = ModelConfig.model_validate({"model": str(folder), "dtype": precision, "device": "cpu"})
                rows = _ours(model, TaskConfig(model="m"), NASTY_TEXTS)
                yield _row(f"{real.hub_id}, real weights", real.pooling, precision, rows, expected)


def _minilm_rows(num_tickets: int) -> Iterator[dict[str, Any]]:
    texts = tickets(num_tickets)
    base = ModelConfig(model="packaged:all-MiniLM-L6-v2", device="cpu")
    reference = SentenceTransformer(str(resolve(base).files.folder), device="cpu", local_files_only=True)
    expected = np.asarray(reference.encode(texts, normalize_embeddings=True), np.float32)
    for precision in MIN_COSINE:
        model = base.model_copy(update={"dtype": precision})
        name = f"all-MiniLM-L6-v2, {len(texts)} tickets"
        yield _row(name, "mean", precision, _ours(model, TaskConfig(model="m"), texts), expected)


def _ours(model: ModelConfig, task: TaskConfig, texts: Sequence[str]) -> Float32:
    engine = load_engine(model, {"t": task})
    return engine.embed(load_tokenizer(model, {"t": task}).encode(texts, ["t"]))[0]


def _row(architecture: str, pooling: str, precision: str, rows: Float32, expected: Float32) -> dict[str, Any]:
    cosine = float((rows.astype(np.float64) * expected).sum(axis=1).min())
    error = float(np.abs(rows - expected).max())
    limit = MAX_ERROR[precision]
    passed = cosine >= MIN_COSINE[precision] and (limit is None or error <= limit)
    return {
        "architecture": architecture,
        "pooling": pooling,
        "precision": precision,
        "cosine": cosine,
        "max_abs_error": error,
        "passed": passed,
    }


def _print(rows: Sequence[dict[str, Any]]) -> None:
    table = Table("architecture", "pooling", "precision", "cosine (min)", "max abs error", "passed")
    for row in rows:
        table.add_row(
            row["architecture"],
            row["pooling"],
            row["precision"],
            f"{row['cosine']:.7f}",
            f"{row['max_abs_error']:.1e}",
            "yes" if row["passed"] else "NO",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    raise SystemExit(main())
