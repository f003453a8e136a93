"""What sentence-transformers makes of a tiny model: the reference our vectors are compared with."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize

from pipeline.records.batches import Float32
from tests.unit.engine.tiny_models import FAMILIES


def reference_rows(family: str, folder: Path, texts: Sequence[str], head: Path | None = None) -> Float32:
    """Encodes prompt + text as sentence-transformers does, cutting at the same length.

    A head is a Dense module behind the others.
    """
    tiny = FAMILIES[family]
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32}, local_files_only=True)
    if head is not None:
        model = SentenceTransformer(modules=[*model, Normalize(), Dense.load(str(head))], device="cpu")
    if family == "t5-instructor":
        texts = [text.strip() for text in texts]
    if tiny.tail:
        rows = model.encode([tiny.head + text + tiny.tail for text in texts], normalize_embeddings=True)
    else:
        rows = model.encode(list(texts), prompt=tiny.head or None, normalize_embeddings=True, batch_size=4)
    return np.asarray(rows, np.float32)
