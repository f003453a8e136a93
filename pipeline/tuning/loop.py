"""The LoRA loop: draws a batch, takes a step, and now and then keeps the best state on texts it does not train on."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import EnvironmentFault
from pipeline.quality.labels import Label
from pipeline.records.batches import Int64
from pipeline.tuning.checkpoint import TrainingState, read_state, restore, write_checkpoint
from pipeline.tuning.encoder import LoraEncoder, cut
from pipeline.tuning.fold import Fold
from pipeline.tuning.grids import GridSampler
from pipeline.tuning.loss import contrastive_loss, keeping_loss
from pipeline.tuning.settings import LoraSettings, default_learning_rate
from pipeline.tuning.wordings import Wordings

PLAIN = "#plain"
"""Prompt name of a text without an instruction."""

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


@dataclass(frozen=True, slots=True)
class Lesson:
    """What is to be learned."""

    texts: Sequence[str]
    labels: Mapping[str, Label]
    """Of each task, over all texts."""
    train: Int64
    """Texts to learn from."""
    select: Int64
    """Texts that decide which state is kept."""
    wordings: Wordings
    has_plain: bool
    """Whether the model has a form without an instruction."""


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

    def __init__(self, encoder: LoraEncoder, lesson: Lesson, settings: LoraSettings, file: Path, *, run: str) -> None:
        """Nothing is computed yet.

        Args:
            encoder: Untrained.
            lesson: Texts, labels and folds.
            settings: Of the run.
            file: The checkpoint.
            run: Hash of everything that decides the run.
        """
        self._encoder = encoder
        self._lesson = lesson
        self._settings = settings
        self._file = file
        self._fold = Fold(lesson.labels, lesson.select, seed=settings.seed)
        self._sampler = GridSampler(list(lesson.labels.values()), lesson.train, settings.texts, seed=settings.seed)
        rate = settings.learning_rate or default_learning_rate(encoder.spec.hidden_size)
        self._rate = rate
        self._optimizer = torch.optim.AdamW(list(encoder.weights.values()), lr=rate, weight_decay=0.01)
        known = read_state(file)
        self._state = known if known is not None and known.run == run else TrainingState(run)
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
        if not state.scores:
            state.scores.append((0, self._score()))
            state.best_score = state.scores[0][1]
        if state.steps is None:
            state.steps = length.steps
        try:
            stopped = self._steps(length, watch)
        except KeyboardInterrupt:
            if not state.best_step:
                raise
            stopped = f"interrupted after {state.step} steps"
        self._encoder.load(self._best or self._zero())
        return TrainingOutcome(state, state.scores[0][1], stopped)

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
                state.steps = _steps_within((length.minutes or 0) * 60 - sum(measured), measured, state.step)
            if not self._look(step_s):
                return self._diverged(state.step - 1)
            state.seconds += time.monotonic() - step_s
            watch(self._facts(loss, (time.monotonic() - begin_s) / len(measured)))
        self._save()
        return None

    def _step(self, step: int) -> float:
        """Takes one step and returns its loss; weights stay as they are where that is not finite."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate * self._schedule(step)
        random = np.random.default_rng([self._settings.seed, step, 1])
        rows = self._sampler.draw(step)
        self._encoder.train(seed=int(random.integers(2**31)))
        loss = self._loss(rows, random)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call] # torch leaves it bare
        norm = torch.nn.utils.clip_grad_norm_(list(self._encoder.weights.values()), 1.0)
        if not math.isfinite(float(norm)):
            return math.nan
        self._optimizer.step()
        return loss.item()

    def _loss(self, rows: Int64, random: np.random.Generator) -> Tensor:
        texts = [self._lesson.texts[row] for row in rows]
        if self._lesson.has_plain and random.random() < self._settings.plain_share:
            with self._encoder.untrained():
                (reference,) = self._encoder.rows(texts, [PLAIN])
            self._encoder.train(seed=int(random.integers(2**31)))
            return keeping_loss(self._encoder.rows(texts, [PLAIN])[0], reference, self._settings.temperature)
        prompts = [self._lesson.wordings.draw(task, random) for task in self._lesson.labels]
        found = self._encoder.rows(texts, prompts)
        losses = []
        for part, (task, label) in zip(found, self._lesson.labels.items(), strict=True):
            codes = torch.from_numpy(label.codes[rows]).to(part.device)
            widths = sorted({self._encoder.dimension(task), part.shape[1]})
            losses += [
                contrastive_loss(cut(part, width, self._encoder.spec), codes, self._settings.temperature) / len(widths)
                for width in widths
            ]
        return torch.stack(losses).sum() / len(self._lesson.labels)

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
        texts = [self._lesson.texts[row] for row in self._lesson.select]
        vectors = self._encoder.embed(texts, list(self._lesson.labels))
        if not all(np.isfinite(rows).all() for rows in vectors.values()):
            return math.nan
        return self._fold.score(vectors).value

    def _save(self) -> None:
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
