"""Heads: a linear map per task behind the model, and one pass through the model for all tasks that ask the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from prometheus_client import CollectorRegistry
from safetensors.torch import load_file

from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.engine.duplicates import DeduplicatingEngine
from pipeline.engine.entry import identify, load_engine
from pipeline.engine.head_files import find_head
from pipeline.engine.heads import Heads
from pipeline.engine.items import assemble
from pipeline.engine.layout import Pack
from pipeline.engine.scheduler import EmbedScheduler
from pipeline.engine.tokenizer import PromptTokenizer
from pipeline.engine.transformer import TransformerEngine
from pipeline.metrics import EmbedMetrics
from pipeline.records.batches import Float32, Priority
from tests.unit.engine.reference import reference_rows
from tests.unit.engine.test_engine_cpu import needs_int8
from tests.unit.engine.test_engine_transformer import TEXTS, loaded
from tests.unit.engine.tiny_models import FAMILIES, HIDDEN, build, build_head, instruction_of

FEW = TEXTS[:6]


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("heads")
    return [build_head(root / str(number), HIDDEN, 16 + number, seed=number) for number in range(4)]


def headed(heads: list[Path], family: str, **settings: Any) -> dict[str, TaskConfig]:
    instruction = instruction_of(family)
    return {
        f"t{number}": TaskConfig(model="m", instruction=instruction, head=head, **settings)
        for number, head in enumerate(heads)
    }


def through(rows: Float32, head: Path, dimension: int | None = None) -> Float32:
    """A head by hand, in float64."""
    values = rows.astype(np.float64) @ load_file(str(head / "model.safetensors"))["linear.weight"].numpy().T
    values = values[:, :dimension]
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True), np.float32)


def count_items(engine: TransformerEngine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counts: list[int] = []
    run = engine.forward.run

    def counted(pack: Pack, adapter: str | None) -> torch.Tensor:
        counts.append(len(pack.lengths))
        return run(pack, adapter)

    monkeypatch.setattr(engine.forward, "run", counted)
    return counts


@pytest.mark.parametrize("cache_rows", [0, 100])
def test_four_headed_tasks_cost_one_forward_item_per_record(
    heads: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_rows: int
) -> None:
    engine, tokenizer = loaded("qwen3", tmp_path, headed(heads, "qwen3"))
    counts, registry = count_items(engine, monkeypatch), CollectorRegistry()
    scheduler = EmbedScheduler("m", engine, EmbedMetrics(registry), cache_rows=cache_rows)
    batch = tokenizer.encode(FEW, list(engine.prompts))
    rows = scheduler.submit(batch, Priority.LIVE).result(30)
    again = scheduler.submit(batch, Priority.BACKFILL).result(30)
    scheduler.close()
    assert [values.shape for values in rows] == [(len(FEW), 16 + number) for number in range(4)]
    for first, second in zip(rows, again, strict=True):
        np.testing.assert_allclose(first, second, atol=2e-6)
    passes = len(FEW) if cache_rows else 2 * len(FEW)
    assert sum(counts) == passes
    assert registry.get_sample_value("refract_forward_items_total", {"model": "m"}) == passes
    assert registry.get_sample_value("refract_cache_hits_total", {"model": "m"}) == 2 * len(FEW) - passes


@pytest.mark.parametrize("family", ["qwen3", "bert-e5", "t5-instructor", "nomic_bert"])
def test_a_head_takes_the_vector_of_a_task_without_one(family: str, tmp_path: Path) -> None:
    """Prefix reuse, exact-length groups, and a layer norm that is for the model's own cut only."""
    build(family, tmp_path)
    width = identify(ModelConfig(model=str(tmp_path), overrides=dict(FAMILIES[family].overrides))).dimension
    head = build_head(tmp_path / "head", width, 20)
    tasks = headed([head], family) | {
        "plain": TaskConfig(model="m", instruction=instruction_of(family)),
        "cut": TaskConfig(model="m", instruction=instruction_of(family), head=head, dimension=7),
    }
    engine, tokenizer = loaded(family, tmp_path, tasks)
    whole, plain, cut = engine.embed(tokenizer.encode(TEXTS, list(tasks)))
    np.testing.assert_allclose(whole, through(plain, head), atol=1e-5)
    np.testing.assert_allclose(cut, through(plain, head, 7), atol=1e-5)


