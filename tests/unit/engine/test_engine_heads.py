"""Heads: a linear map per task behind the model, and one pass through the model for all tasks that ask the same."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from prometheus_client import CollectorRegistry
from safetensors.torch import load_file, save_file

from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.engine.duplicates import DeduplicatingEngine
from pipeline.engine.head_files import find_head, read_head
from pipeline.engine.heads import Heads
from pipeline.engine.items import assemble
from pipeline.engine.layout import Pack
from pipeline.engine.load import check_tasks, identify, load_engine, load_tokenizer
from pipeline.engine.scheduler import EmbedScheduler
from pipeline.engine.tokenizer import PromptTokenizer
from pipeline.engine.transformer import TransformerEngine
from pipeline.errors import ConfigError
from pipeline.metrics import EmbedMetrics
from pipeline.records.batches import Float32, Priority
from pipeline.tasks import bind_task
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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_precision_are_taken_as_they_are(tmp_path: Path, dtype: torch.dtype) -> None:
    head = build_head(tmp_path, 8, 4, bias=True)
    tensors = {name: value.to(dtype) for name, value in load_file(str(head / "model.safetensors")).items()}
    save_file(tensors, str(head / "model.safetensors"))
    files = find_head("t", TaskConfig(model="m", head=head))
    assert files is not None
    weight, bias = read_head(files)
    np.testing.assert_array_equal(weight, tensors["linear.weight"].float().numpy())
    assert bias is not None
    np.testing.assert_array_equal(bias, tensors["linear.bias"].float().numpy())


def test_a_row_that_cannot_be_normalised_is_nan_and_its_neighbours_are_whole(heads: list[Path]) -> None:
    files = find_head("t", TaskConfig(model="m", head=heads[0]))
    assert files is not None
    runs = Heads(torch.device("cpu"))
    rows = np.ones((4, HIDDEN), np.float32)
    rows[1], rows[2, 3] = 0, np.nan
    found = runs.run(files, runs.unit(rows), 5)
    assert np.isnan(found[[1, 2]]).all()
    np.testing.assert_allclose(np.linalg.norm(found[[0, 3]], axis=1), 1, atol=1e-6)


def change_config(**changes: Any) -> Callable[[Path], None]:
    def change(head: Path) -> None:
        file = head / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def change_weights(changed: Callable[[dict[str, torch.Tensor]], Mapping[str, torch.Tensor]]) -> Callable[[Path], None]:
    def change(head: Path) -> None:
        file = str(head / "model.safetensors")
        save_file(dict(changed(load_file(file))), file)

    return change


def cut_short(head: Path) -> None:
    file = head / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-7])


def pickle_instead(head: Path) -> None:
    (head / "model.safetensors").rename(head / "pytorch_model.bin")


NOT_FINITE = torch.tensor([[0.0] * 31 + [torch.nan]] * 5 + [[torch.inf] * 32] * 11)
REFUSED: list[tuple[Callable[[Path], Any], str]] = [
    (lambda head: head.rename(head.with_name("gone")), r"tasks\.t\.head: \S+/head is not a folder"),
    (lambda head: (head / "config.json").unlink(), r"tasks\.t\.head: \S+ has no config\.json"),
    (lambda head: (head / "config.json").write_text("{"), r"config\.json is not valid JSON"),
    (lambda head: (head / "config.json").write_text("[]"), r"config\.json holds a list; expected an object"),
    (lambda head: (head / "model.safetensors").unlink(), r"has no model\.safetensors$"),
    (pickle_instead, r"no model\.safetensors; pytorch_model\.bin is a pickle, which is never read"),
    (change_config(in_features=33), r"tasks\.t\.head: \S+config\.json has in_features 33; expected 32, the dimension"),
    (change_config(out_features=0), "out_features is 0; expected a whole number from 1"),
    (change_config(in_features="32"), "in_features is '32'; expected a whole number"),
    (change_config(activation_function="torch.nn.modules.activation.Tanh"), "activation.Tanh'; expected .*Identity"),
    (change_config(activation_function=None), "activation_function None; expected .*Identity"),
    (change_config(bias="no"), "has bias 'no'; expected true or false"),
    (change_config(bias=True), r"holds linear\.weight; expected linear\.weight, linear\.bias, as .* bias true"),
    (change_config(use_residual=True), "use_residual true; expected false"),
    (change_config(module_input_name="token_embeddings"), "module_input_name 'token_embeddings'; expected 'sentence_"),
    (change_config(out_features=17), r"linear\.weight has the shape \[16, 32\]; expected \[17, 32\]"),
    (change_weights(lambda found: {"weight": found["linear.weight"]}), r"holds weight; expected linear\.weight"),
    (change_weights(lambda found: {n: v.int() for n, v in found.items()}), "linear.weight holds I32; expected one of"),
    (change_weights(lambda _: {"linear.weight": NOT_FINITE}), "has 357 of 512 values that are not finite"),
    (change_weights(lambda _: {"linear.weight": torch.full((16, 32), 1e300, dtype=torch.float64)}), "not finite"),
    (cut_short, r"model\.safetensors cannot be read as safetensors \(SafetensorError\)"),
]


@pytest.mark.parametrize(("spoil", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_a_head_that_cannot_work_is_refused_at_check(
    spoil: Callable[[Path], Any], message: str, tmp_path: Path
) -> None:
    folder, head = build("bert-bge", tmp_path / "model"), build_head(tmp_path / "head", HIDDEN, 16)
    model = ModelConfig(model=str(folder), overrides=dict(FAMILIES["bert-bge"].overrides))
    tasks = {"t": TaskConfig(model="m", head=head)}
    check_tasks("m", model, tasks)
    spoil(head)
    with pytest.raises(ConfigError, match=message) as caught:
        check_tasks("m", model, tasks)
    assert str(caught.value).startswith("models.m: tasks.t.head: ")


def test_a_head_gives_no_more_values_than_it_has(heads: list[Path], tmp_path: Path) -> None:
    model = ModelConfig(model=str(build("bert-bge", tmp_path)), overrides=dict(FAMILIES["bert-bge"].overrides))
    with pytest.raises(ConfigError, match=r"tasks\.t\.dimension is 17; vectors of its head \S+ have 16"):
        check_tasks("m", model, {"t": TaskConfig(model="m", head=heads[0], dimension=17)})


def test_a_misspelt_size_names_the_right_key(heads: list[Path], tmp_path: Path) -> None:
    head = build_head(tmp_path, 4, 4)
    (head / "config.json").write_text(
        json.dumps({"in_feature": 4, "out_features": 4, "activation_function": "torch.nn.Identity"})
    )
    with pytest.raises(ConfigError, match=r"in_features is missing\. Did you mean 'in_feature'"):
        find_head("t", TaskConfig(model="m", head=head))
    assert find_head("t", TaskConfig(model="m")) is None
    assert find_head("t", TaskConfig(model="m", head=heads[0])) is not None


def test_a_head_that_maps_everything_to_nothing_fails_the_self_test(tmp_path: Path) -> None:
    head = build_head(tmp_path / "head", HIDDEN, 16)
    change_weights(lambda found: {name: torch.zeros_like(value) for name, value in found.items()})(head)
    with pytest.raises(ConfigError, match="vectors under the prompt t are not finite"):
        loaded("bert-bge", tmp_path / "model", {"t": TaskConfig(model="m", head=head)})


def test_the_null_engine_takes_no_head(heads: list[Path]) -> None:
    model, tasks = ModelConfig(model="null:32"), {"t": TaskConfig(model="m", head=heads[0])}
    for use in (lambda: check_tasks("m", model, tasks), lambda: load_tokenizer(model, tasks)):
        with pytest.raises(ConfigError, match=r"tasks\.t\.head: the null engine has no model"):
            use()


def test_a_head_is_part_of_the_fingerprint_by_its_content(tmp_path: Path) -> None:
    model = ModelConfig(model=str(build("bert-bge", tmp_path)), overrides=dict(FAMILIES["bert-bge"].overrides))

    def task(**settings: Any) -> tuple[int, str]:
        config = TaskConfig(model="m", **settings)
        bound = bind_task("t", config, identify(model, {"t": config}))
        return bound.dimension, bound.fingerprint

    first, other = build_head(tmp_path / "a", HIDDEN, 32), build_head(tmp_path / "b", HIDDEN, 32, seed=1)
    copy, small = build_head(tmp_path / "c", HIDDEN, 32), build_head(tmp_path / "d", HIDDEN, 12)
    assert task(head=first) == task(head=copy)
    assert len({task()[1], task(head=first)[1], task(head=other)[1]}) == 3
    assert [task(head=small)[0], task(head=small, dimension=5)[0], task()[0]] == [12, 5, 32]
    with pytest.raises(ValueError, match=r"tasks\.t\.head"):
        bind_task("t", TaskConfig(model="m", head=first), identify(model))


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


def test_a_prompt_keeps_its_content_whatever_its_head(heads: list[Path], tmp_path: Path) -> None:
    engine, _ = loaded("bert-e5", tmp_path, headed(heads[:2], "bert-e5"))
    first, second = (engine.prompts[name].prompt for name in ("t0", "t1"))
    assert first != second
    assert replace(first, head=None, dimension=1) == replace(second, head=None, dimension=1)
