"""An evaluation in plain words."""

from dataclasses import replace

import pytest

from pipeline.quality.estimates import Estimate
from pipeline.quality.evaluation import Evaluation, PromptKind
from pipeline.quality.evaluator import Evaluator
from pipeline.quality.verdict import Answer, judge, notes
from tests.unit.quality import scenes
from tests.unit.quality.made import label, noise
from tests.unit.quality.scenes import FOLLOWING, KEYS, LABELS, NUM_TEXTS, ROWS, SETTINGS, URGENCY, evaluator


@pytest.fixture
def following() -> Evaluation:
    return scenes.following()


def test_instructions_that_do_their_job() -> None:
    assert judge(scenes.following()).answer is Answer.YES


def test_instructions_that_change_nothing() -> None:
    verdict = judge(scenes.blind())
    assert verdict.answer is Answer.NO
    assert "separation 0.00 (0.00 to 0.00), flip rate 0.00 (0.00 to 0.00)" in verdict.reason


@pytest.mark.parametrize(
    ("separation", "flips", "answer"),
    [
        (Estimate(0.2, 0.1, 0.3), Estimate(0.4, 0.3, 0.5), Answer.YES),
        (Estimate(0.2, 0.1, 0.3), Estimate(0.26, 0.2, 0.3), Answer.PARTLY),
        (Estimate(0.2, 0.1, 0.3), Estimate(0.1, 0.05, 0.15), Answer.NO),
        (Estimate(0.2, 0.0, 0.3), Estimate(0.4, 0.3, 0.5), Answer.NO),
    ],
)
def test_the_answer_takes_separation_and_flip_rate(
    following: Evaluation, separation: Estimate, flips: Estimate, answer: Answer
) -> None:
    assert judge(replace(following, separation=separation, flip_rate=flips)).answer is answer


def test_a_label_that_is_told_better_without_an_instruction_is_named() -> None:
    found = Evaluator(LABELS, NUM_TEXTS, SETTINGS)
    found.add_task("how_urgent", "urgency", FOLLOWING["how_urgent"])
    found.add_task("which_issue", "issue", noise(NUM_TEXTS))
    found.add_control("no instruction", PromptKind.NO_INSTRUCTION, FOLLOWING["which_issue"], ["which_issue"])
    verdict = judge(found.finish(ROWS, KEYS))
    assert verdict.answer is Answer.PARTLY
    assert "better without an instruction for which_issue" in verdict.reason


@pytest.mark.parametrize(("helps", "answer"), [(True, Answer.YES), (False, Answer.NO)])
def test_with_one_label_it_is_the_gain_that_counts(helps: bool, answer: Answer) -> None:  # noqa: FBT001
    found = Evaluator(LABELS[:1], NUM_TEXTS, SETTINGS)
    found.add_task("how_urgent", "urgency", FOLLOWING["how_urgent"] if helps else noise(NUM_TEXTS))
    found.add_control("no instruction", PromptKind.NO_INSTRUCTION, noise(NUM_TEXTS), ["how_urgent"])
    assert judge(found.finish(ROWS, KEYS)).answer is answer


def test_nothing_to_compare_with_is_no_answer() -> None:
    found = Evaluator(LABELS[:1], NUM_TEXTS, SETTINGS)
    found.add_task("how_urgent", "urgency", FOLLOWING["how_urgent"])
    assert judge(found.finish(ROWS, KEYS)).answer is Answer.UNKNOWN
    without_labels = judge(Evaluator([], NUM_TEXTS, SETTINGS).finish(ROWS, KEYS))
    assert (without_labels.answer, without_labels.reason) == (Answer.UNKNOWN, "There is no label.")


def test_rows_that_were_left_out_are_told() -> None:
    rows = replace(ROWS, num_read=1_000_000, is_whole=False, num_refused=7, num_empty=3, num_equal=12, num_absent=4)
    lines = "\n".join(notes(evaluator().finish(rows, KEYS)))
    assert "a sample of 144 distinct texts out of 1,000,000 rows (seed 0)" in lines
    assert "12 rows have the text of another row" in lines
    assert "4 points are not in the collection of every task" in lines
    assert "7 rows make no record and were left out, 3 for a blank text" in lines


def test_weak_labels_are_told() -> None:
    codes = URGENCY.copy()
    codes[:5] = -1
    codes[5:8] = 9
    found = Evaluator([label("urgency", codes), LABELS[1]], NUM_TEXTS, SETTINGS)
    found.add_task("how_urgent", "urgency", FOLLOWING["how_urgent"])
    found.add_task("which_issue", "issue", FOLLOWING["which_issue"])
    lines = "\n".join(notes(found.finish(ROWS, KEYS, contradicted={"urgency": 2})))
    assert "label 'urgency': 5 texts have no value" in lines
    assert "label 'urgency': 2 texts occur again with another value" in lines
    assert "1 of 4 values have fewer than 8 texts, so their figures mean little: urgency-09 (3)" in lines
    assert "rare combinations of values were left out: urgency-09 with issue" in lines


def test_labels_that_go_together_are_told() -> None:
    found = Evaluator([LABELS[0], label("issue", URGENCY)], NUM_TEXTS, SETTINGS)
    found.add_task("how_urgent", "urgency", noise(NUM_TEXTS))
    found.add_task("which_issue", "issue", noise(NUM_TEXTS))
    lines = "\n".join(notes(found.finish(ROWS, KEYS)))
    assert "how_urgent and which_issue: not compared; " in lines


def test_words_that_do_better_than_an_instruction_are_told() -> None:
    found = evaluator({"how_urgent": noise(NUM_TEXTS), "which_issue": FOLLOWING["which_issue"]})
    found.add_texts(scenes.TEXTS)
    lines = [line for line in notes(found.finish(ROWS, KEYS)) if "words alone" in line]
    assert len(lines) == 1
    assert lines[0].startswith("how_urgent: words alone tell 'urgency' better (1.00) than ")


def test_nothing_is_told_of_full_and_plain_data(following: Evaluation) -> None:
    assert notes(following) == []
