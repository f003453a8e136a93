"""The same prompts through sentence-transformers, in a process of its own: what a user would run instead."""

import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib import metadata

INSTALL_HINT = "sentence-transformers is not installed; pip install 'refract[bench]'"
_WARM_UP = 64


@dataclass(frozen=True, slots=True)
class ReferenceRun:
    """What sentence-transformers did, or why it did nothing."""

    version: str | None
    documents_per_s: float | None = None
    peak_mb: float | None = None
    """Of its process, host memory."""
    skipped: str | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and how often it is measured."""

    device: str
    """cpu or cuda."""
    threads: int
    """Of torch."""
    runs: int
    """Repetitions; the median counts."""


def compare(folder: str, prompts: Sequence[str], num_documents: int, setting: Setting) -> ReferenceRun:
    """Encodes whole prompts with its defaults (float32, batches of 32 sorted by length) and returns the median rate.

    Args:
        folder: The model's folder.
        prompts: Every document's prompt of every task.
        num_documents: How many documents they stand for.
        setting: Where and how often.
    """
    try:
        version = metadata.version("sentence-transformers")
    except metadata.PackageNotFoundError:
        return ReferenceRun(None, skipped=INSTALL_HINT)
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            elapsed_s, peak_mb = pool.submit(_encode, folder, list(prompts), setting).result()
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, BrokenProcessPool) as error:
        return ReferenceRun(version, skipped=f"sentence-transformers {version} cannot run it ({type(error).__name__})")
    return ReferenceRun(version, num_documents / elapsed_s, peak_mb)


def _encode(folder: str, prompts: list[str], setting: Setting) -> tuple[float, float]:
    """Returns the median seconds of one pass, and the peak memory in MB. Runs in the new process."""
    import torch  # noqa: PLC0415 - the process that asks may have no sentence-transformers
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - as above

    torch.set_num_threads(setting.threads)
    model = SentenceTransformer(folder, device=setting.device, local_files_only=True)
    model.encode(prompts[:_WARM_UP], show_progress_bar=False)
    elapsed_s = []
    for _ in range(setting.runs):
        began_s = time.perf_counter()
        model.encode(prompts, show_progress_bar=False)
        elapsed_s.append(time.perf_counter() - began_s)
    return statistics.median(elapsed_s), peak_memory_mb()


def peak_memory_mb() -> float:
    """Returns the most memory this process has had resident. Linux counts in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024
