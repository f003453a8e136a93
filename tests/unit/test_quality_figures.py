"""`tests.benchmarks.quality`: what it measures on, and how its figures are taken from evaluations."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.quality.evaluation import EvaluatedRows, Evaluation, PromptKind
from pipeline.quality.evaluator import Evaluator, Settings
from pipeline.quality.labels import make_label
from pipeline.records.batches import Float32
from pipeline.tuning.settings import LoraSettings
from tests.benchmarks.quality import (
    adapter_card,
    aspect_figures,
    figures_of,
    repeated,
    untrained,
    with_adapter,
)
from tests.config_trees import tree
from tests.demo_tickets import held_out_rows

COUNT = 120
FIRST = [f"a{number % 3}" for number in range(COUNT)]
SECOND = [f"b{number // 3 % 3}" for number in range(COUNT)]
LABELS = [make_label("first", FIRST), make_label("second", SECOND)]


def vectors_of(codes: Any, *, seed: int) -> Float32:
    rows = np.eye(8, dtype=np.float32)[codes] + 0.05 * np.random.default_rng(seed).normal(size=(COUNT, 8))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def evaluation_of(under: list[Any], wordings: list[Any], plain: Any) -> Evaluation:
    evaluator = Evaluator(LABELS, COUNT, Settings(replicates=50))
    for number, (label, codes) in enumerate(zip(LABELS, under, strict=True)):
        evaluator.add_task(f"ask {label.name}", label.name, vectors_of(codes, seed=number))
    evaluator.add_control(
        "no instruction", PromptKind.NO_INSTRUCTION, vectors_of(plain, seed=9), ["ask first", "ask second"]
    )
    for codes in wordings:
        evaluator.add_wording("ask first", "other words", vectors_of(codes, seed=4))
    evaluator.add_texts([f"{first} or else" for first in FIRST])
    return evaluator.finish(EvaluatedRows(COUNT, COUNT, is_whole=True, seed=0), [""] * COUNT)


FOLLOWS = evaluation_of([LABELS[0].codes, LABELS[1].codes], [LABELS[0].codes, LABELS[1].codes], LABELS[1].codes)
IGNORES = evaluation_of([LABELS[1].codes] * 2, [], LABELS[1].codes)


def test_the_held_out_tickets_have_every_label_and_none_is_deleted() -> None:
    rows = held_out_rows()
    assert len({row["id"] for row in rows}) == len(rows) == 715
    assert all(row[label] for row in rows for label in ("urgency", "issue", "tone", "wish"))
    assert not any(row["status"] == "deleted" for row in rows)


def test_figures_hold_the_trained_model_against_the_untrained_one() -> None:
    found = figures_of(FOLLOWS, IGNORES)
    assert found["separation"] > 0.9
    assert 0.5 < found["separation_low"] <= found["separation"]
    assert found["flip_rate"] > 0.9
    first = found["tasks"]["ask first"]
    assert first["own"] > 0.95 > first["others"]["second"] + 0.3
    assert first["plain"] < 0.6
    assert first["tfidf"] == 1
    assert set(first) == {"own", "plain", "tfidf", "others"}
    assert found["tasks"]["ask second"]["plain"] > 0.95
    assert found["evidence"]["above_plain"] == ["ask first"]
    assert found["evidence"]["untrained"]["separation"][0] < 0.1


def test_the_spread_is_that_of_the_task_that_depends_most_on_words() -> None:
    found = figures_of(FOLLOWS, IGNORES)
    words = found["unseen_wordings"]["ask first"]
    assert words["configured"] == words["most"] > 0.95
    assert found["paraphrase_spread"] == pytest.approx(words["most"] - words["least"])
    assert words["least"] < words["mean"] < words["most"]
    assert figures_of(IGNORES, IGNORES)["paraphrase_spread"] is None


def test_one_aspect_is_held_against_the_others() -> None:
    follows, ignores = (aspect_figures("ask first", found) for found in (FOLLOWS, IGNORES))
    assert follows["own"] > ignores["own"] + 0.3
    assert follows["separation"] > ignores["separation"] + 0.9
    assert follows["flip_rate"] > ignores["flip_rate"] + 0.9


def test_the_untrained_model_has_neither_adapter_nor_heads() -> None:
    trained = tree()
    name, task = next(iter(trained["models"])), next(iter(trained["tasks"]))
    trained["models"][name] |= {"adapter": "x", "adapter_revision": "y"}
    trained["tasks"][task] |= {"head": "z"}
    assert untrained(trained) == tree()
    assert trained["tasks"][task]["head"] == "z"


def test_a_training_is_repeated_as_its_card_says() -> None:
    settings = {**asdict(LoraSettings()), "learning_rate": 1e-3, "rank": 8}
    card = {"tasks": {"urgency": {}, "tone": {}}, "steps": {"planned": 400}, "seed": 7, "settings": settings}
    how = repeated(card, quick=False, without="tone")
    assert (how["tasks"], how["steps"], how["seed"]) == (["urgency"], 400, 7)
    assert replace(LoraSettings(seed=7), **how["settings"]) == replace(LoraSettings(**settings), seed=7)
    assert repeated(card, quick=True)["steps"] < 10
    assert with_adapter(tree(), "urgency", Path("x"))["models"]["null"] == tree()["models"]["null"] | {"adapter": "x"}


def test_the_card_is_the_configured_adapters(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    name = next(iter(tree()["models"]))
    trained = tree(**{f"models__{name}__adapter": str(tmp_path)})
    assert adapter_card(tree()) is None
    assert adapter_card(trained) is None
    (tmp_path / "card.json").write_text('{"training_s": 7}', encoding="utf-8")
    assert adapter_card(trained) == {"training_s": 7}
