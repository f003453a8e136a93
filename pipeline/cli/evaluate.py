"""`refract evaluate`: do the instructions do their job, on records whose labels are known?"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.exits import ExitCode
from pipeline.cli.options import AsJson, ConfigFile
from pipeline.cli.output import print_error, print_json, print_note, print_table
from pipeline.cli.progress import progress
from pipeline.errors import ConfigError, RefractError

if TYPE_CHECKING:
    from pipeline.quality.report import Evaluation, MatrixRow, PairReport, TaskReport


def evaluate(  # noqa: PLR0913 - one option per thing that can be told
    config: ConfigFile,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT…", help="As of `refract backfill`: files, folders, globs or kafka://TOPIC."),
    ] = None,
    *,
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label", metavar="TASK=COLUMN", help="A task's label column.", show_default="the task's own name"
        ),
    ] = None,
    tasks: Annotated[str | None, typer.Option("--tasks", help="Some tasks, by comma.", show_default="all")] = None,
    topic: Annotated[
        str | None, typer.Option("--topic", help="Whose rules the rows follow.", show_default="the only one")
    ] = None,
    stored: Annotated[
        bool,
        typer.Option("--stored", help="Take the stored vectors, and labels from their payloads.", show_default=False),
    ] = False,
    queries: Annotated[
        Path | None,
        typer.Option(
            "--queries", help='For retrieval tasks, lines of {"query": …, "relevant": [KEY, …]}.', show_default=False
        ),
    ] = None,
    paraphrases: Annotated[
        Path | None,
        typer.Option("--paraphrases", help="YAML of other wordings: a list for each task.", show_default=False),
    ] = None,
    reword: Annotated[
        bool, typer.Option("--reword", help="Try built-in wordings around each instruction.", show_default=False)
    ] = False,
    controls: Annotated[
        bool, typer.Option(help="Also embed without an instruction, with nonsense, with a generic one.")
    ] = True,
    max_texts: Annotated[
        int, typer.Option("--max-texts", min=10, help="Look at a sample of so many records.")
    ] = 10_000,
    seed: Annotated[int, typer.Option("--seed", help="Equal seeds give equal samples and figures.")] = 0,
    neighbours: Annotated[
        int, typer.Option("--neighbours", min=1, max=100, help="Neighbours that vote; ranks that count.")
    ] = 5,
    require: Annotated[
        list[str] | None,
        typer.Option(
            "--require", metavar="BOUND", help="Exit with 1 unless it holds: 'separation>0', 'accuracy.urgency>0.6' …"
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page that also shows texts.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure whether each instruction brings out its own label, on labelled records. Writes nothing to the store.

    The nearest neighbours of each record vote on its labels, under every instruction and under controls. Separation
    says how much better an instruction tells its own label than another one's; the flip rate, how often two
    instructions choose different neighbours, each the right ones. Every figure has a 95 % interval, and a bound of
    --require holds for the whole of it.
    """
    from pipeline.config.load import ConfigTree
    from pipeline.context import Context
    from pipeline.quality.requirements import find_misses, parse_requirement
    from pipeline.usecases.evaluate import Request
    from pipeline.usecases.evaluate import evaluate as run

    required = [parse_requirement(text) for text in require or ()]
    if html is not None and not html.absolute().parent.is_dir():
        raise ConfigError(f"--html {html}: the folder {html.parent} does not exist")
    request = Request(
        inputs=inputs or (),
        topic=topic,
        tasks=tasks.split(",") if tasks else None,
        labels=_labels(label or ()),
        stored=stored,
        queries=queries,
        paraphrases=paraphrases,
        reword=reword,
        controls=controls,
        max_texts=max_texts,
        seed=seed,
        k=neighbours,
    )
    with progress() as step:
        found = run(Context(ConfigTree.read(config)), request, step)
    missed = find_misses(found.evaluation, required)
    if html is not None:
        _write(html, found.page(config.name))
    if as_json:
        print_json(_tree(found.evaluation, missed))
    else:
        _print(found.evaluation)
        if html is not None:
            print_note(f"{html} shows this with the texts")
    for line in missed:
        print_error(f"--require {line}")
    if missed:
        raise typer.Exit(ExitCode.FAILED)


def _labels(given: Sequence[str]) -> dict[str, str]:
    found = {}
    for pair in given:
        task, equals, column = pair.partition("=")
        if not (task and equals and column):
            raise ConfigError(f"--label {pair!r}: expected TASK=COLUMN")
        found[task] = column
    return found


def _write(path: Path, page: str) -> None:
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise RefractError(f"--html {path}: cannot be written ({error.strerror})") from None


def _tree(evaluation: "Evaluation", missed: list[str]) -> dict[str, Any]:
    from pipeline.quality.verdict import judge, notes

    verdict = judge(evaluation)
    return {
        "answer": str(verdict.answer),
        "headline": verdict.headline,
        "reason": verdict.reason,
        "notes": notes(evaluation),
        "missed": missed,
        **evaluation.tree(),
    }


def _print(evaluation: "Evaluation") -> None:
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


def _task_row(task: "TaskReport") -> list[object]:
    from pipeline.quality.report import Kind
    from pipeline.quality.verdict import interval

    controls = {control.kind: control for control in task.controls if control.kind is not Kind.ANOTHER_TASK}
    others = [control.accuracy.value for control in task.controls if control.kind is Kind.ANOTHER_TASK]
    plain = controls.get(Kind.NO_INSTRUCTION)
    return [
        task.name,
        task.own.label,
        interval(task.own.accuracy),
        interval(task.own.macro_f1),
        None if task.own.v_measure is None else interval(task.own.v_measure),
        None if plain is None else interval(plain.gain),
        *(
            f"{controls[kind].accuracy.value:.2f}" if kind in controls else None
            for kind in (Kind.NONSENSE, Kind.GENERIC)
        ),
        f"{max(others):.2f}" if others else None,
        None if task.words is None else f"{task.words.accuracy.value:.2f}",
    ]


def _pair_rows(pair: "PairReport") -> Iterable[list[object]]:
    from pipeline.quality.verdict import interval

    flips = None if pair.flip is None else interval(pair.flip.rate)
    for found in pair.separations:
        yield [found.own, found.other, interval(found.difference), flips, pair.num_texts, f"{pair.cramers_v:.2f}"]


def _print_wordings(tasks: "Sequence[TaskReport]") -> None:
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
