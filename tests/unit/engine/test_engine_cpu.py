"""What a CPU gets of its own: batches beside each other, GELU in the linear layer, and 8 bits."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.activations import GELUActivation

from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.engine import attention, cpu_kernels, weights
from pipeline.engine.batching import flat_packs
from pipeline.engine.budget import TokenBudget
from pipeline.engine.cpu_kernels import Int8Linear, PackedLinear, cpu_computes_in_int8, pack, packs_bfloat16, quantise
from pipeline.engine.entry import check_tasks, identify
from pipeline.engine.layout import Pack
from pipeline.engine.parallel import Streams
from pipeline.engine.spec import resolve
from pipeline.errors import ConfigError
from tests.unit.engine.test_engine_transformer import TEXTS, loaded
from tests.unit.engine.tiny_models import FAMILIES, build, instruction_of

needs_int8 = pytest.mark.skipif(not cpu_computes_in_int8(), reason="this processor has no 8-bit instructions")
needs_packing = pytest.mark.skipif(not packs_bfloat16(), reason="oneDNN packs no bfloat16 on this processor")


class Intermediate(nn.Module):
    """As in BERT: what `pack` looks for."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(24, 40)
        self.intermediate_act_fn: nn.Module = GELUActivation()

    def forward(self, states: Tensor) -> Tensor:
        result: Tensor = self.intermediate_act_fn(self.dense(states))
        return result


@pytest.mark.parametrize("family", ["bert-bge", "qwen3", "t5-instructor"])
def test_vectors_of_batches_beside_each_other_are_those_of_batches_in_turn(family: str, tmp_path: Path) -> None:
    tasks = {"t": TaskConfig(instruction=instruction_of(family), model="m")}
    engine, tokenizer = loaded(family, tmp_path, tasks, threads=2, max_batch_tokens=128)
    assert engine.describe()["streams"] == 2
    batch = tokenizer.encode(TEXTS, ["t"])
    together = engine.embed(batch)[0]
    engine.streams = Streams(1)
    assert np.abs(together - engine.embed(batch)[0]).max() <= 2e-6


