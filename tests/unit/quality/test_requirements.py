"""Bounds for scripts: the whole interval must keep them."""

from dataclasses import replace

import pytest

from pipeline.errors import ConfigError
from pipeline.quality.estimates import Estimate
from pipeline.quality.evaluation import Evaluation
from pipeline.quality.requirements import Requirement, find_misses, parse_requirement
from tests.unit.quality import scenes


@pytest.fixture
def following() -> Evaluation:
    return scenes.following()


def misses(evaluation: Evaluation, *texts: str) -> list[str]:
    return find_misses(evaluation, [parse_requirement(text) for text in texts])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("separation>0", Requirement("separation", None, ">", 0)),
        (" flip_rate >= .5 ", Requirement("flip_rate", None, ">=", 0.5)),
        ("accuracy.how_urgent>=0.6", Requirement("accuracy", "how_urgent", ">=", 0.6)),
        ("paraphrase_spread<5e-2", Requirement("paraphrase_spread", None, "<", 0.05)),
        ("separation>-1", Requirement("separation", None, ">", -1)),
    ],
)
def test_requirements_are_read(text: str, expected: Requirement) -> None:
    assert parse_requirement(text) == expected
    assert parse_requirement(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected a figure, one of > >= < <="),
        ("separation", "expected a figure"),
        ("separation=0", "expected a figure"),
        ("separation>high", "expected a number after >"),
        ("separation>nan", "expected a number after >"),
        ("seperation>0", "Did you mean 'separation'"),
        ("separation.urgency>0", "unknown figure"),
    ],
)
def test_wrong_requirements_say_what_was_expected(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_requirement(text)


def test_the_lower_end_must_exceed_a_lower_bound() -> None:
    found = replace(scenes.blind(), separation=Estimate(0.5, 0.2, 0.8))
    assert misses(found, "separation>0.1", "separation>=0.2", "separation<0.9", "separation<=0.8") == []
    assert misses(found, "separation>0.2") == ["separation>0.2: separation is 0.500, from 0.200 to 0.800"]
    assert len(misses(found, "separation>0.3", "separation<0.7", "separation<0.8")) == 3


def test_instructions_that_do_their_job_pass_and_others_fail(following: Evaluation) -> None:
    wanted = ("separation>0", "flip_rate>0.5", "gain>0", "accuracy>=0.9", "kappa.which_issue>0.5", "v_measure>0.5")
    assert misses(following, *wanted) == []
    assert misses(scenes.blind(), "separation>0", "flip_rate>0")


def test_without_a_task_every_task_must_keep_the_bound(following: Evaluation) -> None:
    found = misses(following, "accuracy>1.5", "accuracy.how_urgent>1.5")
    assert [line.split(" is ")[0] for line in found] == [
        "accuracy>1.5: accuracy.how_urgent",
        "accuracy>1.5: accuracy.which_issue",
        "accuracy.how_urgent>1.5: accuracy.how_urgent",
    ]


def test_the_spread_of_wordings_can_be_bounded(following: Evaluation) -> None:
    assert misses(following, "paraphrase_spread<=1") == []
    assert misses(following, "paraphrase_spread<0.001")


@pytest.mark.parametrize("text", ["gain>0", "gain.how_urgent>0", "paraphrase_spread<1", "recall>0", "accuracy.other>0"])
def test_what_was_not_measured_is_missed(text: str) -> None:
    assert misses(scenes.blind(), text) == [f"{parse_requirement(text)}: was not measured"]
