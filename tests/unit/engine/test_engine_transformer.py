"""A text's vector does not depend on its company, and nothing is lost when memory or precision runs out."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
import torch
from torch import Tensor

from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.engine.budget import TokenBudget
from pipeline.engine.entry import check_tasks, load_engine, load_tokenizer
from pipeline.engine.layout import Pack
from pipeline.engine.transformer import TransformerEngine
from pipeline.errors import BatchShapeError, ConfigError, Reason, RecordError
from pipeline.interfaces import Tokenizer
from pipeline.records.batches import Float32, TokenBatch
from tests.unit.engine.tiny_models import FAMILIES, NASTY_TEXTS, build

TASKS: Mapping[str, TaskConfig] = {
    "urgency": TaskConfig(instruction="Judge how urgent it is", model="m"),
    "topic": TaskConfig(instruction="Find the topic", model="m", dimension=32),
}
TEXTS = [text[:400] for text in NASTY_TEXTS] + [f"ticket {number} " * (number % 7 + 1) for number in range(40)]


def loaded(
    family: str, folder: Path, tasks: Mapping[str, TaskConfig] = TASKS, *, threads: int = 1, **model: Any
) -> tuple[TransformerEngine, Tokenizer]:
    config = ModelConfig.model_validate(
        {
            "model": str(build(family, folder)),
            "device": "cpu",
            "dtype": "float32",
            "overrides": dict(FAMILIES[family].overrides),
            **model,
        }
    )
    engine = load_engine(config, tasks, threads=threads)
    assert isinstance(engine, TransformerEngine)
    return engine, load_tokenizer(config, tasks)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> tuple[TransformerEngine, Tokenizer]:
    return loaded("qwen3", tmp_path_factory.mktemp("qwen3"), max_batch_tokens=512)


Run = Callable[[Pack, str | None], Tensor]


def replace_run(monkeypatch: pytest.MonkeyPatch, engine: TransformerEngine, wrap: Callable[[Run], Run]) -> None:
    monkeypatch.setattr(engine.forward, "run", wrap(engine.forward.run))


@pytest.mark.parametrize("family", ["xlm-roberta-e5", "qwen3", "t5-instructor", "mistral", "modernbert"])
def test_vectors_do_not_depend_on_the_batch(family: str, tmp_path: Path) -> None:
    instruction = "classification" if family == "modernbert" else "Judge how urgent it is: "
    engine, tokenizer = loaded(family, tmp_path, {"t": TaskConfig(instruction=instruction, model="m")})
    rows = []
    for budget in (64, 300, 8_000):
        engine.budget = TokenBudget(budget)
        order = np.random.default_rng(budget).permutation(len(TEXTS))
        (shuffled,) = engine.embed(tokenizer.encode([TEXTS[i] for i in order], ["t"]))
        restored = np.empty_like(shuffled)
        restored[order] = shuffled
        rows.append(restored)
    alone = np.concatenate([engine.embed(tokenizer.encode([text], ["t"]))[0] for text in TEXTS])
    for packed in rows:
        assert np.abs(packed - alone).max() <= 2e-6


def test_bfloat16_vectors_hardly_depend_on_the_batch(tmp_path: Path) -> None:
    engine, tokenizer = loaded("qwen3", tmp_path, dtype="bfloat16")
    (together,) = engine.embed(tokenizer.encode(TEXTS, ["urgency"]))
    alone = np.concatenate([engine.embed(tokenizer.encode([text], ["urgency"]))[0] for text in TEXTS])
    assert (together * alone).sum(axis=1).min() >= 0.9999


def test_merged_batches_give_what_each_gives_alone(qwen: tuple[TransformerEngine, Tokenizer]) -> None:
    engine, tokenizer = qwen
    batches = [
        tokenizer.encode(TEXTS[:9], ["urgency", "topic"]),
        tokenizer.encode([], ["topic"]),
        tokenizer.encode(TEXTS[9:], ["topic"]),
    ]
    for batch, result in zip(batches, engine.embed_many(batches), strict=True):
        assert isinstance(result, list)
        for merged, alone in zip(result, engine.embed(batch), strict=True):
            np.testing.assert_allclose(merged, alone, atol=2e-6)


def test_a_query_overtakes_between_two_forward_batches(qwen: tuple[TransformerEngine, Tokenizer]) -> None:
    engine, tokenizer = qwen
    backlog = engine.begin([tokenizer.encode(TEXTS, ["urgency"])])
    backlog.step()
    assert not backlog.done
    query = engine.embed(tokenizer.encode(["server down"], ["topic"]))
    (result,) = backlog.results()
    assert isinstance(result, list)
    assert np.isfinite(result[0]).all()
    assert query[0].shape == (1, 32)


def test_a_job_held_to_small_forward_batches_gives_the_same_rows(qwen: tuple[TransformerEngine, Tokenizer]) -> None:
    engine, tokenizer = qwen
    batch = tokenizer.encode(TEXTS, ["urgency"])
    job, sizes = engine.begin([batch], 24), []
    while not job.done:
        sizes.append(job.step())
    assert 0 < max(sizes) <= max(24, int(job._items.lengths.max())) < engine.begin([batch]).step()
    (found,) = job.results()
    assert isinstance(found, list)
    np.testing.assert_allclose(found[0], engine.embed(batch)[0], atol=2e-6)


def test_a_shorter_dimension_is_cut_and_normalised_again(tmp_path: Path) -> None:
    tasks = {
        "full": TaskConfig(instruction="x", model="m"),
        "cut": TaskConfig(instruction="x", model="m", dimension=16),
    }
    overrides = {**FAMILIES["qwen3"].overrides, "matryoshka_dims": [16]}
    engine, tokenizer = loaded("qwen3", tmp_path, tasks, overrides=overrides)
    full, cut = engine.embed(tokenizer.encode(TEXTS, ["full", "cut"]))
    expected = full[:, :16] / np.linalg.norm(full[:, :16], axis=1, keepdims=True)
    np.testing.assert_allclose(cut, expected, atol=1e-6)


def test_nomic_gets_its_layer_norm_before_the_cut(tmp_path: Path) -> None:
    overrides = {**FAMILIES["nomic_bert"].overrides, "matryoshka_dims": [16]}
    tasks = {name: TaskConfig(instruction="clustering", model="m", dimension=d) for name, d in (("f", 32), ("c", 16))}
    engine, tokenizer = loaded("nomic_bert", tmp_path, tasks, overrides=overrides)
    full, cut = engine.embed(tokenizer.encode(TEXTS, ["f", "c"]))
    normed = torch.nn.functional.layer_norm(torch.from_numpy(full) * 10, (32,))[:, :16]
    cosine = (torch.nn.functional.normalize(normed, dim=1).numpy() * cut).sum(axis=1)
    assert cosine.min() > 0.9999


def test_out_of_memory_halves_the_batch_loses_nothing_and_regrows(
    qwen: tuple[TransformerEngine, Tokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, tokenizer = qwen
    batch = tokenizer.encode(["one length of text"] * 100, ["urgency"])
    expected = engine.embed(batch)[0]
    monkeypatch.setattr(engine, "budget", TokenBudget(1_500))
    sizes: list[int] = []

    def small_memory(run: Run) -> Run:
        def wrapped(pack: Pack, adapter: str | None) -> Tensor:
            sizes.append(pack.num_tokens)
            if pack.num_tokens > 600:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return run(pack, adapter)

        return wrapped

    replace_run(monkeypatch, engine, small_memory)
    with structlog.testing.capture_logs() as logs:
        np.testing.assert_allclose(engine.embed(batch)[0], expected, atol=2e-6)
    assert len(logs) == sum(size > 600 for size in sizes)
    shrunk = engine.max_batch_tokens
    assert shrunk <= 750
    monkeypatch.undo()
    engine.budget = TokenBudget(1_500)
    engine.budget.failed(1_500)
    for _ in range(64 * 8):
        engine.budget.succeeded(engine.budget.tokens)
    assert engine.max_batch_tokens == 1_500


def test_small_batches_do_not_regrow_the_budget() -> None:
    budget = TokenBudget(1_000)
    budget.failed(1_000)
    for _ in range(1_000):
        budget.succeeded(10)
    assert budget.tokens == 500


def test_an_item_that_fits_nowhere_is_the_error_of_its_batch_alone(
    qwen: tuple[TransformerEngine, Tokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, tokenizer = qwen
    monkeypatch.setattr(engine, "budget", TokenBudget(512))
    long = "invoice " * 100

    def no_room_for_long(run: Run) -> Run:
        def wrapped(pack: Pack, adapter: str | None) -> Tensor:
            if (pack.lengths + pack.reused).max() > 40:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes.")
            return run(pack, adapter)

        return wrapped

    replace_run(monkeypatch, engine, no_room_for_long)
    batches = [tokenizer.encode(texts, ["urgency"]) for texts in (["fine"], [long], ["fine", long])]
    fine, record, shape = engine.embed_many(batches)
    assert isinstance(fine, list)
    assert np.isfinite(fine[0]).all()
    assert isinstance(record, RecordError)
    assert record.reason is Reason.TOO_LARGE_FOR_MODEL
    assert "48 tokens" in record.detail
    assert isinstance(shape, BatchShapeError)
    with pytest.raises(RecordError):
        engine.embed(batches[1])


def test_other_faults_of_the_forward_are_not_taken_for_memory(
    qwen: tuple[TransformerEngine, Tokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, tokenizer = qwen

    def broken(_: Run) -> Run:
        def wrapped(pack: Pack, adapter: str | None) -> Tensor:
            del pack, adapter
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

        return wrapped

    replace_run(monkeypatch, engine, broken)
    with pytest.raises(RuntimeError, match="mat1"):
        engine.embed(tokenizer.encode(["x"], ["urgency"]))


def embed_with_overflow(
    engine: TransformerEngine, batch: TokenBatch, monkeypatch: pytest.MonkeyPatch, *, also_float32: bool
) -> Float32:
    def overflowing(run: Run) -> Run:
        def wrapped(pack: Pack, adapter: str | None) -> Tensor:
            rows = run(pack, adapter).clone()
            half = next(engine.forward._model.parameters()).dtype != torch.float32
            if half or also_float32:
                rows[torch.from_numpy(pack.lengths + pack.reused > 30), 3] = torch.inf
            return rows

        return wrapped

    replace_run(monkeypatch, engine, overflowing)
    return engine.embed(batch)[0]


def test_a_row_that_overflows_is_computed_again_alone_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, tokenizer = loaded("qwen3", tmp_path, dtype="bfloat16")
    batch = tokenizer.encode(["fine", "invoice " * 100], ["urgency"])
    expected = engine.embed(batch)[0]
    before = {name: value.clone() for name, value in engine.forward._model.state_dict().items()}
    with structlog.testing.capture_logs() as logs:
        rows = embed_with_overflow(engine, batch, monkeypatch, also_float32=False)
    assert np.isfinite(rows).all()
    assert (rows * expected).sum(axis=1).min() > 0.999
    assert [entry["finite_now"] for entry in logs] == [True]
    for name, value in engine.forward._model.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])


def test_a_row_that_stays_bad_is_nan_and_the_others_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, tokenizer = loaded("qwen3", tmp_path)
    batch = tokenizer.encode(["fine", "invoice " * 100, "also fine"], ["urgency"])
    rows = embed_with_overflow(engine, batch, monkeypatch, also_float32=True)
    assert np.isnan(rows[1]).all()
    assert np.isfinite(rows[[0, 2]]).all()


def test_nothing_to_pool_is_nan(tmp_path: Path) -> None:
    """GritLM adds no end token, so an empty text leaves nothing beside the instruction."""
    engine, tokenizer = loaded("gritlm", tmp_path, {"t": TaskConfig(instruction="Judge", model="m")})
    rows = engine.embed(tokenizer.encode(["", "x"], ["t"]))[0]
    assert np.isnan(rows[0]).all()
    assert np.isfinite(rows[1]).all()


def test_the_instruction_of_instructor_stays_out_of_the_mean(tmp_path: Path) -> None:
    engine, tokenizer = loaded("t5-instructor", tmp_path, {"t": TaskConfig(instruction="Represent it: ", model="m")})
    plan = engine.prompts["t"]
    raw = tokenizer._raw  # type: ignore[attr-defined] # a PromptTokenizer
    assert plan.excluded == len(raw.ids("Represent it:"))
    including = loaded(
        "t5-instructor",
        tmp_path,
        {"t": TaskConfig(instruction="Represent it: ", model="m")},
        overrides={**FAMILIES["t5-instructor"].overrides, "exclude_instruction": False},
    )[0]
    batch = tokenizer.encode(["server room"], ["t"])
    assert np.abs(engine.embed(batch)[0] - including.embed(batch)[0]).max() > 1e-3


def test_a_model_that_looks_the_wrong_way_fails_its_self_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.engine.weights._look_both_ways", lambda _: None)
    overrides = {"instruction_style": "free_form", "query_template": "{instruction}: {text}", "bidirectional": True}
    with pytest.raises(ConfigError, match="look only back"):
        loaded("qwen3", tmp_path, overrides=overrides)


def test_a_decoder_is_made_to_look_both_ways_as_if_its_files_said_so(tmp_path: Path) -> None:
    overrides = {"instruction_style": "free_form", "query_template": "{instruction}: {text}", "bidirectional": True}
    tasks = {"t": TaskConfig(instruction="Judge", model="m")}
    by_override, tokenizer = loaded("qwen3", tmp_path, tasks, overrides={**overrides, "pooling": "mean"})
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "is_causal": False}))
    model = ModelConfig(model=str(tmp_path), device="cpu", dtype="float32", overrides={**overrides, "pooling": "mean"})
    by_files = load_engine(model, tasks)
    batch = tokenizer.encode(TEXTS, ["t"])
    np.testing.assert_allclose(by_override.embed(batch)[0], by_files.embed(batch)[0], atol=1e-6)
    causal, _ = loaded("qwen3", tmp_path, tasks, overrides={**overrides, "pooling": "mean", "bidirectional": False})
    assert np.abs(by_override.embed(batch)[0] - causal.embed(batch)[0]).max() > 1e-3


def test_instructions_that_change_nothing_fail_the_self_test(tmp_path: Path) -> None:
    """A cls vector of a causal model sees its first token only."""
    overrides = {"instruction_style": "free_form", "query_template": "a {text} {instruction}", "pooling": "cls"}
    with pytest.raises(ConfigError, match="two instructions give the same vectors"):
        loaded("qwen3", tmp_path, overrides=overrides)


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file  # noqa: PLC0415 - this test only

    folder = build("qwen3", tmp_path)
    weights = load_file(str(folder / "model.safetensors"))
    name = next(name for name in weights if "q_proj" in name)
    save_file({key: value for key, value in weights.items() if key != name}, str(folder / "model.safetensors"))
    model = ModelConfig(model=str(folder), overrides=dict(FAMILIES["qwen3"].overrides))
    with pytest.raises(ConfigError, match="they would be random"):
        load_engine(model, TASKS)


def test_a_model_that_was_not_trained_on_instructions_says_so() -> None:
    overrides = {"instruction_style": "free_form", "query_template": "{instruction}: {text}"}
    model = ModelConfig(
        model="packaged:all-MiniLM-L6-v2", overrides=overrides, device="cpu", dtype="float32", max_batch_tokens=1_024
    )
    tasks = {"t": TaskConfig(instruction="urgency", model="m")}
    check_tasks("m", model, tasks)
    facts = load_engine(model, tasks, threads=1).describe()
    assert "not trained on instructions" in facts["warnings"][0]
    assert facts["device"] == "cpu"
    assert facts["dtype"] == "float32"
    assert facts["threads"] == 1
    assert facts["max_batch_tokens"] == 1_024


def test_the_budget_is_measured_where_none_is_given(tmp_path: Path) -> None:
    engine, _ = loaded("qwen3", tmp_path)
    assert 48 <= engine.max_batch_tokens <= 8_192
