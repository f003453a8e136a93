"""The options of `refract evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

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
