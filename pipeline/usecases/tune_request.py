"""What a training is asked for and what it came to; what trainings on labels and on pairs share."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.context import Context
from pipeline.errors import ConfigError, RefractError, nearest
from pipeline.interfaces import Progress

if TYPE_CHECKING:
    from pipeline.engine.spec import ModelSpec
    from pipeline.tuning.card import Base
    from pipeline.tuning.general import General
    from pipeline.tuning.job import Trainer
    from pipeline.tuning.loop import Length, TrainingOutcome, Watch
    from pipeline.tuning.settings import LoraSettings

Method = Literal["lora", "head", "auto"]
METHODS: tuple[Method, ...] = get_args(Method)

DEFAULT_STEPS = 300
"""Of LoRA where neither steps nor minutes are given."""


@dataclass(frozen=True, slots=True)
class TuneRequest:
    """What to train, on what, for how long."""

    inputs: Sequence[str]
    """Files, folders, globs or Kafka ranges, as of a backfill; none with `pairs`."""
    tasks: Sequence[str]
    output: Path
    """The folder to write; must not exist."""
    method: Method = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    """Task -> column of its label; else the column of the task's name."""
    topic: str | None = None
    """Whose template makes the text; None: the only one."""
    steps: int | None = None
    minutes: float | None = None
    seed: int = 0
    wordings: Path | None = None
    """YAML or JSON: task -> other wordings of its instruction."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `LoraSettings` that differ from their defaults."""
    control: bool = False
    """Whether LoRA is trained a second time, on shuffled labels."""
    allow_drop: bool = False
    """Whether the model may lose general ability."""
    base: str | None = None
    """Written into the adapter as the name of its model; None: the hub id or the folder it was loaded from."""
    max_texts: int = 100_000
    pairs: Path | None = None
    """JSON Lines of queries and documents, for retrieval tasks; in place of `inputs`."""
    workers: int = 1
    """Processes that train LoRA together, by Ray Train, each with batches of its own."""


@dataclass(frozen=True, slots=True)
class TuneReport:
    """What a run came to. `card` is card.json of the folder."""

    method: str
    output: str
    why: str
    """Why this method was kept."""
    card: Mapping[str, Any]
    notes: Sequence[str]
    """What limits the figures, a sentence each."""
    use: Sequence[str]
    """Lines of the configuration by which the result is served."""


@dataclass(frozen=True, slots=True)
class Training:
    """Who takes the steps, and who hears of them."""

    progress: Progress
    watch: "Watch"
    train: "Trainer"


def length_of(request: TuneRequest) -> "Length":
    """Returns how long LoRA is trained."""
    from pipeline.tuning.loop import Length

    if request.minutes is None and request.steps is None:
        return Length(steps=DEFAULT_STEPS)
    return Length(request.steps, request.minutes)


def settings_of(request: TuneRequest) -> "LoraSettings":
    """Returns the settings of LoRA."""
    from pipeline.tuning.settings import LoraSettings

    return replace(LoraSettings(seed=request.seed, workers=request.workers), **request.settings)


def base_of(request: TuneRequest, spec: "ModelSpec") -> "Base":
    """Returns the model below, as the folder names it."""
    from pipeline.tuning.card import Base

    files = spec.files
    return Base(request.base or (files.name if files.commit is not None else str(files.folder)), files.commit)


def check_general(general: "General | None", *, allow_drop: bool) -> None:
    """Raises RefractError where a model has lost more than it may."""
    if general is not None and not general.is_kept and not allow_drop:
        raise RefractError(
            f"recall of plain pairs fell from {general.before:.2f} to {general.after:.2f}, by more than "
            "0.05: the model would be worse at everything else. Train fewer steps or at a lower --learning-rate, or "
            "allow it with --allow-drop"
        )


def run_notes(outcome: "TrainingOutcome", general: "General | None") -> list[str]:
    """Returns what limits a run of LoRA, a sentence each."""
    notes = []
    if outcome.stopped:
        notes.append(f"{outcome.stopped}; kept the state after step {outcome.state.best_step}")
    if not outcome.state.best_step:
        notes.append("no state was better than the untrained model: the adapter changes nothing")
    if general is not None and general.scale < 1:
        notes.append(f"the updates were multiplied by {general.scale}, so that recall of plain pairs is kept")
    if general is not None and not general.is_kept:
        notes.append(f"recall of plain pairs fell from {general.before:.2f} to {general.after:.2f}")
    return notes


def use_adapter(request: TuneRequest, tasks: Mapping[str, TaskConfig], model: ModelConfig) -> list[str]:
    """Returns the lines of the configuration by which an adapter is served."""
    return [f"models.{next(iter(tasks.values())).model}.adapter: {request.output}"] + (
        ["the adapter it had is replaced"] if model.adapter is not None else []
    )


def checkpoint_of(request: TuneRequest) -> Path:
    """Returns the checkpoint of a run."""
    from pipeline.tuning.folder import CHECKPOINT, unfinished_folder

    return unfinished_folder(request.output) / CHECKPOINT


def drop_unfinished(request: TuneRequest) -> None:
    """Removes the checkpoint of a run whose folder is written."""
    shutil.rmtree(checkpoint_of(request).parent, ignore_errors=True)


def tasks_of(context: Context, request: TuneRequest) -> dict[str, TaskConfig]:
    """Returns the tasks without their heads: what is trained is the model, or other heads. Raises ConfigError."""
    known = context.config.tasks
    if not request.tasks:
        raise ConfigError(f"--tasks names no task. Tasks: {', '.join(known)}")
    for name in request.tasks:
        if name not in known:
            raise ConfigError(
                f"no task {name!r} in {context.source.origin}.{nearest(name, known)} Tasks: {', '.join(known)}"
            )
        if known[name].mode == "retrieval" and request.pairs is None:
            raise ConfigError(f"tasks.{name} has mode: retrieval, which is trained on --pairs and not on labels")
        if known[name].mode == "symmetric" and request.pairs is not None:
            raise ConfigError(f"tasks.{name} has mode: symmetric, which is trained on labels and not on --pairs")
    for name in request.columns:
        if name not in request.tasks:
            raise ConfigError(f"--label {name}=…: not among --tasks.{nearest(name, request.tasks)}")
    return {name: known[name].model_copy(update={"head": None}) for name in dict.fromkeys(request.tasks)}


def model_of(context: Context, request: TuneRequest) -> ModelConfig:
    """Returns the one model of the tasks. Raises ConfigError."""
    models = dict.fromkeys(context.config.tasks[name].model for name in request.tasks)
    if len(models) > 1:
        raise ConfigError(f"the tasks have different models ({', '.join(models)}); train those of one model at a time")
    model = context.config.models[next(iter(models))]
    if model.model.startswith("null:"):
        raise ConfigError(f"models.{next(iter(models))} is {model.model!r}, which has nothing to train")
    return model
