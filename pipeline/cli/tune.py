"""`refract tune`: trains a model on labelled records, so that it does what the tasks' instructions ask."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import AsJson, ConfigFile
from pipeline.cli.output import print_json
from pipeline.cli.tune_view import StepLines, parse_labels, print_report
from pipeline.errors import ConfigError


def tune(
    config: ConfigFile,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT…",
            help="As of `refract backfill`: files, folders, globs or kafka://TOPIC.",
            show_default=False,
        ),
    ],
    *,
    tasks: Annotated[str, typer.Option("--tasks", help="Tasks to train, by comma.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", help="Folder to write; must not exist.", show_default=False)],
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="TASK=COLUMN", help="Where a task's label is.", show_default="its name"),
    ] = None,
    method: Annotated[str, typer.Option("--method", help="lora, head, or auto: what scores better.")] = "auto",
    topic: Annotated[
        str | None, typer.Option("--topic", help="Whose template makes the text.", show_default="the only one")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Steps of LoRA.", show_default="300")] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0.1, help="Instead: steps that fit.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Equal seed and steps repeat a run on one machine.")] = 0,
    wordings: Annotated[
        Path | None,
        typer.Option("--wordings", help="YAML of other wordings: a list for each task.", show_default=False),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", min=0.0, help="Of LoRA.", show_default="5e-4, large models 1e-4")
    ] = None,
    rank: Annotated[int, typer.Option("--rank", min=1, max=512, help="Of LoRA.")] = 16,
    texts: Annotated[int, typer.Option("--texts", min=4, help="Texts of a batch, under every instruction.")] = 24,
    control: Annotated[
        bool, typer.Option("--control", help="Train LoRA once more on shuffled labels.", show_default=False)
    ] = False,
    allow_drop: Annotated[
        bool, typer.Option("--allow-drop", help="Accept a loss of general ability.", show_default=False)
    ] = False,
    base_name: Annotated[
        str | None, typer.Option("--base-name", help="Model name to write into an adapter.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a model to tell what the tasks' instructions ask for, and measure it before and after.

    head fits a linear map per task in seconds; the model itself stays as it is and the map does not read the
    instruction. lora trains one adapter that does. A killed run continues when it is started again in the same way;
    Ctrl-C keeps the best state so far.
    """
    from pipeline.config.load import ConfigTree
    from pipeline.context import Context
    from pipeline.usecases.tune import METHODS, TuneRequest, report_tree
    from pipeline.usecases.tune import tune as run

    chosen = next((known for known in METHODS if known == method), None)
    if chosen is None:
        raise ConfigError(f"--method {method!r}: expected one of {', '.join(METHODS)}")
    if steps is not None and minutes is not None:
        raise ConfigError("give either --steps or --minutes")
    request = TuneRequest(
        inputs,
        [name.strip() for name in tasks.split(",") if name.strip()],
        output,
        method=chosen,
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
    )
    with StepLines() as lines:
        report = run(Context(ConfigTree.read(config)), request, lines.progress, lines.step)
    if as_json:
        print_json(report_tree(report))
    else:
        print_report(report)
