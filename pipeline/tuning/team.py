"""Workers that train one model together: each has a copy, and their gradients are averaged before every step."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import distributed, nn

from pipeline.errors import EnvironmentFault


class Team(Protocol):
    """What the loop needs of its workers. All of them make the same calls in the same order."""

    @property
    def rank(self) -> int:
        """This worker's number, from 0; the first one decides and writes."""

    @property
    def size(self) -> int:
        """How many they are."""

    def average(self, weights: Sequence[nn.Parameter], loss: float) -> float:
        """Replaces every gradient by its mean over the workers. Returns the mean loss."""

    def first(self, found: Callable[[], float]) -> float:
        """Returns what the first worker finds; the others do not look."""

    def check_equal(self, value: int, what: str) -> None:
        """Raises EnvironmentFault in every worker where one has another value. `what` follows it in the message."""


class Alone:
    """A team of one."""

    rank = 0
    size = 1

    def average(self, _weights: Sequence[nn.Parameter], loss: float) -> float:
        """See Team."""
        return loss

    def first(self, found: Callable[[], float]) -> float:
        """See Team."""
        return found()

    def check_equal(self, _value: int, _what: str) -> None:
        """See Team."""


ALONE = Alone()


class ProcessGroup:
    """The workers of torch's process group, which somebody else has formed. Gloo and NCCL."""

    def __init__(self) -> None:
        self.rank = distributed.get_rank()
        self.size = distributed.get_world_size()

    def average(self, weights: Sequence[nn.Parameter], loss: float) -> float:
        """See Team. One message for all of them."""
        parts = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
        device = parts[0].device
        flat = torch.cat([*(part.flatten().float() for part in parts), torch.tensor([loss], device=device)])
        distributed.all_reduce(flat)
        flat /= self.size
        sizes = [part.numel() for part in parts]
        for weight, mean in zip(weights, torch.split(flat[:-1], sizes), strict=True):
            weight.grad = mean.view_as(weight).to(weight.dtype)
        return float(flat[-1])

    def first(self, found: Callable[[], float]) -> float:
        """See Team."""
        value = torch.tensor([found() if self.rank == 0 else math.nan], dtype=torch.float64, device=_device())
        distributed.broadcast(value, src=0)
        return float(value)

    def check_equal(self, value: int, what: str) -> None:
        """See Team."""
        bounds = torch.tensor([value, -value], dtype=torch.int64, device=_device())
        distributed.all_reduce(bounds, op=distributed.ReduceOp.MAX)
        if int(bounds[0]) != -int(bounds[1]):
            raise EnvironmentFault(f"the workers have different steps {what}")


def _device() -> str:
    return "cuda" if distributed.get_backend() == "nccl" else "cpu"
