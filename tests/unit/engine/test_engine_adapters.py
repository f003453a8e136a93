"""LoRA adapters: one is merged, several are chosen by a task's instruction."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.engine import files
from pipeline.engine.entry import check_tasks, identify, load_engine, load_tokenizer
from pipeline.errors import ConfigError
from pipeline.records.batches import Float32
from tests.unit.engine.reference import reference_rows
from tests.unit.engine.tiny_models import NASTY_TEXTS, build

peft = pytest.importorskip("peft", reason="adapters need the package peft")

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft 0.21 asks for it

TEXTS = NASTY_TEXTS[:8]
PLAIN = {"instruction_style": "none"}


def write_adapter(base: Path, folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    model = transformers.AutoModel.from_pretrained(str(base))
    settings: Any = peft.LoraConfig(r=4, lora_alpha=16, target_modules=["query", "value"], init_lora_weights=False)
    peft.get_peft_model(model, settings).save_pretrained(str(folder))
    return folder


def reference(base: Path, adapter: Path, merged: Path) -> Float32:
    """The adapter merged by peft itself, encoded by sentence-transformers."""
    build("bert-max", merged)
    model = transformers.AutoModel.from_pretrained(str(base))
    peft.PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().save_pretrained(str(merged))
    return reference_rows("bert-max", merged, TEXTS)


def ours(model: ModelConfig, tasks: dict[str, TaskConfig]) -> list[Float32]:
    check_tasks("m", model, tasks)
    return load_engine(model, tasks).embed(load_tokenizer(model, tasks).encode(TEXTS, list(tasks)))


def test_one_adapter_is_merged_into_the_weights(tmp_path: Path) -> None:
    base = build("bert-max", tmp_path / "base")
    adapter = write_adapter(base, tmp_path / "adapter", 1)
    model = ModelConfig(model=str(base), adapter=str(adapter), overrides=PLAIN, device="cpu", dtype="float32")
    (rows,) = ours(model, {"t": TaskConfig(model="m")})
    assert np.abs(rows - reference(base, adapter, tmp_path / "merged")).max() <= 1e-5
    assert identify(model).parts["adapter"] != ""
    assert "adapter" not in identify(model.model_copy(update={"adapter": None})).parts


def test_tasks_choose_among_adapters_by_name_in_one_batch(tmp_path: Path) -> None:
    base = build("bert-max", tmp_path / "base")
    for seed, name in enumerate(("urgency", "topic")):
        write_adapter(base, tmp_path / "adapters" / name, seed)
    model = ModelConfig(
        model=str(base), adapter=str(tmp_path / "adapters"), overrides=PLAIN, device="cpu", dtype="float32"
    )
    tasks = {f"by_{name}": TaskConfig(instruction=name, model="m") for name in ("urgency", "topic")}
    rows = dict(zip(tasks, ours(model, tasks), strict=True))
    for name in ("urgency", "topic"):
        expected = reference(base, tmp_path / "adapters" / name, tmp_path / f"merged-{name}")
        assert np.abs(rows[f"by_{name}"] - expected).max() <= 1e-5


def test_an_unknown_adapter_is_named_with_the_nearest(tmp_path: Path) -> None:
    base = build("bert-max", tmp_path / "base")
    write_adapter(base, tmp_path / "adapters" / "urgency", 1)
    model = ModelConfig(model=str(base), adapter=str(tmp_path / "adapters"), overrides=PLAIN)
    with pytest.raises(ConfigError, match=r"knows only its own adapters: urgency\. Did you mean 'urgency'"):
        check_tasks("m", model, {"t": TaskConfig(instruction="urgenc", model="m")})


def test_a_folder_that_is_no_adapter_is_refused(tmp_path: Path) -> None:
    base = build("bert-max", tmp_path / "base")
    with pytest.raises(ConfigError, match=r"has no adapter_config\.json"):
        check_tasks("m", ModelConfig(model=str(base), adapter=str(base), overrides=PLAIN), {})


def test_a_packaged_adapter_is_known_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = build("bert-max", tmp_path / "base")
    folder = write_adapter(base, tmp_path / "adapter", 1)
    monkeypatch.setattr(files, "PACKAGED_ADAPTERS", {"packaged:tiny": folder})
    named, placed = (
        identify(ModelConfig(model=str(base), adapter=adapter, overrides=PLAIN)).parts["adapter"]
        for adapter in ("packaged:tiny", str(folder))
    )
    assert named == placed
    with pytest.raises(ConfigError, match=r"not packaged\. Did you mean 'packaged:tiny'"):
        identify(ModelConfig(model=str(base), adapter="packaged:tine", overrides=PLAIN))


def test_an_adapter_that_is_half_written_is_refused(tmp_path: Path) -> None:
    base = build("bert-max", tmp_path / "base")
    folder = write_adapter(base, tmp_path / "adapter", 1)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"has no adapter_model\.safetensors"):
        check_tasks("m", ModelConfig(model=str(base), adapter=str(folder), overrides=PLAIN), {})
