"""`refract evaluate`: do the instructions do their job, on records whose labels are known?"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.evaluate_view import print_evaluation
from pipeline.cli.exits import ExitCode
from pipeline.cli.options import AsJson, ConfigFile
from pipeline.cli.output import print_error, print_json
from pipeline.cli.progress import progress
from pipeline.errors import ConfigError, RefractError

if TYPE_CHECKING:
    from pipeline.quality.requirements import Requirement
    from pipeline.usecases.evaluate import EvaluateReport


Inputs = Annotated[
    list[str] | None,
    typer.Argument(metavar="INPUT…", help="As of `refract backfill`: files, folders, globs or kafka://TOPIC."),
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="TASK=COLUMN", help="A task's label column.", show_default="the task's own name"),
]
Tasks = Annotated[str | None, typer.Option("--tasks", help="Some tasks, by comma.", show_default="all")]
Topic = Annotated[str | None, typer.Option("--topic", help="Whose rules the rows follow.", show_default="the only one")]
Stored = Annotated[
    bool, typer.Option("--stored", help="Take the stored vectors, and labels from their payloads.", show_default=False)
]
Queries = Annotated[
    Path | None,
    typer.Option(
        "--queries", help='For retrieval tasks, lines of {"query": …, "relevant": [KEY, …]}.', show_default=False
    ),
]
Wordings = Annotated[
    Path | None,
    typer.Option("--paraphrases", help="YAML of other wordings: a list for each task.", show_default=False),
]
Reword = Annotated[
    bool, typer.Option("--reword", help="Try built-in wordings around each instruction.", show_default=False)
]
Controls = Annotated[bool, typer.Option(help="Also embed without an instruction, with nonsense, with a generic one.")]
MaxTexts = Annotated[int, typer.Option("--max-texts", min=10, help="Look at a sample of so many records.")]
Seed = Annotated[int, typer.Option("--seed", help="Equal seeds give equal samples and figures.")]
NumNeighbours = Annotated[
    int, typer.Option("--neighbours", min=1, max=100, help="Neighbours that vote; ranks that count.")
]
Bounds = Annotated[
    list[str] | None,
    typer.Option(
        "--require", metavar="BOUND", help="Exit with 1 unless it holds: 'separation>0', 'accuracy.urgency>0.6' …"
    ),
]
Page = Annotated[Path | None, typer.Option("--html", help="Write a page that also shows texts.", show_default=False)]


def evaluate(
    config: ConfigFile,
    inputs: Inputs = None,
    *,
    label: Labels = None,
    tasks: Tasks = None,
    topic: Topic = None,
    stored: Stored = False,
    queries: Queries = None,
    paraphrases: Wordings = None,
    reword: Reword = False,
    controls: Controls = True,
    max_texts: MaxTexts = 10_000,
    seed: Seed = 0,
    neighbours: NumNeighbours = 5,
    require: Bounds = None,
    html: Page = None,
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
    from pipeline.quality.requirements import parse_requirement
    from pipeline.usecases.evaluate import EvaluateRequest
    from pipeline.usecases.evaluate import evaluate as run

    required = [parse_requirement(text) for text in require or ()]
    if html is not None and not html.absolute().parent.is_dir():
        raise ConfigError(f"--html {html}: the folder {html.parent} does not exist")
    request = EvaluateRequest(
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
        report = run(Context(ConfigTree.read(config)), request, step)
    if html is not None:
        _write(html, report.page(config.name))
    _tell(report, required, as_json=as_json)


def _tell(report: "EvaluateReport", required: "Sequence[Requirement]", *, as_json: bool) -> None:
    """Prints the report; exits with 1 where a bound is missed."""
    from pipeline.quality.requirements import find_misses

    missed = find_misses(report.evaluation, required)
    if as_json:
        print_json({"missed": missed, **report.tree()})
    else:
        print_evaluation(report.evaluation)
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
