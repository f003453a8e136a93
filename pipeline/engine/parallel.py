"""Several forward batches at a time on a CPU, a thread each, instead of several threads in one batch.

Threads that share a batch wait for each other several times a layer, and all of them for one that lost its processor;
batches beside each other wait only at the end. A single batch still gets all threads.
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
        everybody = Barrier(count)
        for started in [self._pool.submit(_use_one_thread, everybody) for _ in range(count)]:
            started.result()
        torch.set_num_threads(count)  # what a worker sets also becomes the default of threads that start later

    def run(self, functions: Sequence[Callable[[], T]]) -> list[T | BaseException]:
        """Returns what each function returned or raised, once all have."""
        if self._pool is None or len(functions) == 1:
            return [_result(function) for function in functions]
        waiting: list[Future[T | BaseException]] = [self._pool.submit(_result, function) for function in functions]
        return [future.result() for future in waiting]

    def alone(self, function: Callable[[], T]) -> T:
        """Runs a function in one stream: a small product waits for other threads longer than it takes."""
        return function() if self._pool is None else self._pool.submit(function).result()

    def share(self, num_tokens: int, longest: int, budget: int) -> int:
        """Returns the tokens of one batch, so that a job's batches come out even: `count` at a time, without a rest.

        Args:
            num_tokens: Of the whole job.
            longest: Tokens of its longest item, by which a batch may miss its share.
            budget: Most tokens of one batch.
        """
        num_batches = -(-num_tokens // (budget * self.count)) * self.count
        return min(budget, max(-(-num_tokens // num_batches) + longest, SMALLEST))


def _use_one_thread(everybody: Barrier) -> None:
    """Makes torch compute with one thread in the pool's worker that runs this.

    A worker waits at the barrier until all have come, so that each runs this once. torch copies the process's default
    into a thread at its first call there, so that call must come before the setting, or it would undo it.
    """
    torch.get_num_threads()
    torch.set_num_threads(1)
    everybody.wait()


def _result(function: Callable[[], T]) -> T | BaseException:
    try:
        return function()
    except Exception as error:  # noqa: BLE001 - it is the caller's, who looks at every result
        return error
