"""Measures a model on this machine, so that hardware can be sized before a pipeline is configured."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.engine.entry import check_tasks
from pipeline.engine.null import is_null
from pipeline.errors import ConfigError
from pipeline.interfaces import Progress

if TYPE_CHECKING:
    from pipeline.engine.measure import Measured

NUM_SAMPLES = 256


@dataclass(frozen=True, slots=True)
class BenchRequest:
    """Which model to measure, and with what."""

    model: str
    """A folder, a hub id or packaged:all-MiniLM-L6-v2."""
    instructions: Sequence[str] = ()
    """One task each; without any, the model's plain form is measured."""
    texts: Path | None = None
    """A UTF-8 file of one text a line; None takes tickets of the demo."""
    dtype: str = "auto"
    """As `models.<model>.dtype`."""
    threads: int | None = None
    """Threads on the CPU; None leaves torch's choice."""
    runs: int = 3
    """The median of so many runs counts."""


def bench(request: BenchRequest, progress: Progress) -> "Measured":
    """Loads the model, measures it, and compares it with sentence-transformers.

    Raises:
        ConfigError: the model cannot work as asked, or the texts cannot be read.
        TransientError: the hub does not answer and nothing is cached.
        EnvironmentFault: the device is missing, or the self-test failed.
    """
    model, dtype = request.model, request.dtype
    try:
        config = ModelConfig.model_validate({"model": model, "threads": request.threads, "dtype": dtype})
    except ValidationError as error:
        raise ConfigError(f"--dtype {dtype}: {error.errors()[0]['msg']}") from None
    tasks = {
        f"task{number}": TaskConfig(instruction=instruction, model="bench")
        for number, instruction in enumerate(request.instructions or [None], 1)
    }
    if is_null(config):
        raise ConfigError(f"{model} computes no embeddings; expected a folder, a hub id or packaged:all-MiniLM-L6-v2")
    texts = _sample_texts() if request.texts is None else _read_texts(request.texts)
    check_tasks("bench", config, tasks)
    from pipeline.engine.measure import measure  # torch

    return measure(config, tasks, texts, request.runs, progress)


def _read_texts(path: Path) -> list[str]:
    try:
        found = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--texts {path}: cannot be read ({error}); expected a UTF-8 file of one text a line"
        ) from error
    if not found:
        raise ConfigError(f"--texts {path}: has no text; expected one a line")
    return found


def _sample_texts() -> list[str]:
    lines = resources.files("pipeline.demo").joinpath("tickets.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    found = [f"{row['title']}\n\n{row['body']}".strip() for row in rows if row.get("body")]
    return [found[number % len(found)] for number in range(NUM_SAMPLES)]
