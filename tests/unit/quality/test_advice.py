"""What is said of instructions before anything is measured."""

import pytest

from pipeline.quality.instructions import Asked, instruction_advice, is_vague


def asked(task: str, instruction: str | None, **others: object) -> Asked:
    known: dict[str, object] = {
        "model": "m",
        "query_instruction": None,
        "mode": "symmetric",
        "is_free": True,
    }
    return Asked(task=task, instruction=instruction, **(known | others))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "instruction",
    [
        "Category prediction:",
        "Determine the class for the given passage:",
        "Instruction for clustering",
        "Classify this text",
        "Represent the sentence",
        "Retrieve semantically similar text.",
        "Identify the category of the documents based on their content",
        "",
    ],
)
def test_an_instruction_that_fits_every_text_is_vague(instruction: str) -> None:
    assert is_vague(instruction)
    (line,) = instruction_advice([asked("t", instruction)])
    assert line.startswith("tasks.t.instruction: names neither an aspect nor the kind of text")


@pytest.mark.parametrize(
    "instruction",
    [
        "How urgent is this support ticket",
        "Classify the sentiment of this tweet:",
        "Assign each title to a cluster",
        "What is the technical issue in this support ticket",
        "Given a web search query, retrieve relevant passages that answer the query",
        "Klassifiziere den Text nach seiner Dringlichkeit",
        "Classify the tone",
        "分类",
    ],
)
def test_an_instruction_that_names_an_aspect_or_a_kind_of_text_is_not(instruction: str) -> None:
    assert not is_vague(instruction)
    assert instruction_advice([asked("t", instruction)]) == []


def test_labels_and_prefixes_of_models_are_not_judged() -> None:
    assert instruction_advice([asked("t", "clustering", is_free=False)]) == []


def test_a_task_without_an_instruction_asks_for_none() -> None:
    assert instruction_advice([asked("t", None)]) == []


def test_the_queries_instruction_is_judged_too() -> None:
    found = instruction_advice([asked("t", None, query_instruction="Find similar texts", mode="retrieval")])
    assert [line.split(":")[0] for line in found] == ["tasks.t.query_instruction"]


def test_two_tasks_that_ask_the_same_are_named() -> None:
    found = instruction_advice(
        [
            asked("one", "How urgent is this ticket?"),
            asked("two", "How  URGENT is the ticket"),
            asked("three", "Tone of the ticket"),
        ]
    )
    assert len(found) == 1
    assert found[0].startswith("tasks.two: asks the same of the same model as tasks.one")


@pytest.mark.parametrize(
    "others",
    [{"model": "n"}, {"mode": "retrieval"}, {"query_instruction": "Who waits for this ticket"}, {"has_head": True}],
)
def test_what_tells_tasks_apart(others: dict[str, object]) -> None:
    instruction = "How urgent is this ticket"
    assert instruction_advice([asked("one", instruction), asked("two", instruction, **others)]) == []
    assert instruction_advice([asked("two", instruction, **others), asked("one", instruction)]) == []


def test_two_plain_tasks_ask_the_same() -> None:
    assert len(instruction_advice([asked("one", None), asked("two", None)])) == 1


def test_labels_of_models_are_compared_as_they_are() -> None:
    tasks = [asked(name, name, is_free=False) for name in ("search_document", "clustering")]
    assert instruction_advice(tasks) == []
