"""The parts of a training: grids of texts, the loss, the split, wordings, heads, general pairs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.engine.entry import load_engine, load_tokenizer
from pipeline.engine.head_files import find_head
from pipeline.engine.heads import Heads
from pipeline.errors import ConfigError
from pipeline.quality.labels import make_label
from pipeline.quality.paraphrases import frame
from pipeline.records.batches import Float32
from pipeline.tuning.fitting import Head, HeadLesson, discriminant, fit_head, fold_kappa, shuffled
from pipeline.tuning.folder import write_head
from pipeline.tuning.general import General, general_texts, plain_pairs, recall_at_1
from pipeline.tuning.grids import GridSampler
from pipeline.tuning.loss import contrastive_loss, keeping_loss
from pipeline.tuning.split import copy_groups, split_texts
from pipeline.tuning.texts import make_classes
from pipeline.tuning.wordings import Wordings
from tests.unit.tuning.scenes import crossed_texts

_, LABELS = crossed_texts(240)
BOTH = [LABELS["urgency"], LABELS["topic"]]


def unit(rows: Float32) -> Float32:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def test_a_batch_is_a_grid_over_two_labels() -> None:
    rows = GridSampler(BOTH, np.arange(240), 24, seed=0).draw(3)
    assert len(set(rows.tolist())) == len(rows) == 24
    cells = np.unique(np.stack([label.codes[rows] for label in BOTH]), axis=1, return_counts=True)
    assert cells[1].tolist() == [4] * 6


def test_a_step_draws_the_same_texts_again_and_another_step_others() -> None:
    first, second = (GridSampler(BOTH, np.arange(240), 24, seed=0) for _ in range(2))
    assert first.draw(7).tolist() == second.draw(7).tolist() != first.draw(8).tolist()


def test_every_drawn_class_of_many_has_two_texts() -> None:
    many = make_label("many", [str(number % 60) for number in range(240)])
    for step in range(20):
        rows = GridSampler([many, LABELS["urgency"]], np.arange(240), 16, seed=1).draw(step)
        assert np.unique(many.codes[rows], return_counts=True)[1].min() >= 2


def test_texts_without_one_of_the_labels_still_learn_the_other() -> None:
    values = ["a" if number % 2 else "b" for number in range(40)]
    first = make_label("first", [*values, *[None] * 40])
    second = make_label("second", [*[None] * 40, *values])
    rows = GridSampler([first, second], np.arange(80), 16, seed=0).draw(0)
    assert len(rows) == 16


def test_texts_of_one_class_never_push_each_other_away() -> None:
    rows = nn.functional.normalize(torch.tensor([[1.0, 0.2], [1.0, 0.3], [0.9, -0.4], [-1.0, 0.1]]), dim=-1)
    codes = torch.tensor([0, 0, 0, 1])
    apart = (1.0 - rows[0] @ rows[1], 1.0 - rows[0] @ rows[2])
    similar = rows @ rows.T / 0.5
    expected = [
        np.mean([float(torch.logaddexp(similar[a, p], similar[a, 3]) - similar[a, p]) for p in range(3) if p != a])
        for a in range(3)
    ]
    assert min(apart) > 0
    assert float(contrastive_loss(rows, codes, 0.5)) == pytest.approx(np.mean(expected), rel=1e-5)


def test_a_batch_with_nothing_to_tell_apart_has_no_loss() -> None:
    rows = nn.functional.normalize(torch.randn(4, 8), dim=-1).requires_grad_()
    for codes in ([0, 0, 0, 0], [0, 1, 2, 3], [-1, -1, 0, 1]):
        assert contrastive_loss(rows, torch.tensor(codes), 0.1).item() == 0


def test_unlabelled_texts_take_no_part() -> None:
    rows = nn.functional.normalize(torch.randn(6, 8), dim=-1)
    whole = contrastive_loss(rows, torch.tensor([0, 0, 1, 1, -1, -1]), 0.1)
    assert float(whole) == pytest.approx(float(contrastive_loss(rows[:4], torch.tensor([0, 0, 1, 1]), 0.1)))


def test_keeping_is_free_where_nothing_moved() -> None:
    rows = nn.functional.normalize(torch.randn(6, 8), dim=-1)
    assert float(keeping_loss(rows, rows, 0.1)) == pytest.approx(0, abs=1e-6)
    assert float(keeping_loss(rows.flip(0), rows, 0.1)) > 0.1


def test_a_split_gives_every_combination_its_share() -> None:
    split = split_texts(BOTH, np.arange(240), seed=0)
    assert [len(split.train), len(split.select), len(split.report)] == [168, 36, 36]
    assert sorted([*split.train, *split.select, *split.report]) == list(range(240))
    cells = BOTH[0].codes * 3 + BOTH[1].codes
    assert np.bincount(cells[split.report]).tolist() == [6] * 6
    assert split_texts(BOTH, np.arange(240), seed=1).report.tolist() != split.report.tolist()


def test_near_copies_stay_in_one_fold_and_are_counted() -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(240, 16)).astype(np.float32)
    vectors[200:] = vectors[:40] + random.normal(size=(40, 16)).astype(np.float32) * 0.01
    groups = copy_groups(unit(vectors + 3))
    assert (groups[200:] == groups[:40]).all()
    assert len(np.unique(groups)) == 200
    split = split_texts(BOTH, groups, seed=0)
    folds = np.empty(240)
    for number, rows in enumerate((split.train, split.select, split.report)):
        folds[rows] = number
    assert (folds[200:] == folds[:40]).all()
    assert split.num_copies == 80
    assert split.num_moved > 0


def test_the_instruction_as_configured_is_drawn_more_often_than_another_wording() -> None:
    wordings = Wordings({"t": "How urgent is this?"}, {"t": ["Urgency", "Haste"]})
    random = np.random.default_rng(0)
    drawn = [wordings.draw("t", random) for _ in range(400)]
    assert set(drawn) == {wordings.prompt("t", number) for number in range(len(wordings.by_task["t"]))}
    assert drawn.count("t") > 400 / 4
    assert wordings.by_task["t"][:3] == ["How urgent is this?", "Urgency", "Haste"]


def test_an_evaluation_asks_in_other_words_than_a_training() -> None:
    trained = Wordings({"t": "How urgent is this"}, {}).by_task["t"]
    assert not set(frame("How urgent is this")) & set(trained)


def clouds(*, seed: int = 0) -> tuple[Float32, HeadLesson]:
    """Vectors in which both labels show, the other one more strongly."""
    random = np.random.default_rng(seed)
    codes = np.stack([label.codes for label in BOTH])
    vectors = random.normal(size=(240, 16)) * 0.5
    vectors[:, 0] += codes[0] * 2.0
    vectors[:, 1:4] += np.eye(3)[codes[1]] * 4
    found = unit((vectors + 1).astype(np.float32))
    split = split_texts(BOTH, np.arange(240), seed=0)
    return found, HeadLesson(found, BOTH[0], BOTH[1:], split.train, split.select, 16)


def test_a_head_tells_its_own_label_and_not_the_other() -> None:
    vectors, lesson = clouds()
    head = fit_head(lesson, seed=0)
    rows = split_texts(BOTH, np.arange(240), seed=0).report
    behind = head.apply(vectors[rows])
    assert fold_kappa(behind, BOTH[0], rows) > fold_kappa(vectors[rows], BOTH[0], rows) + 0.1
    assert fold_kappa(behind, BOTH[1], rows) < 0.3 < fold_kappa(vectors[rows], BOTH[1], rows)
    assert (fit_head(lesson, seed=0).weight == head.weight).all()


def test_shuffled_labels_land_at_chance() -> None:
    vectors, lesson = clouds()
    kappas = []
    for seed in range(4):
        dealt = shuffled({"own": BOTH[0], "other": BOTH[1]}, seed=seed)
        head = fit_head(HeadLesson(vectors, dealt["own"], [dealt["other"]], lesson.train, lesson.select, 16), seed=0)
        rows = split_texts(BOTH, np.arange(240), seed=0).report
        kappas.append(fold_kappa(head.apply(vectors[rows]), dealt["own"], rows))
    assert abs(np.mean(kappas)) < 0.25


def test_discriminants_stand_first_so_that_a_head_can_be_cut() -> None:
    vectors, _ = clouds()
    weight = discriminant(vectors, BOTH[1].codes, shrinkage=0.1, rest=0.3)
    rows = np.arange(240)
    assert fold_kappa(Head(weight, "", 0.0).apply(vectors, 2), BOTH[1], rows) > 0.8
    assert fold_kappa(unit(vectors @ weight[5:].T), BOTH[1], rows) < 0.3


def test_a_head_is_a_dense_module_of_sentence_transformers(tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.modules import Dense  # noqa: PLC0415 - slow to import

    vectors, lesson = clouds()
    head = fit_head(lesson, seed=0)
    write_head(tmp_path / "head", head)
    dense = Dense.load(str(tmp_path / "head"))
    theirs = dense({"sentence_embedding": torch.from_numpy(vectors)})["sentence_embedding"].detach().numpy()
    assert (unit(theirs) * head.apply(vectors)).sum(axis=1).min() >= 0.99999
    served = find_head("t", TaskConfig(model="m", head=tmp_path / "head"))
    assert served is not None
    heads = Heads(torch.device("cpu"))
    assert (heads.run(served, heads.unit(vectors), 4) * head.apply(vectors, 4)).sum(axis=1).min() >= 0.99999


def test_fractions_spelt_as_text_are_no_classes() -> None:
    with pytest.raises(ConfigError, match="numbers with a fraction"):
        make_classes("score", [f"{number / 7:.3f}" for number in range(1, 40)])
    assert make_classes("version", ["1.0", "2.0", "three"] * 8).classes == ("1.0", "2.0", "three")


def test_recall_counts_queries_that_find_their_own_passage() -> None:
    rows = np.eye(4, dtype=np.float32)
    assert recall_at_1(rows, rows[[0, 1, 3, 2]]) == 0.5
    assert General(0.8, 0.76).is_kept
    assert not General(0.8, 0.74).is_kept


def test_general_texts_are_neither_tickets_nor_what_general_ability_is_measured_on() -> None:
    texts, pairs = general_texts(), plain_pairs()
    assert len(set(texts)) == len(texts) >= 600
    assert "ticket" not in " ".join(texts).casefold()
    measured = {
        tuple(text.casefold().split()[at : at + 6]) for text in [*pairs.queries, *pairs.passages] for at in range(40)
    }
    mine = {tuple(text.casefold().split()[at : at + 6]) for text in texts for at in range(40)}
    assert not {gram for gram in measured & mine if len(gram) == 6}


def test_the_plain_model_finds_most_plain_pairs_but_not_all() -> None:
    pairs = plain_pairs()
    assert len(set(pairs.queries)) == len(set(pairs.passages)) == len(pairs.queries) >= 300
    assert "ticket" not in json.dumps([*pairs.queries, *pairs.passages]).casefold()
    model = ModelConfig(
        model="packaged:all-MiniLM-L6-v2", overrides={"instruction_style": "none"}, device="cpu", dtype="float32"
    )
    tasks = {"t": TaskConfig(model="m")}
    engine, tokenizer = load_engine(model, tasks), load_tokenizer(model, tasks)
    queries, passages = (engine.embed(tokenizer.encode(t, ["t"]))[0] for t in (pairs.queries, pairs.passages))
    assert 0.6 <= recall_at_1(queries, passages) <= 0.9
