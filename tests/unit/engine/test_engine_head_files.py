"""Heads on disk: what is taken, what is refused, and what decides a fingerprint."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.binding import bind_task
from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.engine.entry import check_tasks, identify, load_tokenizer
from pipeline.engine.head_files import find_head, read_head
from pipeline.errors import ConfigError
from tests.unit.engine.test_engine_transformer import loaded
from tests.unit.engine.tiny_models import FAMILIES, HIDDEN, build, build_head


@pytest.fixture
def head(tmp_path: Path) -> Path:
    return build_head(tmp_path / "given", HIDDEN, 16)


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


def test_a_head_gives_no_more_values_than_it_has(head: Path, tmp_path: Path) -> None:
    model = ModelConfig(model=str(build("bert-bge", tmp_path)), overrides=dict(FAMILIES["bert-bge"].overrides))
    with pytest.raises(ConfigError, match=r"tasks\.t\.dimension is 17; vectors of its head \S+ have 16"):
        check_tasks("m", model, {"t": TaskConfig(model="m", head=head, dimension=17)})


def test_a_misspelt_size_names_the_right_key(head: Path) -> None:
    assert find_head("t", TaskConfig(model="m", head=head)) is not None
    assert find_head("t", TaskConfig(model="m")) is None
    (head / "config.json").write_text(
        json.dumps({"in_feature": 4, "out_features": 4, "activation_function": "torch.nn.Identity"})
    )
    with pytest.raises(ConfigError, match=r"in_features is missing\. Did you mean 'in_feature'"):
        find_head("t", TaskConfig(model="m", head=head))


def test_a_head_that_maps_everything_to_nothing_fails_the_self_test(tmp_path: Path) -> None:
    head = build_head(tmp_path / "head", HIDDEN, 16)
    change_weights(lambda found: {name: torch.zeros_like(value) for name, value in found.items()})(head)
    with pytest.raises(ConfigError, match="vectors under the prompt t are not finite"):
        loaded("bert-bge", tmp_path / "model", {"t": TaskConfig(model="m", head=head)})


def test_the_null_engine_takes_no_head(head: Path) -> None:
    model, tasks = ModelConfig(model="null:32"), {"t": TaskConfig(model="m", head=head)}
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
