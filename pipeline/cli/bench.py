"""`refract bench`: what a model does on this machine, so that a GPU can be sized in a minute."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.bench_view import print_measured
from pipeline.cli.options import AsJson
from pipeline.cli.output import print_json
from pipeline.cli.progress import progress


def bench(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder, a hub id, or packaged:all-MiniLM-L6-v2.")],
    *,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", help="An instruction; once per task. Without one: the model's plain form."),
    ] = None,
    texts: Annotated[
        Path | None,
        typer.Option("--texts", help="One text a line. Without a file: 256 tickets of the demo."),
    ] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="As models.<model>.dtype.")] = "auto",
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Threads on CPU. Default: torch's.")] = None,
    runs: Annotated[int, typer.Option("--runs", min=1, help="Runs of each side; the median counts.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Measure a model here: tokens and documents a second, padding, utilisation, memory, and sentence-transformers."""
    from pipeline.usecases import bench as usecase

    request = usecase.BenchRequest(model, task or (), texts, dtype, threads, runs)
    with progress() as step:
        found = usecase.bench(request, step)
    if as_json:
        print_json(asdict(found))
    else:
        print_measured(found)
