"""The LoRA loop: takes one step after another, and now and then keeps the best state on texts it does not train on."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import EnvironmentFault
from pipeline.tuning.checkpoint import TrainingState, read_state, restore, write_checkpoint
from pipeline.tuning.encoder import LoraEncoder
from pipeline.tuning.general import general_texts
from pipeline.tuning.rehearsal import Rehearsal
from pipeline.tuning.settings import LoraSettings, default_learning_rate
from pipeline.tuning.team import ALONE, Team

MEASURED_STEPS = 5
"""Steps whose time decides how many fit into the minutes given."""

_SELECTIONS = 8
"""Times that a run looks at its selection fold."""

_CHECKPOINT_S = 20.0
"""Between two checkpoints: what a killed run loses at most, apart from a step."""


@dataclass(frozen=True, slots=True)
class Length:
    """How long a run takes: so many steps, or as many as fit into so much time."""

    steps: int | None = None
    minutes: float | None = None


@dataclass(frozen=True, slots=True)
class StepFacts:
    """A finished step, for a progress line."""

    step: int
    steps: int | None
    """None while they are being measured."""
    loss: float
    score: float | None
    """The latest selection score."""
    best_score: float | None
    best_step: int
    remaining_s: float | None


Watch = Callable[[StepFacts], None]
"""Called after every step."""


class Lesson(Protocol):
    """What is to be learned: what a step minimises, and by what a state is judged."""

    @property
    def has_plain(self) -> bool:
        """Whether the model has a form without an instruction."""

    def loss(self, encoder: LoraEncoder, number: int, random: np.random.Generator) -> Tensor:
        """Returns the loss of a batch, a scalar with gradients.

        Args:
            encoder: In training, dropout on.
            number: Of the batch; equal numbers give equal batches.
            random: For all that is drawn beside the batch itself.
        """

    def score(self, encoder: LoraEncoder) -> float:
        """Returns how good the selection fold is, the higher the better; NaN where its vectors are not finite."""


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """How a run ended."""

    state: TrainingState
    plain_score: float
    """Of the model as it was."""
    stopped: str | None
    """Why it ended before its last step."""


class LoraLoop:
    """One run over one lesson. It continues from the checkpoint of the same run where there is one."""

    def __init__(  # noqa: PLR0913 - a run is all of these
        self,
        encoder: LoraEncoder,
        lesson: Lesson,
        settings: LoraSettings,
        file: Path,
        *,
        run: str,
        team: Team = ALONE,
    ) -> None:
        """Nothing is computed yet.

        Args:
            encoder: Untrained.
            lesson: What is learned.
            settings: Of the run.
            file: The checkpoint; the first worker writes it, and all of them read it.
            run: Hash of everything that decides the run.
            team: The workers that take every step together.
        """
        self._encoder = encoder
        self._lesson = lesson
        self._settings = settings
        self._file = file
        self._team = team
        rate = settings.learning_rate or default_learning_rate(encoder.spec.hidden_size)
        self._rate = rate
        self._optimizer = torch.optim.AdamW(list(encoder.weights.values()), lr=rate, weight_decay=0.01)
        known = read_state(file)
        self._state = known if known is not None and known.run == run else TrainingState(run)
        self._rehearsal: Rehearsal | None = None
        self._best: dict[str, Tensor] = {}
        if self._state.step:
            self._best = restore(file, encoder.weights, self._optimizer)
        self._saved_s = time.monotonic()

    @property
    def state(self) -> TrainingState:
        """How far the run is."""
        return self._state

    def run(self, length: Length, watch: Watch) -> TrainingOutcome:
        """Trains, and leaves the best state in the encoder.

        An interrupt (Ctrl-C) and a loss that is not finite end the run early with the best state so far.

        Raises:
            EnvironmentFault: the loss was not finite before any state was worth keeping, or the disk is full.
            KeyboardInterrupt: before any state was worth keeping.
        """
        state, stopped = self._state, None
        self._team.check_equal(state.step, "of the checkpoint; --output must be on a disk that all workers share")
        if not state.scores:
            state.scores.append((0, self._score()))
            state.best_score = state.scores[0][1]
        if state.steps is None:
            state.steps = length.steps
        if self._lesson.has_plain and self._settings.rehearsal:
            self._rehearsal = Rehearsal(self._encoder, general_texts(), self._settings.rehearsal)
        try:
            stopped = self._steps(length, watch)
        except KeyboardInterrupt:
            if not state.best_step:
                raise
            stopped = f"interrupted after {state.step} steps"
        return self.conclude(stopped)

    def conclude(self, stopped: str | None) -> TrainingOutcome:
        """Puts the best state so far into the encoder. Raises KeyboardInterrupt where there is none worth keeping."""
        if not self._state.scores or (stopped is not None and not self._state.best_step):
            raise KeyboardInterrupt
        self._encoder.load(self._best or self._zero())
        return TrainingOutcome(self._state, self._state.scores[0][1], stopped)

    def _steps(self, length: Length, watch: Watch) -> str | None:
        state, begin_s = self._state, time.monotonic()
        measured: list[float] = []
        while state.steps is None or state.step < state.steps:
            step_s = time.monotonic()
            loss = self._step(state.step)
            if not math.isfinite(loss):
                return self._diverged(state.step)
            measured.append(time.monotonic() - step_s)
            state.step += 1
            if state.steps is None and len(measured) == MEASURED_STEPS:
                remaining_s = (length.minutes or 0) * 60 - sum(measured)
                state.steps = int(self._team.first(partial(_steps_within, remaining_s, measured, state.step)))
            if not self._look(step_s):
                return self._diverged(state.step - 1)
            state.seconds += time.monotonic() - step_s
            watch(self._facts(loss, (time.monotonic() - begin_s) / len(measured)))
        self._save()
        return None

    def _step(self, step: int) -> float:
        """Takes one step and returns its loss; weights stay as they are where that is not finite.

        Each worker has a batch of its own, and the mean of their gradients is what a step follows.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate * self._schedule(step)
        number = step * self._team.size + self._team.rank
        random = np.random.default_rng([self._settings.seed, number, 1])
        self._encoder.train(seed=int(random.integers(2**31)))
        loss = self._lesson.loss(self._encoder, number, random)
        if self._rehearsal is not None:
            loss = loss + self._rehearsal.loss(random, self._settings.temperature)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call] # torch leaves it bare
        weights = list(self._encoder.weights.values())
        mean_loss = self._team.average(weights, loss.item())
        norm = torch.nn.utils.clip_grad_norm_(weights, 1.0)
        if not math.isfinite(float(norm)):
            return math.nan
        self._optimizer.step()
        return mean_loss

    def _schedule(self, step: int) -> float:
        warmup = self._settings.warmup_steps
        total = self._state.steps
        rising = min(1.0, (step + 1) / warmup) if warmup else 1.0
        if total is None or total <= warmup:
            return rising
        return rising * min(1.0, (total - step) / (total - warmup))

    def _look(self, step_s: float) -> bool:
        """Scores the selection fold when it is time to, and writes a checkpoint when one is due.

        Returns whether the vectors are finite, as far as was looked.
        """
        state = self._state
        is_last = state.step == state.steps
        if is_last or (state.steps is not None and state.step % max(1, state.steps // _SELECTIONS) == 0):
            score = self._score()
            if not math.isfinite(score):
                return False
            state.scores.append((state.step, score))
            if state.best_score is None or score > state.best_score:
                state.best_score, state.best_step = score, state.step
                self._best = {name: value.detach().clone() for name, value in self._encoder.weights.items()}
        if is_last or step_s - self._saved_s >= _CHECKPOINT_S or state.best_step == state.step:
            self._save()
        return True

    def _score(self) -> float:
        return self._team.first(lambda: self._lesson.score(self._encoder))

    def _save(self) -> None:
        if self._team.rank == 0:
            write_checkpoint(self._file, self._state, self._encoder.weights, self._optimizer, self._best)
        self._saved_s = time.monotonic()

    def _diverged(self, step: int) -> str:
        if not self._best:
            raise EnvironmentFault(
                f"the loss of step {step + 1} is not a number, and no earlier state was better than the untrained "
                "model; try a lower --learning-rate"
            )
        return f"the loss of step {step + 1} is not a number"

    def _zero(self) -> dict[str, Tensor]:
        """The state in which nothing was learned: one factor of every update is zero."""
        return {
            name: torch.zeros_like(value) if "lora_B" in name else value.detach().clone()
            for name, value in self._encoder.weights.items()
        }

    def _facts(self, loss: float, step_s: float) -> StepFacts:
        state = self._state
        return StepFacts(
            step=state.step,
            steps=state.steps,
            loss=loss,
            score=state.scores[-1][1],
            best_score=state.best_score,
            best_step=state.best_step,
            remaining_s=None if state.steps is None else (state.steps - state.step) * step_s,
        )


def _steps_within(remaining_s: float, measured: Sequence[float], done: int) -> int:
    """Returns the steps that fit; a tenth of the time goes to selection, and the first step is slower than the rest."""
    per_step = float(np.median(measured))
    return max(done + 1, done + int(remaining_s * 0.9 / per_step))
