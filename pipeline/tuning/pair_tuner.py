"""One training from pairs of queries and documents to figures. Writes nothing but checkpoints."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.engine.spec import resolve
from pipeline.engine.weights import pick_device
from pipeline.errors import ConfigError
from pipeline.quality.labels import Label
from pipeline.tuning.encoder import LoraEncoder
from pipeline.tuning.general import General, general_recall, settle
from pipeline.tuning.job import LoraJob, Trainer, run_id, train_here
from pipeline.tuning.lessons import PairLesson
from pipeline.tuning.loop import Length, TrainingOutcome, Watch
from pipeline.tuning.query_pairs import PairScore, PairTexts, pair_groups, score_pairs
from pipeline.tuning.settings import LoraSettings
from pipeline.tuning.split import Split, copy_groups, split_texts
from pipeline.tuning.tuner import has_plain_form
from pipeline.tuning.wordings import PLAIN

_REPLICATES = 1_000


@dataclass(frozen=True, slots=True)
class TunedPairs:
    """What a run came to."""

    outcome: TrainingOutcome
    after: PairScore
    """On the report fold."""
    general: General | None
    """None where the model has no form without an instruction."""


class PairTuner:
    """Pairs and a model, ready to be trained. One thread."""

    def __init__(
        self, model: ModelConfig, tasks: Mapping[str, TaskConfig], data: PairTexts, settings: LoraSettings
    ) -> None:
        """Loads the model, embeds the documents as they are, splits the pairs and measures the report fold.

        Args:
            model: Trained without its configured adapter.
            tasks: Retrieval tasks of this model, without heads.
            data: Pairs of these tasks.
            settings: Of the LoRA loop; the seed is of everything.

        Raises:
            ConfigError: the model cannot work as configured, or a fold would be empty.
        """
        self.data = data
        self.settings = settings
        self.tasks = dict(tasks)
        self._model = model.model_copy(update={"adapter": None})
        self.spec = resolve(self._model, weights=True)
        self.has_plain = has_plain_form(self.spec, self.tasks)
        self.encoder = LoraEncoder(self.spec, self._prompts(), pick_device(model), settings)
        with self.encoder.untrained():
            self._recall = general_recall(self.encoder) if self.has_plain else None
            self.split = self._split()
            self.before = self._score()

    def lora(
        self, length: Length, file: Path, watch: Watch, train: Trainer = train_here, *, keep_general: bool = True
    ) -> TunedPairs:
        """Trains the adapter; continues from the checkpoint of the same run. The encoder holds the result.

        Args:
            length: Steps or minutes.
            file: The checkpoint.
            watch: Called after every step.
            train: Takes the steps.
            keep_general: Whether the updates are scaled down where general ability would be lost else.
        """
        lesson = PairLesson(self.data, self.split.train, self.split.select, self.has_plain, self.settings)
        run = run_id(self.spec, self._prompts(), self.settings, length, self.data.sha256)
        job = LoraJob(self._model, self._prompts(), lesson, self.settings, file, run, length)
        outcome = train(job, self.encoder, watch)
        general = settle(self.encoder, self._recall, keep=keep_general)
        return TunedPairs(outcome, self._score(), general)

    def _split(self) -> Split:
        """Deals the pairs out, each instruction its share; near copies and equal queries stay together."""
        task = self.data.pairs[0].task
        groups = np.arange(len(self.data.documents))
        if len(groups) > 1:
            groups = copy_groups(self.encoder.embed(self.data.documents, [task])[task])
        prompts = list(dict.fromkeys(pair.query_prompt for pair in self.data.pairs))
        codes = np.array([prompts.index(pair.query_prompt) for pair in self.data.pairs], np.int64)
        label = Label("instruction", tuple(prompts), codes)
        split = split_texts([label], pair_groups(self.data.pairs, groups), seed=self.settings.seed)
        if not all(len(fold) > 1 for fold in (split.train, split.select, split.report)):
            raise ConfigError(f"{len(self.data.pairs):,} distinct pairs are too few to train, select and report on")
        return split

    def _score(self) -> PairScore:
        found = score_pairs(self.encoder, self.data, self.split.report, seed=self.settings.seed, replicates=_REPLICATES)
        if found is None:
            raise ConfigError(f"{self.spec.files.name}: its vectors are not finite; nothing can be trained on them")
        return found

    def _prompts(self) -> dict[str, TaskConfig]:
        plain = {PLAIN: TaskConfig(model=next(iter(self.tasks.values())).model)} if self.has_plain else {}
        return {**self.data.tasks, **plain}
