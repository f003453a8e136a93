"""`refract evaluate` on the null engine: what is embedded, what is told, and what a script gets."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import Session
from pipeline.engine.entry import instruction_form
from pipeline.errors import ConfigError, RefractError
from pipeline.quality.evaluation import PromptKind
from pipeline.quality.paraphrases import FRAMES
from pipeline.records.batches import Float32
from pipeline.usecases import evaluate as module
from pipeline.usecases.evaluate import EvaluateReport, EvaluateRequest
from pipeline.usecases.variants import Variants
from tests.unit.labelled_rows import ISSUES, URGENCIES, config, rows, write

LABELS = {"technical_issue": "issue"}
Run = Callable[..., EvaluateReport]


@pytest.fixture
def tickets(tmp_path: Path) -> str:
    return write(tmp_path / "tickets.jsonl", rows())


@pytest.fixture
def run(tmp_path: Path, tickets: str) -> Run:
    """Evaluates the tickets under a changed configuration."""

    def evaluate(changes: dict[str, Any] | None = None, **request: Any) -> EvaluateReport:
        with Session.of(config(tmp_path, **changes or {})) as refract:
            return refract.evaluate(EvaluateRequest(**{"inputs": [tickets], "labels": LABELS} | request))

    return evaluate


def told(text: str) -> Float32:
    """A vector for the urgency of a text, and one for its issue."""
    issue, urgency = text.rsplit("\n", maxsplit=1)[-1].split(" is ")
    found = np.zeros((2, 384), np.float32)
    found[0, URGENCIES.index(urgency)] = found[1, 2 + ISSUES.index(issue)] = 1
    return found


def follow_instructions(_context: object, name: str, texts: list[str], **_: object) -> Float32:
    """An engine that reads the task's name; for any other prompt it says both labels."""
    rows_of = np.stack([told(text) for text in texts])
    noise = np.random.default_rng(len(texts)).normal(0, 0.005, (len(texts), 384))
    found = {"urgency": rows_of[:, 0], "technical_issue": rows_of[:, 1]}.get(name, rows_of.sum(axis=1)) + noise
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def test_every_instruction_and_every_control_is_held_against_every_label(run: Run) -> None:
    found = run().evaluation
    assert [(row.name, row.kind, row.own_label) for row in found.matrix] == [
        ("urgency", PromptKind.TASK, "urgency"),
        ("technical_issue", PromptKind.TASK, "issue"),
        ("no instruction", PromptKind.NO_INSTRUCTION, None),
        ("nonsense", PromptKind.NONSENSE, None),
        ("generic", PromptKind.GENERIC, None),
    ]
    assert [score.label for score in found.matrix[0].scores] == ["urgency", "issue"]
    assert found.rows.num_texts == 60
    assert found.tasks[0].words is not None
    assert found.tasks[0].words.accuracy.value > 0.9


def test_the_null_engine_follows_no_instruction(run: Run) -> None:
    found = run()
    assert found.tree()["answer"] == "no"
    assert found.evaluation.separation is not None
    assert found.evaluation.separation.low < 0


def test_vectors_that_follow_their_instruction_are_told_from_those_that_do_not(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "embed", follow_instructions)
    found = run()
    assert found.tree()["answer"] == "yes"
    assert found.evaluation.flip_rate is not None
    assert found.evaluation.flip_rate.low > 0.9


def test_controls_can_be_left_out(run: Run) -> None:
    found = run(controls=False).evaluation
    assert [row.kind for row in found.matrix] == [PromptKind.TASK, PromptKind.TASK]
    assert found.gain is None


def test_controls_are_of_the_model_and_size_of_their_tasks(run: Run) -> None:
    found = run({"tasks__urgency__dimension": 128}).evaluation
    names = [row.name for row in found.matrix if row.kind is PromptKind.NO_INSTRUCTION]
    assert names == ["no instruction (urgency)", "no instruction (technical_issue)"]
    for task in found.tasks:
        plain = [one.name for one in task.controls if one.kind is PromptKind.NO_INSTRUCTION]
        assert plain == [f"no instruction ({task.name})"]


def test_a_task_without_an_instruction_has_no_controls(run: Run) -> None:
    found = run({"tasks__urgency": {"model": "null"}}).evaluation
    assert {one.kind for one in found.tasks[0].controls} == {PromptKind.ANOTHER_TASK}


