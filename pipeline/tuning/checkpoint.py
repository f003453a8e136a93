"""A run's state on disk: one file, replaced whole, so that a killed run continues from its last one."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.errors import EnvironmentFault


@dataclass(slots=True)
class TrainingState:
    """How far a run is, apart from its weights."""

    run: str
    """Hash of data and settings; a state of another run is never continued."""
    step: int = 0
    """Steps done."""
    steps: int | None = None
    """Steps in all; None while they are being measured."""
    best_step: int = 0
    """0: the untrained model."""
    best_score: float | None = None
    seconds: float = 0.0
    """Time spent training, in all runs."""
    scores: list[tuple[int, float]] = field(default_factory=list)
    """Selection scores so far, by step."""


def write_checkpoint(
    file: Path,
    state: TrainingState,
    weights: Mapping[str, nn.Parameter],
    optimizer: torch.optim.AdamW,
    best: Mapping[str, Tensor],
) -> None:
    """Replaces the checkpoint. Raises EnvironmentFault where the disk does not take it."""
    tensors = {f"best.{name}": value.contiguous() for name, value in best.items()}
    for name, parameter in weights.items():
        tensors[f"weight.{name}"] = parameter.detach().contiguous()
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{key}.{name}"] = value.detach().contiguous()
    temporary = file.with_suffix(".tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, str(temporary), metadata={"state": json.dumps(asdict(state))})
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(file)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise EnvironmentFault(f"{file}: the checkpoint cannot be written ({error})") from error


def read_state(file: Path) -> TrainingState | None:
    """Returns the state of a checkpoint, None where there is none that can be read."""
    try:
        with safe_open(str(file), "pt") as tensors:
            found: dict[str, Any] = json.loads(tensors.metadata()["state"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    found["scores"] = [(int(step), float(score)) for step, score in found["scores"]]
    return TrainingState(**found)


def restore(file: Path, weights: Mapping[str, nn.Parameter], optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """Puts a checkpoint's weights and the optimizer's memory back. Returns the best weights so far."""
    best: dict[str, Tensor] = {}
    with safe_open(str(file), "pt") as tensors, torch.no_grad():
        names = set(tensors.keys())
        for name, parameter in weights.items():
            parameter.copy_(tensors.get_tensor(f"weight.{name}"))
            if f"exp_avg.{name}" in names:
                optimizer.state[parameter] = {
                    key: tensors.get_tensor(f"{key}.{name}").to("cpu" if key == "step" else parameter.device)
                    for key in ("step", "exp_avg", "exp_avg_sq")
                }
            if f"best.{name}" in names:
                best[name] = tensors.get_tensor(f"best.{name}")
    return best
