"""A whole evaluation: the matrix, its controls, and a report that goes to JSON."""

from dataclasses import replace

import numpy as np
import orjson
import pytest

from pipeline.quality.estimates import Estimate, Resampler
from pipeline.quality.evaluation import Evaluation, PromptKind, RetrievalReport
from pipeline.quality.evaluator import Evaluator, Settings
from pipeline.quality.neighbours import find_neighbours
from pipeline.quality.retrieval import measure_retrieval
from pipeline.records.batches import Float32
from tests.unit.quality import scenes
from tests.unit.quality.made import around, label, noise
from tests.unit.quality.scenes import FOLLOWING, ISSUE, KEYS, LABELS, NUM_TEXTS, ROWS, SETTINGS, URGENCY, evaluator


@pytest.fixture
def following() -> Evaluation:
    return scenes.following()


def test_the_matrix_holds_every_instruction_against_every_label(following: Evaluation) -> None:
    accuracy = {row.name: {one.label: one.accuracy.value for one in row.scores} for row in following.matrix}
    assert list(accuracy) == ["how_urgent", "which_issue", "no instruction"]
    assert accuracy["how_urgent"]["urgency"] == accuracy["which_issue"]["issue"] == 1
    assert accuracy["how_urgent"]["issue"] < 0.4
    assert accuracy["no instruction"]["urgency"] < 0.5
    assert [row.own_label for row in following.matrix] == ["urgency", "issue", None]
    clusters = following.matrix[0].scores[0].v_measure
    assert clusters is not None
    assert (clusters.low, clusters.high) == pytest.approx((1, 1))


def test_headlines_are_means_over_pairs_and_tasks(following: Evaluation) -> None:
    (pair,) = following.pairs
    assert following.separation is not None
    assert following.separation.value == pytest.approx(np.mean([one.difference.value for one in pair.separations]))
    assert pair.flip is not None
    assert following.flip_rate == pair.flip.rate
    gains = [
        one.gain.value for task in following.tasks for one in task.controls if one.kind is PromptKind.NO_INSTRUCTION
    ]
    assert following.gain is not None
    assert following.gain.value == pytest.approx(np.mean(gains))


def test_vectors_that_ignore_instructions_have_no_separation_and_never_flip() -> None:
    found = scenes.blind()
    assert found.separation is not None
    assert found.separation.value == pytest.approx(0, abs=1e-9)
    assert found.flip_rate == Estimate(0, 0, 0)


def test_a_task_is_compared_with_controls_and_with_other_instructions(following: Evaluation) -> None:
    controls = {one.name: one for one in following.tasks[0].controls}
    assert {name: one.kind for name, one in controls.items()} == {
        "no instruction": PromptKind.NO_INSTRUCTION,
        "which_issue": PromptKind.ANOTHER_TASK,
    }
    for one in controls.values():
        assert one.gain.value == pytest.approx(following.tasks[0].own.accuracy.value - one.accuracy.value)
        assert one.gain.low > 0.3


def test_a_control_counts_for_the_tasks_it_is_one_for() -> None:
    found = evaluator()
    found.add_control("no instruction", PromptKind.NO_INSTRUCTION, noise(NUM_TEXTS), ["how_urgent"])
    first, second = found.finish(ROWS, KEYS).tasks
    assert PromptKind.NO_INSTRUCTION in {one.kind for one in first.controls}
    assert PromptKind.NO_INSTRUCTION not in {one.kind for one in second.controls}


def test_words_stand_beside_each_own_label(following: Evaluation) -> None:
    for task in following.tasks:
        assert task.words is not None
        assert (task.words.label, task.words.accuracy.value) == (task.own.label, 1)


def test_wordings_are_told_from_least_to_most_and_the_configured_one_is_among_them(following: Evaluation) -> None:
    found = following.tasks[0].paraphrases
    assert found is not None
    assert [one.text for one in found.wordings] == ["How urgent is this ticket", "Say how urgent it is"]
    values = [one.accuracy.value for one in found.wordings]
    assert (found.least, found.most) == (values[1], values[0])
    assert found.mean == pytest.approx(np.mean(values))
    assert found.spread == values[0] - values[1] > 0
    assert following.tasks[1].paraphrases is None


def test_one_label_has_a_gain_and_no_separation() -> None:
    found = Evaluator(LABELS[:1], NUM_TEXTS, SETTINGS)
    found.add_task("how_urgent", "urgency", FOLLOWING["how_urgent"])
    found.add_control("no instruction", PromptKind.NO_INSTRUCTION, noise(NUM_TEXTS), ["how_urgent"])
    evaluation = found.finish(ROWS, KEYS)
    assert (evaluation.separation, evaluation.flip_rate, evaluation.pairs) == (None, None, ())
    assert evaluation.gain is not None
    assert evaluation.gain.low > 0.3


def test_two_tasks_of_one_label_share_its_column() -> None:
    found = Evaluator(LABELS[:1], NUM_TEXTS, SETTINGS)
    for name in ("one", "two"):
        found.add_task(name, "urgency", FOLLOWING["how_urgent"])
    evaluation = found.finish(ROWS, KEYS)
    assert [len(row.scores) for row in evaluation.matrix] == [1, 1]
    assert evaluation.pairs[0].reason is not None


