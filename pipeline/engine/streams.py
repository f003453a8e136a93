"""Several forward batches at a time on a CPU, a thread each, instead of several threads in one batch.

Threads that share a batch wait for each other several times a layer, and all of them for the one that the
machine took away; batches beside each other wait only at the end. A batch that is alone still gets all threads.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import torch

T = TypeVar("T")

SMALLEST = 128
"""Tokens of a batch below which it is not cut into one per stream."""


class Streams:
    """Runs functions beside each other. Used from one thread at a time."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ThreadPoolExecutor | None = None
        if count == 1:
            return
        self._pool = ThreadPoolExecutor(count, "stream")
        ready = Barrier(count)
        for started in [self._pool.submit(_alone, ready) for _ in range(count)]:
            started.result()
        torch.set_num_threads(count)  # what the last thread said became the default of new ones

    def run(self, functions: Sequence[Callable[[], T]]) -> list[T | BaseException]:
        """Returns what each function returned or raised, once all have."""
        if self._pool is None or len(functions) == 1:
            return [_result(function) for function in functions]
        waiting: list[Future[T | BaseException]] = [self._pool.submit(_result, function) for function in functions]
        return [future.result() for future in waiting]

    def share(self, num_tokens: int, longest: int, budget: int) -> int:
        """Returns the tokens of one batch, so that a job's batches come out even: `count` at a time, none left over.

        Args:
            num_tokens: Of the whole job.
            longest: Tokens of its longest item, by which a batch may miss its share.
            budget: Most tokens of one batch.
        """
        num_batches = -(-num_tokens // (budget * self.count)) * self.count
        return min(budget, max(-(-num_tokens // num_batches) + longest, SMALLEST))


def _alone(ready: Barrier) -> None:
    """One thread of torch in this one; the barrier makes every worker of the pool run it once.

    Whoever asks first in a thread gets the default of all; only after that does a number of its own last.
    """
    torch.get_num_threads()
    torch.set_num_threads(1)
    ready.wait()


def _result(function: Callable[[], T]) -> T | BaseException:
    try:
        return function()
    except Exception as error:  # noqa: BLE001 - it is the caller's, who looks at every result
        return error