def test_two_batches_are_computed_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits for the other: in turn, neither would end."""
    engine, tokenizer = loaded("bert-bge", tmp_path, {"t": TaskConfig(model="m")}, threads=2)
    run, both = engine.forward.run, threading.Barrier(2, timeout=30)

    def meeting(pack: Pack, adapter: str | None) -> Tensor:
        both.wait()
        return run(pack, adapter)

    monkeypatch.setattr(engine.forward, "run", meeting)
    (rows,) = engine.embed(tokenizer.encode([f"ticket number {number} here" for number in range(40)], ["t"]))
    assert np.isfinite(rows).all()


def test_memory_that_runs_out_in_one_of_two_batches_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, tokenizer = loaded("bert-bge", tmp_path, {"t": TaskConfig(model="m")}, threads=2)
    batch = tokenizer.encode(TEXTS * 4, ["t"])
    expected = engine.embed(batch)[0]
    run, turn, lock = engine.forward.run, [0], threading.Lock()

    def sometimes(pack: Pack, adapter: str | None) -> Tensor:
        with lock:
            turn[0] += 1
            fails = turn[0] in {1, 4}
        if fails:
            raise torch.OutOfMemoryError("injected")
        return run(pack, adapter)

    monkeypatch.setattr(engine.forward, "run", sometimes)
    engine.budget = TokenBudget(512)
    with structlog.testing.capture_logs() as logs:
        rows = engine.embed(batch)[0]
    assert len(logs) == engine.budget.num_failures == 2
    assert engine.max_batch_tokens < 512
    assert np.abs(rows - expected).max() <= 2e-6


def test_streams_compute_with_one_thread_and_a_lone_batch_with_all() -> None:
    before = torch.get_num_threads()
    try:
        streams = Streams(2)
        assert torch.get_num_threads() == 2
        assert streams.run([torch.get_num_threads] * 2) == [1, 1]
        assert streams.run([torch.get_num_threads]) == [2]
    finally:
        torch.set_num_threads(before)


def test_a_fault_in_a_stream_is_a_result() -> None:
    before = torch.get_num_threads()
    try:
        fine, broken = Streams(2).run([lambda: 1, lambda: 1 // 0])
    finally:
        torch.set_num_threads(before)
    assert fine == 1
    assert isinstance(broken, ZeroDivisionError)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=200), st.integers(1, 4), st.integers(200, 2_000))
def test_a_job_comes_out_in_as_many_batches_as_fill_the_streams(lengths: list[int], count: int, budget: int) -> None:
    streams = Streams(1)
    streams.count = count
    share = streams.share(sum(lengths), max(lengths), budget)
    packs = flat_packs(np.array(lengths), share)
    assert share <= budget
    if sum(lengths) <= count * (budget - max(lengths)):
        assert len(packs) <= count


def test_a_small_job_is_cut_for_the_streams_and_a_tiny_one_is_not() -> None:
    streams = Streams(1)
    streams.count = 2
    assert streams.share(1_000, 20, 2_048) == 520
    assert streams.share(100, 20, 2_048) == 128
    assert streams.share(100_000, 20, 2_048) == 2_020
    assert streams.share(100, 20, 64) == 64


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=needs_packing)])
def test_gelu_in_the_linear_layer_is_gelu_after_it(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    model, states = nn.Sequential(Intermediate()).to(dtype), torch.randn(1, 7, 24, dtype=dtype)
    with torch.inference_mode():
        expected = model(states)
        pack(model)
        assert isinstance(model[0].dense, PackedLinear)
        torch.testing.assert_close(model(states), expected)


@needs_packing
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_layer_is_the_layer_in_both_precisions(bias: bool) -> None:  # noqa: FBT001 - a parameter of pytest's
    torch.manual_seed(1)
    linear = nn.Linear(48, 40, bias=bias, dtype=torch.bfloat16)
    model, states = nn.Sequential(linear), torch.randn(1, 700, 48, dtype=torch.bfloat16)
    with torch.inference_mode():
        expected, exact = model(states), linear.float()(states.float())
        model = nn.Sequential(linear.bfloat16())
        pack(model)
        assert isinstance(model[0], PackedLinear)
        assert torch.equal(model[0].weight, linear.weight)
        torch.testing.assert_close(model(states), expected)
        torch.testing.assert_close(model[0](states.float()), exact)


def test_a_processor_that_takes_no_packed_bfloat16_computes_with_the_layers_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpu_kernels, "packs_bfloat16", lambda: False)
    states = torch.randn(1, 7, 24)
    for dtype, packed in ((torch.bfloat16, 0), (torch.float32, 1)):
        model = nn.Sequential(nn.Linear(24, 24), Intermediate()).to(dtype)
        with torch.inference_mode():
            expected = model(states.to(dtype))
            pack(model)
            assert sum(isinstance(module, PackedLinear) for module in model.modules()) == packed
            torch.testing.assert_close(model(states.to(dtype)), expected)


@pytest.mark.parametrize("length", [1, 3, 40, 256])
def test_short_items_get_what_the_kernel_gives_them(length: int) -> None:
    torch.manual_seed(1)
    query, key, value = (torch.randn(5, 4, length, 16) for _ in range(3))
    exact = nn.functional.scaled_dot_product_attention(query, key, value, scale=0.3)
    found = attention._attend(query.bfloat16(), key.bfloat16(), value.bfloat16(), attention.Scope(False, None, 0.3))
    assert nn.functional.cosine_similarity(found.float(), exact, dim=-1).min() > 0.9995


def test_another_activation_is_left_alone(tmp_path: Path) -> None:
    folder = build("bert-bge", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": "gelu_new"}))
    spec = resolve(ModelConfig(model=str(folder), overrides={"instruction_style": "none"}))
    model = weights.load_transformer(spec, torch.device("cpu"), torch.float32)
    pack(model)
    assert not any(isinstance(module, PackedLinear) for module in model.modules())


@needs_int8
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_in_8_bits_is_near_the_layer_whatever_the_scale(dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    linear, states = nn.Linear(256, 64), torch.randn(3, 40, 256) * torch.logspace(-3, 3, 40)[:, None]
    states[0, 0] = 0
    with torch.inference_mode():
        expected = linear(states)
        model = nn.Sequential(linear)
        quantise(model)
        assert isinstance(model[0], Int8Linear)
        found = model.to(dtype)(states.to(dtype)).float()
    assert nn.functional.cosine_similarity(found, expected, dim=-1).min() > 0.999
    torch.testing.assert_close(found[0, 0], expected[0, 0], atol=1e-2, rtol=1e-2)


@needs_int8
def test_a_tensor_changed_in_place_between_two_calls_is_read_again() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(32, 8))
    quantise(model)
    with torch.inference_mode():
        states = torch.randn(4, 32)
        before = model(states).clone()
        states.mul_(-1)
        torch.testing.assert_close(model(states) - model[0].bias, -(before - model[0].bias))


@needs_int8
@pytest.mark.parametrize("family", ["bert-bge", "qwen3", "t5-instructor", "modernbert", "gemma3_text"])
def test_rows_in_8_bits_do_not_depend_on_the_batch_and_their_distance_is_told(family: str, tmp_path: Path) -> None:
    tasks = {"t": TaskConfig(instruction=instruction_of(family), model="m")}
    engine, tokenizer = loaded(family, tmp_path, tasks, threads=2, dtype="int8")
    facts = engine.describe()
    assert facts["dtype"] == "int8"
    assert facts["batches"] == ("exact length" if family == "t5-instructor" else "flat")
    assert 0.9 < facts["cosine_to_float32"]["min"] <= facts["cosine_to_float32"]["mean"] < 1
    batch = tokenizer.encode(TEXTS, ["t"])
    (together,) = engine.embed(batch)
    alone = np.concatenate([engine.embed(tokenizer.encode([text], ["t"]))[0] for text in TEXTS])
    assert (together * alone).sum(axis=1).min() >= 0.999
    exact = loaded(family, tmp_path, tasks)[0].embed(batch)[0]
    assert (together * exact).sum(axis=1).mean() > 0.95


def int8_model(folder: Path, **model: Any) -> ModelConfig:
    build("bert-bge", folder)
    return ModelConfig.model_validate(
        {"model": str(folder), "dtype": "int8", "overrides": dict(FAMILIES["bert-bge"].overrides), **model}
    )


def test_8_bits_are_refused_on_cuda_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"models\.m: dtype is int8, which runs on a CPU only, and device is cuda"):
        check_tasks("m", int8_model(tmp_path, device="cuda"), {"t": TaskConfig(model="m")})


def test_8_bits_are_refused_on_a_processor_without_the_instructions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = int8_model(tmp_path)
    spec = resolve(model)
    with pytest.raises(ConfigError, match="the device is cuda"):
        weights.pick_dtype(model, spec, torch.device("cuda"))
    monkeypatch.setattr(weights, "cpu_computes_in_int8", lambda: False)
    with pytest.raises(ConfigError, match="neither avx512_vnni"):
        weights.pick_dtype(model, spec, torch.device("cpu"))


def test_only_8_bits_have_a_fingerprint_of_their_own(tmp_path: Path) -> None:
    model = int8_model(tmp_path)
    parts = {
        dtype: identify(model.model_copy(update={"dtype": dtype})).parts for dtype in ("float32", "bfloat16", "int8")
    }
    assert parts["float32"] == parts["bfloat16"] != parts["int8"]