def test_wordings_come_from_a_file_or_are_built_in(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text("urgency: ['How much does it hurry?', Say the urgency]\n", encoding="utf-8")
    urgency, issue = run(paraphrases=path).evaluation.tasks
    assert urgency.paraphrases is not None
    assert [one.text for one in urgency.paraphrases.wordings] == [
        "How urgent is this support ticket",
        "How much does it hurry?",
        "Say the urgency",
    ]
    assert issue.paraphrases is None
    for task in run(reword=True).evaluation.tasks:
        assert task.paraphrases is not None
        assert len(task.paraphrases.wordings) == 1 + len(FRAMES)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"urgncy: [a]", "Did you mean 'urgency'"),
        (b"a: [", "line 1"),
        (b"\xff\xfe\xfa", "not UTF-8"),
        (None, "cannot be read"),
    ],
)
def test_a_wrong_file_of_wordings_is_refused_before_anything_is_embedded(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, words: str
) -> None:
    monkeypatch.setattr(module, "embed", None)
    path = tmp_path / "w.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"--paraphrases .*w.yaml.*{words}"):
        run(paraphrases=path)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (
            {"labels": {"technical_issue": "isue"}},
            "label column 'isue': no row of the input has it. Did you mean 'issue'",
        ),
        ({"labels": {}}, "label column 'technical_issue': no row of the input has it"),
        ({"labels": {"urgncy": "urgency"}}, "--label: 'urgncy' is not evaluated .*Did you mean 'urgency'"),
        ({"labels": {"technical_issue": "status"}}, "label 'status': all 60 labelled rows say 'open'"),
        ({"labels": {"technical_issue": "id"}}, "label 'id': 60 values in 60 rows"),
        ({"tasks": ["urgency"]}, "--label: 'technical_issue' is not evaluated"),
        ({"tasks": ["urgncy"]}, "Did you mean 'urgency'"),
        ({"inputs": []}, "name at least one INPUT, or --stored"),
        ({"topic": "other"}, "other"),
        ({"stored": True}, "--stored embeds nothing, so it goes without inputs"),
        ({"stored": True, "inputs": [], "reword": True}, "goes without --reword"),
        ({"queries": Path("q.jsonl")}, "--queries: no task with mode: retrieval"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_embedded(
    run: Run, monkeypatch: pytest.MonkeyPatch, request_: dict[str, Any], words: str
) -> None:
    monkeypatch.setattr(module, "embed", None)
    with pytest.raises(ConfigError, match=words):
        run(**request_)


def test_a_label_of_another_topics_task_says_whose_it_is(run: Run) -> None:
    topics = {"tickets": {}, "reviews": {"key": "id", "text": "{body}", "version": "v", "tasks": ["tone"]}}
    changes: dict[str, Any] = {"tasks__tone": {"model": "null", "instruction": "The tone of this review"}}
    changes["source__topics__reviews"] = topics["reviews"]
    with pytest.raises(
        ConfigError, match=r"--label: 'tone' is not evaluated with topic 'tickets'; it is a task of reviews"
    ):
        run(changes, labels={"tone": "tone"}, topic="tickets")


def test_two_rows_are_too_few(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="label 'urgency': all 2 labelled rows say 'high'"):
        run(inputs=[write(tmp_path / "two.jsonl", rows(2))])
    with pytest.raises(ConfigError, match="8 of 8 rows have a value; expected at least 10"):
        run(inputs=[write(tmp_path / "eight.jsonl", rows(8))])


def test_a_text_without_a_finite_vector_is_left_out_and_counted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(context: object, name: str, texts: list[str], **others: object) -> Float32:
        found = follow_instructions(context, name, texts, **others)
        found[[text.startswith("ticket 7\n") for text in texts]] = np.nan
        return found

    monkeypatch.setattr(module, "embed", broken)
    found = run().evaluation
    assert (found.rows.num_texts, found.rows.num_refused) == (59, 1)
    assert found.tasks[0].own.accuracy.value == 1


RETRIEVAL = {"mode": "retrieval", "model": "null", "instruction": "Find the answer"}
ANSWERS = {"tasks__answers": RETRIEVAL, "source__topics__tickets__tasks": ["urgency", "answers"]}


def lines(tmp_path: Path, *queries: dict[str, Any]) -> Path:
    return Path(write(tmp_path / "q.jsonl", queries))


def test_queries_are_measured_for_retrieval_tasks(run: Run, tmp_path: Path) -> None:
    text = "ticket 4\n\nprinter is low"  # the null engine finds the very same text, under the same prompt only
    queries = lines(tmp_path, {"query": text, "relevant": ["T-4", "gone"]}, {"query": "x", "relevant": ["T-5", "T-6"]})
    (found,) = run(ANSWERS, labels={}, queries=queries).evaluation.retrieval
    assert (found.task, found.found.num_queries, found.found.num_records) == ("answers", 2, 60)
    assert (found.num_unknown, found.change) == (1, None)


def test_retrieval_alone_needs_no_label(run: Run, tmp_path: Path) -> None:
    queries = lines(tmp_path, {"query": "x", "relevant": ["T-5"]})
    found = run(ANSWERS, labels={}, tasks=["answers"], queries=queries).evaluation
    assert (found.tasks, len(found.retrieval)) == ((), 1)


def test_two_instructions_of_one_query_show_what_they_move(run: Run, tmp_path: Path) -> None:
    query = {"query": "printer", "relevant": ["T-5", "T-6"]}
    queries = lines(tmp_path, query, query | {"relevant": ["T-6"], "instruction": "Only what is urgent"})
    (found,) = run(ANSWERS, labels={}, queries=queries).evaluation.retrieval
    assert found.change is not None
    assert found.change.num_queries == 1
    assert found.change.p_mrr.value != 0


def test_queries_that_name_no_record_are_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no record of the input has one of the keys"):
        run(ANSWERS, labels={}, queries=lines(tmp_path, {"query": "x", "relevant": ["nothing"]}))


def test_relevant_records_are_kept_in_a_sample(run: Run, tmp_path: Path) -> None:
    queries = lines(tmp_path, *({"query": "x", "relevant": [f"T-{row}"]} for row in range(40)))
    (found,) = run(ANSWERS, labels={}, queries=queries, max_texts=20).evaluation.retrieval
    assert (found.found.num_queries, found.num_unknown) == (40, 0)


def test_retrieval_without_labels_or_queries_has_nothing_to_measure(run: Run) -> None:
    with pytest.raises(ConfigError, match="give --queries FILE, or a label"):
        run(ANSWERS, labels={}, tasks=["answers"])


def test_without_scikit_learn_the_extra_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("evaluator", "clustering"):
        monkeypatch.delitem(sys.modules, f"pipeline.quality.{name}", raising=False)
        monkeypatch.delattr(f"pipeline.quality.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(ConfigError, match=r"pip install 'refract\[quality\]'"):
        run()


def test_a_file_that_is_damaged_is_named(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(RefractError, match=r"a\.parquet"):
        run(inputs=[str(path)])


@pytest.fixture
def minilm() -> dict[str, Any]:
    """The packaged model, with the instruction in front of the text."""
    template = "{instruction}: {text}"
    overrides = {"instruction_style": "free_form", "query_template": template, "document_template": template}
    return {"models__null": {"model": "packaged:all-MiniLM-L6-v2", "overrides": overrides}}


def test_a_real_model_that_ignores_instructions_is_told_as_such(run: Run, minilm: dict[str, Any]) -> None:
    found = run(minilm)
    assert found.tree()["answer"] == "no"
    plain = found.evaluation.matrix[2]
    assert plain.kind is PromptKind.NO_INSTRUCTION
    assert plain.scores[1].accuracy.value > 0.9  # it knows printers from mail without being asked
    assert found.evaluation.flip_rate is not None
    assert found.evaluation.flip_rate.high < 0.25


def test_a_model_without_a_plain_form_sees_the_text_alone(tmp_path: Path, minilm: dict[str, Any]) -> None:
    minilm["models__null"]["overrides"] |= {"instruction_style": "question_suffix"}
    context = Session.of(config(tmp_path, **minilm)).context
    variants = Variants(context)
    plain, *_ = variants.add_controls([context.task("urgency")])
    model = context.config.models["null"]
    assert not instruction_form(model).has_plain_form
    derived = variants.context().config
    assert derived.models["null"].overrides == model.overrides | {"query_template_plain": "{text}"}
    assert derived.tasks[plain.name] == context.config.tasks["urgency"].model_copy(update={"instruction": None})


def test_variants_leave_the_tasks_as_they_are_and_take_no_name_of_theirs(tmp_path: Path) -> None:
    task = {"model": "null", "instruction": "About urgency", "collection": "own", "dimension": 64}
    context = Session.of(config(tmp_path, **{"tasks__variant-0": task})).context
    variants = Variants(context)
    (found,) = variants.add_wordings("variant-0", ["Other words"])
    derived = variants.context()
    assert {name: derived.tasks[name] for name in context.tasks} == context.tasks
    assert found.name not in context.tasks
    assert derived.tasks[found.name].config.instruction == "Other words"
    assert derived.tasks[found.name].dimension == 64
