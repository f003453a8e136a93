"""The packaged MiniLM on real tickets equals sentence-transformers."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.engine.entry import load_engine, load_tokenizer
from pipeline.engine.spec import resolve

NUM_TICKETS = 1_000
MAX_CHARS = 150
"""Short enough for a unit test; tests.benchmarks.parity takes them whole."""


def tickets() -> list[str]:
    path = Path(os.environ.get("REFRACT_TICKETS", "../shared/data/tickets.csv"))
    if not path.is_file():
        pytest.skip(f"{path} is not there; set REFRACT_TICKETS to a CSV with the columns title and body")
    with path.open(encoding="utf-8", newline="") as stream:
        rows = [f"{row['title']} {row['body']}" for row in csv.DictReader(stream)]
    return [text[:MAX_CHARS] for text in rows[:: max(len(rows) // NUM_TICKETS, 1)][:NUM_TICKETS]]


def test_vectors_of_real_tickets_equal_the_references() -> None:
    texts = tickets()
    model = ModelConfig(model="packaged:all-MiniLM-L6-v2", device="cpu", dtype="float32", max_batch_tokens=2_048)
    tasks = {"plain": TaskConfig(model="m")}
    (rows,) = load_engine(model, tasks).embed(load_tokenizer(model, tasks).encode(texts, ["plain"]))
    folder = str(resolve(model).files.folder)
    reference = SentenceTransformer(folder, device="cpu", local_files_only=True)
    expected = np.asarray(reference.encode(texts, normalize_embeddings=True), np.float32)
    assert len(rows) == len(texts) == NUM_TICKETS
    assert (rows * expected).sum(axis=1).min() >= 0.99999
    assert np.abs(rows - expected).max() <= 1e-5
