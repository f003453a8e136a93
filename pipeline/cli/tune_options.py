"""The options of `refract tune`."""

from pathlib import Path
from typing import Annotated

import typer

Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT…",
        help="As of `refract backfill`: files, folders, globs or kafka://TOPIC.",
        show_default=False,
    ),
]
Pairs = Annotated[
    Path | None,
    typer.Option(
        "--pairs",
        metavar="FILE",
        help="Instead of INPUT, for retrieval tasks: JSON Lines of query, positive, negatives and instruction.",
        show_default=False,
    ),
]
Tasks = Annotated[str, typer.Option("--tasks", help="Tasks to train, by comma.", show_default=False)]
Output = Annotated[Path, typer.Option("--output", help="Folder to write; must not exist.", show_default=False)]
Label = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="TASK=COLUMN", help="Where a task's label is.", show_default="its name"),
]
Method = Annotated[str, typer.Option("--method", help="lora, head, or auto: what scores better.")]
Topic = Annotated[
    str | None, typer.Option("--topic", help="Whose template makes the text.", show_default="the only one")
]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Steps of LoRA.", show_default="300")]
Minutes = Annotated[
    float | None, typer.Option("--minutes", min=0.1, help="Instead: steps that fit.", show_default=False)
]
Seed = Annotated[int, typer.Option("--seed", help="Equal seed and steps repeat a run on one machine.")]
Wordings = Annotated[
    Path | None,
    typer.Option("--wordings", help="YAML of other wordings: a list for each task.", show_default=False),
]
LearningRate = Annotated[
    float | None, typer.Option("--learning-rate", min=0.0, help="Of LoRA.", show_default="5e-4, large models 1e-4")
]
Rank = Annotated[int, typer.Option("--rank", min=1, max=512, help="Of LoRA.")]
Texts = Annotated[int, typer.Option("--texts", min=4, help="Texts of a batch, under every instruction.")]
Workers = Annotated[
    int, typer.Option("--workers", min=1, max=1024, help="Processes that train LoRA together, by Ray Train.")
]
Control = Annotated[
    bool, typer.Option("--control", help="Train LoRA once more on shuffled labels.", show_default=False)
]
AllowDrop = Annotated[bool, typer.Option("--allow-drop", help="Accept a loss of general ability.", show_default=False)]
BaseName = Annotated[
    str | None, typer.Option("--base-name", help="Model name to write into an adapter.", show_default=False)
]
