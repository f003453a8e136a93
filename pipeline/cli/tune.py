"""`refract tune`: trains a model on labelled records, so that it does what the tasks' instructions ask."""

from typing import TYPE_CHECKING

from pipeline.cli.options import AsJson, ConfigFile, parse_labels
from pipeline.cli.output import print_json
from pipeline.cli.tune_options import (
    AllowDrop,
    BaseName,
    Control,
    Inputs,
    Label,
    LearningRate,
    Method,
    Minutes,
    Output,
    Pairs,
    Rank,
    Seed,
    Steps,
    Tasks,
    Texts,
    Topic,
    Wordings,
    Workers,
)
from pipeline.cli.tune_report import print_report
from pipeline.cli.tune_view import StepLines
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.usecases.tune_request import Method as TuneMethod


def tune(
    config: ConfigFile,
    inputs: Inputs = None,
    *,
    tasks: Tasks,
    output: Output,
    label: Label = None,
    pairs: Pairs = None,
    method: Method = "auto",
    topic: Topic = None,
    steps: Steps = None,
    minutes: Minutes = None,
    seed: Seed = 0,
    wordings: Wordings = None,
    learning_rate: LearningRate = None,
    rank: Rank = 16,
    texts: Texts = 24,
    workers: Workers = 1,
    control: Control = False,
    allow_drop: AllowDrop = False,
    base_name: BaseName = None,
    as_json: AsJson = False,
) -> None:
    """Train a model to tell what the tasks' instructions ask for, and measure it before and after.

    head fits a linear map per task in seconds; the model itself stays as it is and the map does not read the
    instruction. lora trains one adapter that does. Retrieval tasks are trained on --pairs, by lora. A killed run
    continues when it is started again in the same way; Ctrl-C keeps the best state so far.
    """
    from pipeline.session import Session
    from pipeline.usecases.tune import report_tree
    from pipeline.usecases.tune_request import TuneRequest

    if steps is not None and minutes is not None:
        raise ConfigError("give either --steps or --minutes")
    request = TuneRequest(
        inputs or [],
        [name.strip() for name in tasks.split(",") if name.strip()],
        output,
        method=_method(method),
        columns=parse_labels(label or []),
        topic=topic,
        steps=steps,
        minutes=minutes,
        seed=seed,
        wordings=wordings,
        settings={"learning_rate": learning_rate, "rank": rank, "texts": texts},
        control=control,
        allow_drop=allow_drop,
        base=base_name,
        pairs=pairs,
        workers=workers,
    )
    with Session.open(config) as refract, StepLines() as lines:
        report = refract.tune(request, watch=lines.step, progress=lines.progress)
    if as_json:
        print_json(report_tree(report))
    else:
        print_report(report)


def _method(name: str) -> "TuneMethod":
    from pipeline.usecases.tune_request import METHODS

    found = next((known for known in METHODS if known == name), None)
    if found is None:
        raise ConfigError(f"--method {name!r}: expected one of {', '.join(METHODS)}")
    return found
