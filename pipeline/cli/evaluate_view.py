"""How an evaluation looks in a terminal."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import typer

from pipeline.cli.output import print_note, print_table

if TYPE_CHECKING:
    from pipeline.quality.evaluation import Evaluation, MatrixRow, PairReport, TaskEvaluation


def print_evaluation(evaluation: "Evaluation") -> None:
    """Prints the verdict and its tables on stdout, and what to know of the figures on stderr."""
    from pipeline.quality.verdict import judge, notes

    verdict = judge(evaluation)
    typer.echo(f"{verdict.headline} {verdict.reason}\n")
    if evaluation.matrix:
        _print_matrix(evaluation)
        print_table("Each task and its own label", _TASK_COLUMNS, [_task_row(task) for task in evaluation.tasks])
    pairs = [row for pair in evaluation.pairs for row in _pair_rows(pair)]
    if pairs:
        print_table("Pairs of tasks", ["under", "against", "separation", "flip rate", "texts", "Cramér's V"], pairs)
    _print_wordings(evaluation.tasks)
    _print_retrieval(evaluation)
    for line in notes(evaluation):
        print_note(f"note: {line}")


def _print_matrix(evaluation: "Evaluation") -> None:
    names = [label.name for label in evaluation.labels]
    print_table(
        f"How often the {evaluation.k} nearest neighbours say a text's label (in brackets κ, with luck taken out)",
        ["instruction", *(f"label {name}" for name in names)],
        [_matrix_row(row) for row in evaluation.matrix],
    )


def _matrix_row(row: "MatrixRow") -> list[object]:
    cells = [
        f"{score.accuracy.value:.2f} ({score.kappa.value:.2f}){' *' if score.label == row.own_label else ''}"
        for score in row.scores
    ]
    return [row.name, *cells]


_TASK_COLUMNS = ["task", "label", "accuracy", "macro F1", "V-measure", "over no instruction", "nonsense", "generic"]
_TASK_COLUMNS += ["another task", "words alone"]


def _task_row(task: "TaskEvaluation") -> list[object]:
    from pipeline.quality.evaluation import PromptKind
    from pipeline.quality.verdict import interval

    controls = {control.kind: control for control in task.controls if control.kind is not PromptKind.ANOTHER_TASK}
    others = [control.accuracy.value for control in task.controls if control.kind is PromptKind.ANOTHER_TASK]
    plain = controls.get(PromptKind.NO_INSTRUCTION)
    return [
        task.name,
        task.own.label,
        interval(task.own.accuracy),
        interval(task.own.macro_f1),
        None if task.own.v_measure is None else interval(task.own.v_measure),
        None if plain is None else interval(plain.gain),
        *(
            f"{controls[kind].accuracy.value:.2f}" if kind in controls else None
            for kind in (PromptKind.NONSENSE, PromptKind.GENERIC)
        ),
        f"{max(others):.2f}" if others else None,
        None if task.words is None else f"{task.words.accuracy.value:.2f}",
    ]


def _pair_rows(pair: "PairReport") -> Iterable[list[object]]:
    from pipeline.quality.verdict import interval

    flips = None if pair.flip is None else interval(pair.flip.rate)
    for found in pair.separations:
        yield [found.own, found.other, interval(found.difference), flips, pair.num_texts, f"{pair.cramers_v:.2f}"]


def _print_wordings(tasks: "Sequence[TaskEvaluation]") -> None:
    rows = [
        [task.name, f"{found.least:.2f}", f"{found.mean:.2f}", f"{found.most:.2f}", f"{found.spread:.2f}"]
        for task in tasks
        if (found := task.paraphrases) is not None
    ]
    if rows:
        print_table("The same question in other words: accuracy", ["task", "least", "mean", "most", "spread"], rows)


def _print_retrieval(evaluation: "Evaluation") -> None:
    from pipeline.quality.verdict import interval

    rows: list[list[object]] = [
        [
            report.task,
            report.found.num_queries,
            report.found.num_records,
            interval(report.found.recall),
            interval(report.found.ndcg),
            None if report.change is None else interval(report.change.p_mrr),
        ]
        for report in evaluation.retrieval
    ]
    if rows:
        k = evaluation.retrieval[0].found.k
        columns = ["task", "queries", "records", f"recall@{k}", f"nDCG@{k}", "p-MRR"]
        print_table("Queries and what they should find", columns, rows)
