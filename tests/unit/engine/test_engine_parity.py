"""Our vectors are sentence-transformers' vectors, family by family, on texts that hurt."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.binding import bind_task
from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.engine.entry import check_tasks, identify, load_engine, load_tokenizer
from pipeline.records.batches import Float32
from tests.unit.engine.reference import reference_rows
from tests.unit.engine.tiny_models import FAMILIES, NASTY_TEXTS, build, build_head, instruction_of


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def ours(family: str, folder: Path, texts: list[str], dtype: str, head: Path | None = None) -> Float32:
    overrides = dict(FAMILIES[family].overrides)
    model = ModelConfig.model_validate({"model": str(folder), "dtype": dtype, "overrides": overrides, "device": "cpu"})
    tasks = {"urgency": TaskConfig(instruction=instruction_of(family), model="m", head=head)}
    check_tasks("m", model, tasks)
    engine = load_engine(model, tasks)
    (rows,) = engine.embed(load_tokenizer(model, tasks).encode(texts, ["urgency"]))
    identity = identify(model, tasks)
    assert engine.dimension == identity.dimension
    assert bind_task("urgency", tasks["urgency"], identity).dimension == rows.shape[1]
    return rows


def texts_for(family: str) -> list[str]:
    """A suffix is never cut by us and always by the reference, so long texts prove nothing there."""
    return [text for text in NASTY_TEXTS if not FAMILIES[family].tail or len(text) < 100]


@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_equal_the_references(family: str, models: Path) -> None:
    folder = build(family, models / family)
    texts = texts_for(family)
    expected = reference_rows(family, folder, texts)
    rows = ours(family, folder, texts, "float32")
    error = np.abs(rows - expected).max(axis=1)
    assert error.max() <= 1e-5, [text[:20] for text, e in zip(texts, error, strict=True) if not e <= 1e-5]
    half = ours(family, folder, texts, "bfloat16")
    assert (half * expected).sum(axis=1).min() >= 0.999
    assert np.std(expected @ expected[0]) > 0.01, "the reference tells texts apart"


@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_behind_a_head_equal_the_references_dense(family: str, models: Path) -> None:
    folder, texts = build(family, models / family), texts_for(family)
    model = ModelConfig(model=str(folder), overrides=dict(FAMILIES[family].overrides))
    head = build_head(models / f"{family}-head", identify(model).dimension, 12, bias=True)
    expected = reference_rows(family, folder, texts, head)
    rows = ours(family, folder, texts, "float32", head)
    assert rows.shape == (len(texts), 12)
    assert (rows * expected).sum(axis=1).min() >= 0.99999
    assert np.abs(rows - expected).max() <= 1e-5
    half = ours(family, folder, texts, "bfloat16", head)
    assert (half * expected).sum(axis=1).min() >= 0.999
