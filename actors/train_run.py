"""Trains LoRA on Ray: workers of Ray Train that take every step together, and a checkpoint from which to go on."""

import os
import shutil
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from actors.boot import signal_handlers_kept
from actors.cluster import cluster, root_cause
from pipeline.errors import ConfigError, RefractError
from pipeline.tuning.encoder import LoraEncoder
from pipeline.tuning.job import LoraJob, outcome_of, train_in_team
from pipeline.tuning.loop import StepFacts, TrainingOutcome, Watch
from pipeline.tuning.team import ProcessGroup

_TURN_S = 0.5
"""Between two looks at what the workers report."""

_RECORDS = "ray"
"""Folder of Ray Train's own records, beside the checkpoint."""


class RayTrainer:
    """A `pipeline.tuning.job.Trainer` whose steps are taken by several workers, on a cluster that exists or its own.

    The first worker writes the checkpoint, to a disk that this process sees, too. From it a killed run goes on, and
    the result is taken. An interrupt ends the workers; what they have saved by then counts.
    """

    def __init__(self, workers: int, address: str | None) -> None:
        """Takes the number of workers, and the cluster to join; None starts one on this machine for each run.

        Raises ConfigError where Ray Train is not installed.
        """
        try:
            import ray.train.torch  # noqa: F401, PLC0415 - whether it can be imported: it needs an extra, and seconds
        except ImportError:
            raise ConfigError("--workers needs Ray Train: pip install 'refract[workers]'") from None
        self._workers = workers
        self._address = address

    def __call__(self, job: LoraJob, encoder: LoraEncoder, watch: Watch) -> TrainingOutcome:
        """See Trainer.

        Raises:
            ConfigError: the cluster will never have a CPU, or on CUDA a GPU, for each worker.
            RefractError: a worker failed; what is saved by then is continued by the next run.
            TransientError: the cluster cannot be reached or started.
        """
        job = _anywhere(job)
        resource = "GPU" if encoder.device.type == "cuda" else "CPU"
        stopped: str | None = None
        try:
            with ExitStack() as stack:
                with signal_handlers_kept():
                    needed = {resource: self._workers}
                    stack.enter_context(cluster(self._address, "refract-tune", needed, keys="--workers, one each"))
                stopped = self._run(job, resource, watch)
        except KeyboardInterrupt:
            stopped = "interrupted"
        return outcome_of(job, encoder, stopped)

    def _run(self, job: LoraJob, resource: str, watch: Watch) -> str | None:
        """Returns why the workers ended early, None where they did not."""
        board = _board()
        failures: list[Exception] = []
        fitting = threading.Thread(target=partial(self._fit, job, resource, board, failures), daemon=True)
        fitting.start()
        stopped: str | None = None
        while True:
            is_over = not fitting.is_alive()
            for found in ray.get(board.take.remote()):
                if isinstance(found, StepFacts):
                    watch(found)
                else:
                    stopped = found
            if is_over:
                break
            time.sleep(_TURN_S)
        if failures:
            raise RefractError(f"a worker failed: {root_cause(str(failures[0]))}") from failures[0]
        return stopped

    def _fit(self, job: LoraJob, resource: str, board: Any, failures: list[Exception]) -> None:
        """Runs in a thread of its own: Ray Train would take Ctrl-C for itself in the main one."""
        from ray.train import RunConfig, ScalingConfig  # noqa: PLC0415 - as in __init__
        from ray.train.torch import TorchConfig, TorchTrainer  # noqa: PLC0415 - as in __init__

        os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # paths of the configuration stay what they are
        records = job.file.parent / _RECORDS
        shutil.rmtree(records, ignore_errors=True)  # Ray Train would continue what it finds there, in its own way
        try:
            TorchTrainer(
                partial(_work, job, board),
                torch_config=TorchConfig(backend="nccl" if resource == "GPU" else "gloo"),
                scaling_config=ScalingConfig(num_workers=self._workers, use_gpu=resource == "GPU"),
                run_config=RunConfig(name="lora", storage_path=str(records)),
            ).fit()
        except (RayError, RuntimeError) as error:
            failures.append(error)


class _Board:
    """What the first worker reports, until it is taken."""

    def __init__(self) -> None:
        self._found: list[StepFacts | str] = []

    def put(self, found: StepFacts | str) -> None:
        """Takes a step, or why the run has stopped."""
        self._found.append(found)

    def take(self) -> Sequence[StepFacts | str]:
        """Returns what is new."""
        found, self._found = self._found, []
        return found


def _board() -> Any:
    return ray.remote(num_cpus=0)(_Board).remote()


def _work(job: LoraJob, board: Any) -> None:
    """What each worker does."""
    team = ProcessGroup()

    def report(found: StepFacts) -> None:
        if team.rank == 0:
            board.put.remote(found)

    stopped = train_in_team(job, team, report).stopped
    if stopped is not None and team.rank == 0:
        ray.get(board.put.remote(stopped))


def _anywhere(job: LoraJob) -> LoraJob:
    """Returns the job with paths that hold in every folder."""
    folder = Path(job.model.model).expanduser()
    model = job.model.model_copy(update={"model": str(folder.resolve())}) if folder.is_dir() else job.model
    return replace(job, model=model, file=job.file.resolve())
