"""Items of mixed lengths end to end, and instructions computed once: the vectors of each prompt alone and whole."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pipeline.config.model import TaskConfig
from pipeline.engine import attention
from pipeline.engine.attention import NAME, Layout, flat_attention
from pipeline.engine.forward import Forward
from pipeline.engine.layout import Pack, Run, pack_of
from pipeline.engine.pooling import pool
from pipeline.engine.transformer import TransformerEngine
from pipeline.records.batches import Float32
from tests.unit.engine.test_engine_transformer import TASKS, TEXTS, loaded
from tests.unit.engine.tiny_models import FAMILIES, instruction_of

PLAIN = {"t5-instructor"}
"""Needs a bias between positions."""

REUSING = {"qwen3", "mistral"}
"""Causal, last token, instruction in front."""


@pytest.mark.parametrize("family", FAMILIES)
def test_which_families_run_flat_and_which_reuse_instructions(family: str, tmp_path: Path) -> None:
    engine, _ = loaded(family, tmp_path, {"t": TaskConfig(instruction=instruction_of(family), model="m")})
    facts = engine.describe()
    assert facts["batches"] == ("exact length" if family in PLAIN else "flat")
    assert facts["instruction_reuse"] == (family in REUSING or family == "llama-inbedder")


def plain(engine: TransformerEngine) -> None:
    """As the model was before anything was proven."""
    engine.forward.flat = engine.forward.reuses_prefixes = False
    engine.forward.transformer.set_attn_implementation("sdpa")


def both_ways(
    family: str, folder: Path, tasks: Mapping[str, TaskConfig] = TASKS, **model: Any
) -> tuple[list[Float32], list[Float32]]:
    """Embeds in one job with everything on, then item by item in the plain way."""
    engine, tokenizer = loaded(family, folder, tasks, max_batch_tokens=512, **model)
    batch = tokenizer.encode(TEXTS, list(tasks))
    fast = engine.embed(batch)
    plain(engine)
    return fast, engine.embed(batch)


@pytest.mark.parametrize("family", ["modernbert", "gemma3_text", "xlm-roberta-e5", "nomic_bert", "llama-bidirectional"])
def test_flat_vectors_are_those_of_exact_length_groups(family: str, tmp_path: Path) -> None:
    tasks = {"t": TaskConfig(instruction=instruction_of(family), model="m")}
    for fast, exact in zip(*both_ways(family, tmp_path, tasks), strict=True):
        assert np.abs(fast - exact).max() <= 2e-6


@pytest.mark.parametrize("family", ["qwen3", "mistral"])
def test_reused_instructions_give_the_vectors_of_whole_prompts(family: str, tmp_path: Path) -> None:
    for fast, exact in zip(*both_ways(family, tmp_path), strict=True):
        assert np.abs(fast - exact).max() <= 2e-6


def test_a_prompt_without_an_instruction_shares_a_batch_with_one_whose_instruction_is_reused(tmp_path: Path) -> None:
    tasks = {**TASKS, "find": TaskConfig(model="m", mode="retrieval", query_instruction="Find the ticket")}
    for fast, exact in zip(*both_ways("qwen3", tmp_path, tasks), strict=True):
        assert np.abs(fast - exact).max() <= 2e-6


def test_reused_instructions_in_bfloat16(tmp_path: Path) -> None:
    for fast, exact in zip(*both_ways("qwen3", tmp_path, dtype="bfloat16"), strict=True):
        assert (fast * exact).sum(axis=1).min() >= 0.9999


def test_a_causal_window_is_honoured_across_the_reused_instruction(tmp_path: Path) -> None:
    """The window (12) ends inside the instruction for the first tokens of a text, inside the text for the last."""
    config = {**FAMILIES["mistral"].config, "sliding_window": 12}
    family = FAMILIES["mistral"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES, "mistral", type(family)(**{**_fields(family), "config": config}))
        for fast, exact in zip(*both_ways("mistral", tmp_path), strict=True):
            assert np.abs(fast - exact).max() <= 2e-6


def _fields(family: Any) -> dict[str, Any]:
    return {name: getattr(family, name) for name in family.__dataclass_fields__}


def test_an_instruction_is_computed_once_for_all_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, tokenizer = loaded("qwen3", tmp_path)
    seen: list[Pack] = []
    monkeypatch.setattr(engine.forward, "run", _recording(engine.forward, seen))
    prefix = {name: len(engine.prompts[name].prefix) for name in TASKS}
    batch = tokenizer.encode(["server down", "mail does not arrive"], list(TASKS))
    engine.embed(batch)
    whole = 2 * sum(prefix.values()) + 2 * len(batch.ids) + sum(2 * len(engine.prompts[name].suffix) for name in TASKS)
    assert sum(pack.num_tokens for pack in seen) == whole - 2 * sum(prefix.values())
    (pack,) = seen
    assert sorted(map(len, pack.prefixes)) == sorted(prefix.values())


def _recording(forward: Forward, seen: list[Pack]) -> Any:
    run = forward.run

    def wrapped(pack: Pack, adapter: str | None) -> torch.Tensor:
        seen.append(pack)
        return run(pack, adapter)

    return wrapped


def test_one_batch_holds_many_lengths_and_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = {name: TaskConfig(instruction=name, model="m") for name in ("clustering", "classification")}
    engine, tokenizer = loaded("nomic_bert", tmp_path, tasks, max_batch_tokens=10_000)
    seen: list[Pack] = []
    monkeypatch.setattr(engine.forward, "run", _recording(engine.forward, seen))
    engine.embed(tokenizer.encode(TEXTS, list(tasks)))
    assert len(seen) == 1
    assert len(set(seen[0].lengths)) > 5
    assert len(seen[0].lengths) == 2 * len(TEXTS)


def test_a_model_whose_flat_states_differ_stays_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions that do not begin anew at every item are what the proof is for."""
    monkeypatch.setattr(Pack, "positions", lambda self, _: np.arange(len(self.ids)))
    engine, tokenizer = loaded("bert-bge", tmp_path, {"t": TaskConfig(model="m")})
    assert engine.describe()["batches"] == "exact length"
    assert engine.forward.transformer.config._attn_implementation != NAME
    assert np.isfinite(engine.embed(tokenizer.encode(TEXTS, ["t"]))[0]).all()


LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=12)


@given(LENGTHS)
def test_positions_begin_anew_at_every_item(lengths: list[int]) -> None:
    pack = pack_of([np.full(length, 7, np.int32) for length in lengths])
    assert pack.positions(None).tolist() == [position for length in lengths for position in range(length)]
    assert pack.positions(1).tolist() == [position + 2 for length in lengths for position in range(length)]


def test_positions_leave_padding_tokens_out_as_roberta_does() -> None:
    pack = pack_of([np.array([5, 1, 6], np.int32), np.array([1, 8], np.int32)])
    assert pack.positions(1).tolist() == [2, 1, 3, 1, 2]


@given(LENGTHS, st.lists(st.integers(1, 5), min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_keys_are_each_items_prefix_and_its_own_tokens(lengths: list[int], sizes: list[int], random: Any) -> None:
    numbers = [random.randrange(len(sizes)) for _ in lengths]
    prefixes = tuple(np.arange(size, dtype=np.int32) + 100 * (number + 1) for number, size in enumerate(sizes))
    ids = np.arange(sum(lengths), dtype=np.int32) + 1_000
    pack = Pack(
        ids, np.array(lengths, np.int32), np.zeros(len(lengths), np.int32), prefixes, np.array(numbers, np.int32)
    )
    expected: list[int] = []
    for number, item in zip(numbers, np.split(ids, np.cumsum(lengths)[:-1]), strict=True):
        expected += [*prefixes[number].tolist(), *item.tolist()]
    assert np.concatenate([*prefixes, ids])[pack.keys()].tolist() == expected
    assert sum(run.num_items for run in pack.runs) == len(lengths)
    first_positions = pack.positions(None)[np.cumsum(lengths) - lengths]
    assert first_positions.tolist() == [sizes[number] for number in numbers]


def test_the_kernel_gets_borders_window_and_what_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call on CUDA, with a stand-in for the kernel: torch has none on a CPU."""
    calls: list[dict[str, Any]] = []

    def varlen_attn(q: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        calls.append({"q": q, "args": args, **options})
        return q

    class Attention(nn.Module):
        is_causal = True
        layer_idx = 0

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
    query, key = torch.randn(1, 4, 6, 8).bfloat16(), torch.randn(1, 2, 6, 8).bfloat16()
    borders = torch.tensor([0, 4, 6], dtype=torch.int32)
    layout = Layout([Run(1, 4, 0), Run(1, 2, 0)], cu_query=borders, cu_key=borders)
    for known in ({"num_splits", "enable_gqa"}, set[str]()):
        monkeypatch.setattr(attention, "_kernel_options", lambda known=known: frozenset(known))
        out, _ = flat_attention(Attention(), query, key, key, None, scaling=0.5, sliding_window=3, layout=layout)
        assert torch.equal(out, query.transpose(1, 2))
    new, old = calls
    assert new["window_size"] == old["window_size"] == (2, 0)
    assert (new["num_splits"], new["enable_gqa"]) == (1, True)
    assert new["args"][0].shape == (6, 2, 8)
    assert "num_splits" not in old
    assert old["args"][0].shape == (6, 4, 8)
    assert new["args"][2:6] == (borders, borders, 4, 4)


def test_a_mask_or_a_cap_is_never_ignored() -> None:
    states = torch.zeros(1, 1, 2, 8)
    with pytest.raises(NotImplementedError):
        flat_attention(nn.Module(), states, states, states, torch.ones(1, 1, 2, 2))
    with pytest.raises(NotImplementedError):
        flat_attention(nn.Module(), states, states, states, None, softcap=50.0)


@pytest.mark.parametrize("mode", ["mean", "cls", "lasttoken", "max", "weightedmean", "mean_sqrt_len_tokens"])
def test_pooling_sees_no_neighbour(mode: str) -> None:
    generator = torch.Generator().manual_seed(1)
    lengths, excluded = torch.tensor([5, 3, 1]), torch.tensor([2, 0, 0])
    states = torch.randn(9, 4, generator=generator)
    together = pool(states, lengths, excluded, [mode])
    for number, rows in enumerate(torch.split(states, lengths.tolist())):
        alone = pool(rows, lengths[number : number + 1], excluded[number : number + 1], [mode])
        assert torch.equal(alone[0], together[number])
        if mode == "mean":
            torch.testing.assert_close(alone[0], rows[int(excluded[number]) :].mean(0))
