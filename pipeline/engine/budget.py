"""How many tokens one forward batch may hold: found by measuring, halved when it did not fit, regrown slowly."""

import resource
import time
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from pipeline.engine.forward import Forward
from pipeline.engine.parallel import Streams

_REGROW_AFTER = 64
"""Full batches that must pass before the budget grows again."""

_REGROW_FACTOR = 1.25
_SMALLEST = 16

_PROBE_LENGTH = 128
_FIRST_PROBE_TOKENS = 512
_MAX_TOKENS_CPU = 4_096
"""Beyond, nothing is gained."""

_MAX_BATCH_S = 0.5
"""Longest forward batch on a CPU: a query waits for one."""

_MAX_TOKENS_CUDA = 32_768
"""Activations of small models then still fit in the L2 cache of a large GPU, and launches are amortised."""

_CUDA_SHARE = 0.7
"""Of the memory that is free after loading; the rest is for fragments and for longer prompts than the probe's."""

_CPU_SHARE = 0.25


class TokenBudget:
    """The token budget of one engine. Used from one thread."""

    def __init__(self, measured: int) -> None:
        self.measured = measured
        """Ceiling: what was found at load or configured."""
        self.tokens = measured
        self.num_failures = 0
        self._passed = 0

    def succeeded(self, num_tokens: int) -> None:
        """Counts a batch that fitted. Small ones prove nothing."""
        if self.tokens >= self.measured or num_tokens * 2 < self.tokens:
            return
        self._passed += 1
        if self._passed >= _REGROW_AFTER:
            self._passed = 0
            self.tokens = min(int(self.tokens * _REGROW_FACTOR) + 1, self.measured)

    def failed(self, num_tokens: int) -> None:
        """Halves: a batch of that many tokens ran out of memory."""
        self.num_failures += 1
        self._passed = 0
        self.tokens = max(min(self.tokens, num_tokens) // 2, _SMALLEST)


def measure_budget(forward: Forward, max_length: int, streams: Streams) -> int:
    """Returns the tokens of one forward batch that this model on this device should get.

    CUDA: what fits, from the memory one probe takes. CPU: the largest size, doubling from 512, that takes half a
    second at most, within a quarter of the free memory. Items of like length then come in larger groups, which
    attention wants; the linear layers gain nothing any more.
    """
    length = min(_PROBE_LENGTH, max_length)
    if forward.device.type == "cuda":
        return _fitting_on_cuda(forward, length)
    return _best_on_cpu(forward, length, streams)


def _fitting_on_cuda(forward: Forward, length: int) -> int:
    _probe(forward, length, _FIRST_PROBE_TOKENS)
    torch.cuda.synchronize(forward.device)
    before = torch.cuda.memory_allocated(forward.device)
    torch.cuda.reset_peak_memory_stats(forward.device)
    num_tokens = _probe(forward, length, 4 * _FIRST_PROBE_TOKENS)
    torch.cuda.synchronize(forward.device)
    bytes_per_token = max((torch.cuda.max_memory_allocated(forward.device) - before) / num_tokens, 1)
    free, _ = torch.cuda.mem_get_info(forward.device)
    return int(max(min(free * _CUDA_SHARE / bytes_per_token, _MAX_TOKENS_CUDA), length))


def _best_on_cpu(forward: Forward, length: int, streams: Streams) -> int:
    _probe(forward, length, length)
    best, size = length, _FIRST_PROBE_TOKENS
    limit = _MAX_TOKENS_CPU
    while size <= limit:
        peak_before, start_s = _peak_bytes(), time.process_time()
        num_tokens = sum(_values(streams.run([partial(_probe, forward, length, size)] * streams.count)))
        # Processor time: at a start other processes load, too, and the clock on the wall would count them.
        elapsed_s = (time.process_time() - start_s) / streams.count
        if size == _FIRST_PROBE_TOKENS or elapsed_s <= _MAX_BATCH_S:
            best = num_tokens // streams.count
        if 2 * elapsed_s > _MAX_BATCH_S:
            break
        grown = _peak_bytes() - peak_before
        if grown > 0:
            limit = min(limit, int(_available_bytes() * _CPU_SHARE / (grown / num_tokens)))
        size *= 2
    return best


def _probe(forward: Forward, length: int, num_tokens: int) -> int:
    """Runs one batch of about so many tokens and returns how many it held."""
    num_items = max(num_tokens // length, 1)
    ids = np.zeros((num_items, length), np.int32)
    forward.states(ids)
    return num_items * length


def _values(results: Sequence[int | BaseException]) -> list[int]:
    failed = [result for result in results if isinstance(result, BaseException)]
    if failed:
        raise failed[0]
    return [result for result in results if isinstance(result, int)]


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _available_bytes() -> int:
    """MemAvailable of Linux; a machine without it is taken to have 4 GiB."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:  # noqa: PTH123 - not a path of ours
            found = next(line for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 4 << 30
    return int(found.split()[1]) * 1024
