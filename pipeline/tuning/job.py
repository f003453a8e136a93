"""A LoRA run as something that can be handed over: everything a process needs to take its steps."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.engine.prompts import build_prompts
from pipeline.engine.spec import ModelSpec, resolve
from pipeline.engine.weights import pick_device
from pipeline.tuning.encoder import LoraEncoder
from pipeline.tuning.loop import Length, Lesson, LoraLoop, TrainingOutcome, Watch
from pipeline.tuning.settings import LoraSettings
from pipeline.tuning.team import Team

_ALGORITHM = 2
"""Raised with every change that makes an equal run give other weights: old checkpoints are not continued then."""


@dataclass(frozen=True, slots=True)
class LoraJob:
    """A run. Can be pickled."""

    model: ModelConfig
    """Without an adapter."""
    prompts: Mapping[str, TaskConfig]
    lesson: Lesson
    settings: LoraSettings
    file: Path
    """The checkpoint."""
    run: str
    """From `run_id`."""
    length: Length


Trainer = Callable[[LoraJob, LoraEncoder, Watch], TrainingOutcome]
"""Takes the steps of a run and leaves the best state in the encoder given; raises like `LoraLoop.run`."""


def run_id(
    spec: ModelSpec, prompts: Mapping[str, TaskConfig], settings: LoraSettings, length: Length, data: str
) -> str:
    """Returns a hash of everything that decides a LoRA run; `data` is that of texts and labels."""
    parts = {
        "algorithm": _ALGORITHM,
        "data": data,
        "model": [spec.files.name, spec.files.commit, spec.exclude_instruction],
        "prompts": {name: [*prompt.content, prompt.dimension] for name, prompt in build_prompts(spec, prompts).items()},
        # A run of one worker is what it was before there could be several: its checkpoints are continued.
        "settings": {name: value for name, value in asdict(settings).items() if (name, value) != ("workers", 1)},
        "length": asdict(length),
    }
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()


def train_here(job: LoraJob, encoder: LoraEncoder, watch: Watch) -> TrainingOutcome:
    """Takes the steps in this process. See Trainer."""
    return LoraLoop(encoder, job.lesson, job.settings, job.file, run=job.run).run(job.length, watch)


def train_in_team(job: LoraJob, team: Team, watch: Watch) -> TrainingOutcome:
    """Takes the steps together with other processes, which make the same call; the first one writes the checkpoint."""
    encoder = LoraEncoder(resolve(job.model, weights=True), job.prompts, pick_device(job.model), job.settings)
    return LoraLoop(encoder, job.lesson, job.settings, job.file, run=job.run, team=team).run(job.length, watch)


def outcome_of(job: LoraJob, encoder: LoraEncoder, stopped: str | None) -> TrainingOutcome:
    """Puts the best state of a checkpoint that others have written into the encoder.

    Raises KeyboardInterrupt where there is no checkpoint.
    """
    return LoraLoop(encoder, job.lesson, job.settings, job.file, run=job.run).conclude(stopped)
