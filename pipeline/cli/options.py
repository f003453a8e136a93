"""Arguments and options that several verbs share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import ConfigError
from pipeline.records.digits import whole_number

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="The pipeline's YAML file.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for a script.", show_default=False)]

Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        help="Compare with this: a CSV, JSON or Parquet file, folder or glob, or kafka://TOPIC. May be repeated.",
        show_default="the topics, and what was backfilled",
    ),
]
InputTopic = Annotated[
    str | None,
    typer.Option("--topic", help="The topic that files stand for, if there are several.", show_default=False),
]
InputKey = Annotated[
    str | None, typer.Option("--key", help="Column or field of the files' key.", show_default="the topic's `key`")
]
InputRowNumber = Annotated[
    str | None, typer.Option("--row-number", help="As for `refract produce`.", show_default=False)
]
Sample = Annotated[
    str, typer.Option("--sample", metavar="N|all", help="Vectors per task to compute again and compare.")
]
Wait = Annotated[
    float, typer.Option("--wait", min=0, help="Seconds to wait for records the running pipeline has not finished.")
]


def sample_size(sample: str) -> int | None:
    """Returns how many vectors `--sample` asks for, None for all. Raises ConfigError."""
    if sample == "all":
        return None
    number = whole_number(sample)
    if number is None:
        raise ConfigError(f"--sample: {sample!r} is neither a number of vectors nor `all`")
    return number


def parse_labels(given: Sequence[str]) -> dict[str, str]:
    """Returns the label column of each task that `--label` names. Raises ConfigError."""
    found = {}
    for pair in given:
        task, equals, column = pair.partition("=")
        if not (task and equals and column):
            raise ConfigError(f"--label {pair!r}: expected TASK=COLUMN")
        found[task] = column
    return found