def test_tasks_of_any_dimension_share_a_pass_if_their_prompts_are_equal(
    heads: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    say: Any = {"model": "m", "instruction": "Find the topic"}
    tasks = {
        "headed": TaskConfig(**say, head=heads[0]),
        "plain": TaskConfig(**say),
        "cut": TaskConfig(**say, dimension=32),
        "other": TaskConfig(model="m", instruction="Judge how urgent it is"),
        "shorter": TaskConfig(**say, max_tokens=24),
        "asks": TaskConfig(model="m", mode="retrieval", query_instruction="Find the topic"),
    }
    engine, tokenizer = loaded("qwen3", tmp_path, tasks)
    names = [*tasks, "asks:query"]
    assert {name: engine.pass_of(name) for name in names} == {
        "headed": "headed",
        "plain": "headed",
        "cut": "headed",
        "other": "other",
        "shorter": "shorter",
        "asks": "asks",
        "asks:query": "headed",
    }
    counts = count_items(engine, monkeypatch)
    together = engine.embed(tokenizer.encode(FEW, names))
    assert sum(counts) == 4 * len(FEW)
    for name, rows in zip(names, together, strict=True):
        np.testing.assert_allclose(rows, engine.embed(tokenizer.encode(FEW, [name]))[0], atol=2e-6)


def test_prompts_that_are_tokenised_whole_are_shared_too(heads: list[Path], tmp_path: Path) -> None:
    overrides = {"like": "Qwen/Qwen3-Embedding-0.6B", "query_template": f"{{instruction}}{'x' * 40}{{text}}{'y' * 30}"}
    tasks = headed(heads[:2], "qwen3") | {"other": TaskConfig(model="m", instruction="Find")}
    engine, tokenizer = loaded("qwen3", tmp_path, tasks, overrides=overrides, max_length=120)
    assert isinstance(tokenizer, PromptTokenizer)
    assert tokenizer.whole_prompts == list(tasks)
    long = [*FEW, "invoice " * 200]
    batch = tokenizer.encode(long, list(tasks))
    assert len(batch.offsets) - 1 == 2 * len(long)
    np.testing.assert_array_equal(batch.truncated[0], batch.truncated[1])
    assert batch.truncated[1, -1] > 0
    assert engine.begin([batch]).num_forward_items == 2 * len(long)


def test_the_items_of_every_prompt_are_found_again(heads: list[Path], tmp_path: Path) -> None:
    tasks = headed(heads[:2], "bert-e5") | {"other": TaskConfig(model="m", mode="retrieval")}
    engine, tokenizer = loaded("bert-e5", tmp_path, tasks)
    batches = [tokenizer.encode(FEW, ["other", "t0", "t1"]), tokenizer.encode(FEW[:2], ["t1", "other"])]
    items = assemble(batches, engine.prompts)
    assert items.first == [[0, 6, 6], [12, 14]]
    assert len(items.plans) == 2
    assert items.of(1, 0) == slice(12, 14)
    for number, batch in enumerate(batches):
        for row, name in enumerate(batch.prompts):
            (alone,) = assemble([tokenizer.encode(FEW, [name])], engine.prompts).lengths.reshape(1, -1)
            assert items.lengths[items.of(number, row)].tolist() == alone[: batch.num_texts].tolist()


def test_rows_of_the_cache_serve_a_task_that_was_not_asked_for_before(
    heads: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, tokenizer = loaded("qwen3", tmp_path, headed(heads, "qwen3"))
    expected = engine.embed(tokenizer.encode(FEW, list(engine.prompts)))
    counts = count_items(engine, monkeypatch)
    cached = DeduplicatingEngine(engine, 100)
    for name, rows in zip(engine.prompts, expected, strict=True):
        np.testing.assert_allclose(cached.embed(tokenizer.encode(FEW, [name]))[0], rows, atol=2e-6)
    assert sum(counts) == len(FEW)
    assert cached.describe()["cached_rows"] == len(FEW)


def test_a_small_product_is_not_divided_among_threads(
    heads: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, tokenizer = loaded("bert-e5", tmp_path, headed(heads[:2], "bert-e5"), threads=2)
    run, threads = engine.forward.heads.run, []

    def watched(*given: Any) -> Float32:
        threads.append(torch.get_num_threads())
        return run(*given)

    monkeypatch.setattr(engine.forward.heads, "run", watched)
    before = torch.get_num_threads()
    engine.embed(tokenizer.encode(FEW, list(engine.prompts)))
    assert (before, threads) == (2, [1, 1])


@needs_int8
def test_heads_stay_in_float32_behind_a_model_in_8_bits(heads: list[Path], tmp_path: Path) -> None:
    tasks = headed(heads[:1], "bert-bge") | {"plain": TaskConfig(model="m")}
    engine, tokenizer = loaded("bert-bge", tmp_path, tasks, dtype="int8")
    rows, plain = engine.embed(tokenizer.encode(FEW, list(tasks)))
    np.testing.assert_allclose(rows, through(plain, heads[0]), atol=1e-5)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_heads_stand_behind_merged_and_chosen_adapters(heads: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="adapters need the package peft")
    from tests.unit.engine.test_engine_adapters import write_adapter  # noqa: PLC0415 - needs peft

    base = build("bert-max", tmp_path / "base")
    for seed, name in enumerate(("urgency", "topic")):
        write_adapter(base, tmp_path / "adapters" / name, seed)
    merged: Any = {"adapter": str(tmp_path / "adapters" / "topic"), "overrides": {"instruction_style": "none"}}
    engine, tokenizer = loaded("bert-max", base, {"t": TaskConfig(model="m")}, **merged)
    (topic,) = engine.embed(tokenizer.encode(FEW, ["t"]))
    tasks = {
        f"{name}{number}": TaskConfig(model="m", instruction=name, head=head)
        for name in ("urgency", "topic")
        for number, head in enumerate(heads[:2])
    }
    chosen: Any = {"adapter": str(tmp_path / "adapters"), "overrides": {"instruction_style": "none"}}
    engine, tokenizer = loaded("bert-max", base, tasks, **chosen)
    job = engine.begin([tokenizer.encode(FEW, list(tasks))])
    assert job.num_forward_items == 2 * len(FEW)
    rows = dict(zip(tasks, engine.embed(tokenizer.encode(FEW, list(tasks))), strict=True))
    for number, head in enumerate(heads[:2]):
        np.testing.assert_allclose(rows[f"topic{number}"], through(topic, head), atol=1e-5)
    assert np.abs(rows["topic0"] - rows["urgency0"]).max() > 1e-3


def test_a_row_that_cannot_be_normalised_is_nan_and_its_neighbours_are_whole(heads: list[Path]) -> None:
    files = find_head("t", TaskConfig(model="m", head=heads[0]))
    assert files is not None
    runs = Heads(torch.device("cpu"))
    rows = np.ones((4, HIDDEN), np.float32)
    rows[1], rows[2, 3] = 0, np.nan
    found = runs.run(files, runs.unit(rows), 5)
    assert np.isnan(found[[1, 2]]).all()
    np.testing.assert_allclose(np.linalg.norm(found[[0, 3]], axis=1), 1, atol=1e-6)


def test_a_query_goes_through_the_head_of_its_task(tmp_path: Path) -> None:
    folder = build("bert-e5", tmp_path)
    head = build_head(tmp_path / "head", HIDDEN, 16)
    tasks = {"t": TaskConfig(model="m", mode="retrieval", head=head)}
    engine, tokenizer = loaded("bert-e5", folder, tasks)
    (found,) = engine.embed(tokenizer.encode(FEW, ["t:query"]))
    np.testing.assert_allclose(found, reference_rows("bert-e5", folder, FEW, head), atol=1e-5)


def test_a_changed_head_is_read_by_an_engine_that_is_loaded_anew(tmp_path: Path) -> None:
    head = build_head(tmp_path / "head", HIDDEN, 16)
    tasks = {"t": TaskConfig(model="m", head=head)}
    before, tokenizer = loaded("bert-bge", tmp_path / "model", tasks)
    batch = tokenizer.encode(FEW, ["t"])
    build_head(head, HIDDEN, 16, seed=9)
    after = load_engine(before_config(tmp_path / "model"), tasks)
    assert np.abs(before.embed(batch)[0] - after.embed(batch)[0]).max() > 1e-3


def before_config(folder: Path) -> ModelConfig:
    return ModelConfig(model=str(folder), device="cpu", dtype="float32", overrides=dict(FAMILIES["bert-bge"].overrides))