def test_labels_say_what_is_thin_unlabelled_and_contradicted() -> None:
    codes = URGENCY.copy()
    codes[:5] = -1
    codes[5:8] = 9
    found = Evaluator([label("urgency", codes), LABELS[1]], NUM_TEXTS, SETTINGS)
    found.add_task("how_urgent", "urgency", around(URGENCY))
    report, _ = found.finish(ROWS, KEYS, contradicted={"urgency": 2}).labels
    assert (report.num_texts, report.num_unlabelled, report.num_contradicted) == (NUM_TEXTS - 5, 5, 2)
    assert report.thin == (("urgency-09", 3),)


def test_unlabelled_texts_are_neither_judged_nor_neighbours() -> None:
    codes = URGENCY.copy()
    codes[::2] = -1
    known = label("urgency", codes)
    vectors = around(URGENCY)
    vectors[::2] = around(2 - URGENCY)[::2]  # were they neighbours, they would mislead
    found = Evaluator([known, LABELS[1]], NUM_TEXTS, SETTINGS)
    found.add_task("how_urgent", "urgency", vectors)
    (task,) = found.finish(ROWS, KEYS).tasks
    assert (task.own.num_texts, task.own.accuracy.value) == (NUM_TEXTS // 2, 1)


def test_worst_texts_are_those_whose_neighbours_disagree_under_most_tasks() -> None:
    wrong_urgency, wrong_issue = URGENCY.copy(), ISSUE.copy()
    wrong_urgency[[3, 7]] = (URGENCY[[3, 7]] + 1) % 3
    wrong_issue[7] = (ISSUE[7] + 1) % 4
    found = Evaluator([label("urgency", wrong_urgency), label("issue", wrong_issue)], NUM_TEXTS, SETTINGS)
    found.add_task("how_urgent", "urgency", around(URGENCY))
    found.add_task("which_issue", "issue", around(ISSUE, seed=5))
    evaluation = found.finish(ROWS, KEYS)
    assert [one.key for one in evaluation.worst] == ["T-7", "T-3"]
    worst = evaluation.worst[1].tasks
    assert (worst["how_urgent"].label, worst["how_urgent"].predicted) == (
        f"urgency-{wrong_urgency[3]:02}",
        f"urgency-{URGENCY[3]:02}",
    )
    assert worst["which_issue"].label == worst["which_issue"].predicted
    near = find_neighbours(around(URGENCY), 5).rows[3].tolist()
    assert [one.row for one in worst["how_urgent"].neighbours] == near
    assert [one.key for one in worst["how_urgent"].neighbours] == [KEYS[row] for row in near]


def test_worst_texts_are_bounded() -> None:
    found = Evaluator(LABELS, NUM_TEXTS, replace(SETTINGS, num_worst=4))
    found.add_task("how_urgent", "urgency", noise(NUM_TEXTS))
    assert len(found.finish(ROWS, KEYS).worst) == 4


def test_the_report_goes_to_json_and_holds_no_text(following: Evaluation) -> None:
    written = orjson.dumps(following.tree())
    read = orjson.loads(written)
    assert read["separation"]["value"] == following.separation.value  # type: ignore[union-attr]
    assert read["matrix"][2]["kind"] == "no_instruction"
    assert read["tasks"][0]["paraphrases"]["spread"] == following.tasks[0].paraphrases.spread  # type: ignore[union-attr]
    assert b"text7" not in written


def test_undefined_figures_are_null_in_json(following: Evaluation) -> None:
    undefined = replace(following, separation=Estimate(0.5, float("nan"), float("nan")))
    assert undefined.tree()["separation"] == {"value": 0.5, "low": None, "high": None}


def test_equal_seeds_give_equal_reports() -> None:
    again = scenes.following.__wrapped__()
    assert again is not scenes.following()
    assert again.tree() == scenes.following().tree()


def test_retrieval_stands_in_the_report() -> None:
    found = evaluator()
    queries, records = noise(5, seed=1), noise(50, seed=2)
    figures = measure_retrieval(queries, records, [np.array([3])] * 5, 10, Resampler(5, replicates=10, seed=0))
    found.add_retrieval(RetrievalReport("answers", figures, None, num_unknown=2))
    assert found.finish(ROWS, KEYS).tree()["retrieval"][0]["found"]["num_queries"] == 5


@pytest.mark.parametrize(
    "vectors",
    [
        noise(NUM_TEXTS - 1),
        noise(NUM_TEXTS).astype(np.float64),
        noise(NUM_TEXTS)[0],
        noise(NUM_TEXTS) * np.float32(np.nan),
    ],
)
def test_vectors_of_another_shape_or_that_are_not_finite_are_refused(vectors: Float32) -> None:
    found = evaluator()
    with pytest.raises(ValueError, match=r"^vectors"):
        found.add_task("t", "urgency", vectors)
    with pytest.raises(ValueError, match=r"^vectors"):
        found.add_control("c", PromptKind.GENERIC, vectors, [])
    with pytest.raises(ValueError, match=r"^vectors"):
        found.add_wording("how_urgent", "w", vectors)


def test_two_hundred_classes_work() -> None:
    codes = np.arange(1_000) % 200
    found = Evaluator([label("issue", codes)], 1_000, Settings(replicates=20))
    found.add_task("which_issue", "issue", around(codes))
    (task,) = found.finish(replace(ROWS, num_texts=1_000), [str(row) for row in range(1_000)]).tasks
    assert task.own.accuracy.value > 0.95
    assert len(task.confusion.classes) == 200
