"""`refract bench`: what a model does on this machine, so that a GPU can be sized in a minute."""

import json
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from pipeline.cli.options import AsJson
from pipeline.cli.output import print_json, print_note, print_table
from pipeline.cli.progress import progress
from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.engine.measure import Measured

_NUM_SAMPLES = 256


def bench(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder, a hub id, or packaged:all-MiniLM-L6-v2.")],
    *,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", help="An instruction; once per task. Without one: the model's plain form."),
    ] = None,
    texts: Annotated[
        Path | None,
        typer.Option("--texts", help=f"One text a line. Without a file: {_NUM_SAMPLES} tickets of the demo."),
    ] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="As models.<model>.dtype.")] = "auto",
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Threads on CPU. Default: torch's.")] = None,
    runs: Annotated[int, typer.Option("--runs", min=1, help="Runs of each side; the median counts.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Measure a model here: tokens and documents a second, padding, utilisation, memory, and sentence-transformers."""
    from pipeline.engine.load import check_tasks
    from pipeline.engine.null import is_null

    try:
        config = ModelConfig.model_validate({"model": model, "threads": threads, "dtype": dtype})
    except ValidationError as error:
        raise ConfigError(f"--dtype {dtype}: {error.errors()[0]['msg']}") from None
    tasks = {
        f"task{number}": TaskConfig(instruction=instruction, model="bench")
        for number, instruction in enumerate(task or [None], 1)
    }
    if is_null(config):
        raise ConfigError(f"{model} computes no embeddings; expected a folder, a hub id or packaged:all-MiniLM-L6-v2")
    lines = _lines(texts) if texts is not None else _samples()
    check_tasks("bench", config, tasks)
    from pipeline.engine.measure import measure

    with progress() as step:
        found = measure(config, tasks, lines, runs, step)
    if as_json:
        print_json(asdict(found))
        return
    _print(found)


def _lines(path: Path) -> list[str]:
    try:
        found = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--texts {path}: cannot be read ({error}); expected a UTF-8 file of one text a line"
        ) from error
    if not found:
        raise ConfigError(f"--texts {path}: has no text; expected one a line")
    return found


def _samples() -> list[str]:
    lines = resources.files("pipeline.demo").joinpath("tickets.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    found = [f"{row['title']}\n\n{row['body']}".strip() for row in rows if row.get("body")]
    return [found[number % len(found)] for number in range(_NUM_SAMPLES)]


def _print(found: "Measured") -> None:
    rival = found.comparison
    peak = f"{found.peak_tflops:,.2f} TFLOP/s that a matrix product reaches here"
    rows = [
        ["documents/s", _number(found.documents_per_s), "texts a second, each under all tasks"],
        ["tokens/s", _number(found.tokens_per_s), f"of whole prompts, {found.num_tokens:,} in all"],
        ["padding", _percent(found.padding_share), "of the computed tokens"],
        ["computed", _percent(found.computed_share), "of the prompts' tokens; the rest is reused instructions"],
        ["utilisation", _percent(found.flop_utilisation), f"of the {peak}"],
        ["memory", f"{found.memory_mb:,.0f} MB", "peak of this process"],
    ]
    if found.device_memory_mb is not None:
        rows.append(["device memory", f"{found.device_memory_mb:,.0f} MB", "peak allocated on the device"])
    if found.ratio is not None:
        does = f"{_number(rival.documents_per_s)} documents/s, {rival.peak_mb:,.0f} MB"
        rows.append(["ratio", f"{found.ratio:.2f}", f"to sentence-transformers {rival.version} float32: {does}"])
    cosine = found.engine.get("cosine_to_float32")
    if cosine is not None:
        rows.append(["cosine", f"{cosine['mean']:.5f}", f"to float32 on a few texts, {cosine['min']:.5f} at least"])
    print_table(
        f"{found.model} on {found.device}, {found.dtype}, {found.threads} threads: "
        f"{found.num_texts:,} texts x {found.num_tasks} tasks",
        ["figure", "value", "what it is"],
        rows,
    )
    if rival.skipped is not None:
        print_note(f"not compared: {rival.skipped}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
