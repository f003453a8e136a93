"""`refract evaluate`: do the instructions do their job, on records whose labels are known?"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pipeline.cli.evaluate_options import (
    Bounds,
    Controls,
    Inputs,
    Labels,
    MaxTexts,
    NumNeighbours,
    Page,
    Queries,
    Reword,
    Seed,
    Stored,
    Tasks,
    Topic,
    Wordings,
)
from pipeline.cli.evaluate_view import print_evaluation
from pipeline.cli.exits import ExitCode
from pipeline.cli.options import AsJson, ConfigFile, parse_labels
from pipeline.cli.output import print_error, print_json
from pipeline.cli.progress import progress
from pipeline.errors import ConfigError, RefractError

if TYPE_CHECKING:
    from pipeline.quality.requirements import Requirement
    from pipeline.usecases.evaluate import EvaluateReport


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
        tasks=None if tasks is None else tasks.split(","),
        labels=parse_labels(label or ()),
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


def _write(path: Path, page: str) -> None:
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise RefractError(f"--html {path}: cannot be written ({error.strerror})") from None
