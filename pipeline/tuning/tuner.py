"""One training from labelled texts to figures: split, train, measure. Writes nothing but checkpoints."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.binding import ModelIdentity
from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.engine.entry import identify
from pipeline.engine.prompts import build_prompts
from pipeline.engine.spec import ModelSpec, resolve
from pipeline.engine.weights import pick_device
from pipeline.errors import ConfigError
from pipeline.interfaces import Progress
from pipeline.quality.evaluation import Evaluation
from pipeline.quality.labels import Label
from pipeline.records.batches import Float32, Int64
from pipeline.tuning.encoder import LoraEncoder
from pipeline.tuning.fitting import Head, HeadLesson, fit_head, fold_kappa, shuffled
from pipeline.tuning.fold import Fold
from pipeline.tuning.general import General, general_recall, settle
from pipeline.tuning.job import LoraJob, Trainer, run_id, train_here
from pipeline.tuning.lessons import LabelLesson
from pipeline.tuning.loop import Length, TrainingOutcome, Watch
from pipeline.tuning.matrix import measure
from pipeline.tuning.settings import LoraSettings
from pipeline.tuning.split import Split, copy_groups, split_texts
from pipeline.tuning.texts import LabelledTexts
from pipeline.tuning.wordings import PLAIN, Wordings


@dataclass(frozen=True, slots=True)
class Tuned:
    """What one method came to."""

    method: str
    score: float
    """On the selection fold."""
    after: Evaluation
    """On the report fold."""
    shuffled: Mapping[str, float] | None
    """κ of each task on the report fold, learned from labels dealt out at random; None where that was not asked."""
    general: General | None
    """None for heads: they change nothing of the model."""
    outcome: TrainingOutcome | None
    """Of the LoRA loop."""
    heads: Mapping[str, Head]
    """Empty for LoRA."""


class Tuner:
    """Labelled texts and a model, ready to be trained by either method. One thread."""

    def __init__(
        self,
        model: ModelConfig,
        tasks: Mapping[str, TaskConfig],
        data: LabelledTexts,
        wordings: Mapping[str, list[str]],
        settings: LoraSettings,
    ) -> None:
        """Loads the model, embeds the texts as they are, splits them and measures the report fold.

        Args:
            model: Trained without its configured adapter.
            tasks: The tasks to train, all of this model, without heads.
            data: With a label per task.
            wordings: Other wordings of some tasks' instructions.
            settings: Of the LoRA loop; the seed is of everything.

        Raises:
            ConfigError: the model cannot work as configured, or a fold would be empty.
        """
        self.data = data
        self.settings = settings
        self._model = model.model_copy(update={"adapter": None})
        self.spec = resolve(self._model, weights=True)
        self.tasks = dict(tasks)
        self.wordings = Wordings({name: task.instruction or "" for name, task in tasks.items()}, wordings)
        self.has_plain = has_plain_form(self.spec, self.tasks)
        self.encoder = LoraEncoder(self.spec, self._prompts(), pick_device(model), settings)
        self._names = [*self.tasks, *([PLAIN] if self.has_plain else [])]
        with self.encoder.untrained():
            self._vectors = self._embed(self.encoder, list(data.texts))
        first = self._vectors[PLAIN if self.has_plain else next(iter(tasks))]
        self.split: Split = split_texts(list(data.labels.values()), copy_groups(first), seed=settings.seed)
        if not all(len(fold) > 1 for fold in (self.split.train, self.split.select, self.split.report)):
            raise ConfigError(f"{len(data.texts):,} distinct labelled texts are too few to train, select and report on")
        self.before = self._measure({name: rows[self.split.report] for name, rows in self._vectors.items()})

    @property
    def identity(self) -> ModelIdentity:
        """What the model below is."""
        return identify(self._model)

    def lora(
        self, length: Length, file: Path, watch: Watch, train: Trainer = train_here, *, keep_general: bool = True
    ) -> Tuned:
        """Trains the adapter; continues from the checkpoint of the same run. The encoder holds the result.

        Args:
            length: Steps or minutes.
            file: The checkpoint.
            watch: Called after every step.
            train: Takes the steps.
            keep_general: Whether the updates are scaled down where general ability would be lost else.
        """
        recall = None
        if self.has_plain:
            with self.encoder.untrained():
                recall = general_recall(self.encoder)
        outcome = train(self._job(self.data.labels, file, length), self.encoder, watch)
        general = settle(self.encoder, recall, keep=keep_general)
        report, select = ([self.data.texts[row] for row in fold] for fold in (self.split.report, self.split.select))
        after = self._measure(self._embed(self.encoder, report))
        score = Fold(self.data.labels, self.split.select, seed=self.settings.seed).score(
            self.encoder.embed(select, list(self.tasks))
        )
        return Tuned("lora", score.value, after, None, general, outcome, {})

    def lora_control(
        self, length: Length, file: Path, watch: Watch, train: Trainer = train_here
    ) -> dict[str, float] | None:
        """Trains on shuffled labels in the same way. Returns κ by task on the report fold; None if interrupted."""
        dealt = shuffled(self.data.labels, seed=self.settings.seed)
        encoder = LoraEncoder(self.spec, self._prompts(), self.encoder.device, self.settings)
        file = file.with_name(f"shuffled-{file.name}")
        if train(self._job(dealt, file, length), encoder, watch).stopped is not None:
            return None
        rows = self.split.report
        vectors = self._embed(encoder, [self.data.texts[row] for row in rows])
        return {task: fold_kappa(vectors[task], dealt[task], rows) for task in self.tasks}

    def heads(self, progress: Progress) -> Tuned:
        """Fits a head per task, and one on shuffled labels."""
        heads = {}
        for task in self.tasks:
            progress(f"fitting the head of {task}", 0, 0)
            heads[task] = self._fit(task, self.data.labels)
        progress("fitting heads to shuffled labels", 0, 0)
        dealt = shuffled(self.data.labels, seed=self.settings.seed)
        rows = self.split.report
        control = {}
        for task in self.tasks:
            vectors = self._fit(task, dealt).apply(self._vectors[task][rows], self.encoder.dimension(task))
            control[task] = fold_kappa(vectors, dealt[task], rows)
        score = Fold(self.data.labels, self.split.select, seed=self.settings.seed).score(
            self._behind(heads, self.split.select)
        )
        after = self._measure(self._behind(heads, rows) | self._plain(rows))
        return Tuned("head", score.value, after, control, None, None, heads)

    def _fit(self, task: str, labels: Mapping[str, Label]) -> Head:
        others = [label for name, label in labels.items() if name != task]
        split = self.split
        lesson = HeadLesson(
            self._vectors[task], labels[task], others, split.train, split.select, self.encoder.dimension(task)
        )
        return fit_head(lesson, seed=self.settings.seed)

    def _behind(self, heads: Mapping[str, Head], rows: Int64) -> dict[str, Float32]:
        return {
            task: head.apply(self._vectors[task][rows], self.encoder.dimension(task)) for task, head in heads.items()
        }

    def _plain(self, rows: Int64) -> dict[str, Float32]:
        return {PLAIN: self._vectors[PLAIN][rows]} if self.has_plain else {}

    def _job(self, labels: Mapping[str, Label], file: Path, length: Length) -> LoraJob:
        data, split = self.data, self.split
        lesson = LabelLesson(
            data.texts, labels, split.train, split.select, self.wordings, self.has_plain, self.settings
        )
        run = run_id(self.spec, self._prompts(), self.settings, length, data.sha256)
        return LoraJob(self._model, self._prompts(), lesson, self.settings, file, run, length)

    def _prompts(self) -> dict[str, TaskConfig]:
        """Every wording of every task, and the plain form."""
        found = {
            self.wordings.prompt(name, number): task.model_copy(
                update={"instruction": text if task.instruction is not None else None}
            )
            for name, task in self.tasks.items()
            for number, text in enumerate(self.wordings.by_task[name] if task.instruction is not None else [""])
        }
        if self.has_plain:
            found[PLAIN] = TaskConfig(model=next(iter(self.tasks.values())).model)
        return found

    def _embed(self, encoder: LoraEncoder, texts: list[str]) -> dict[str, Float32]:
        """Returns the vectors of texts under each task and without an instruction."""
        return encoder.embed(texts, self._names)

    def _measure(self, vectors: Mapping[str, Float32]) -> Evaluation:
        plain = vectors.get(PLAIN)
        return measure(self.data.labels, self.split.report, vectors, plain, seed=self.settings.seed)


def has_plain_form(spec: ModelSpec, tasks: Mapping[str, TaskConfig]) -> bool:
    """Whether the model of some tasks has a form without an instruction."""
    try:
        build_prompts(spec, {PLAIN: TaskConfig(model=next(iter(tasks.values())).model)})
    except ConfigError:
        return False
    return True


def check_reads_instructions(spec: ModelSpec, tasks: Mapping[str, TaskConfig]) -> None:
    """Raises ConfigError unless the tasks' instructions reach the model: LoRA has nothing to tell tasks apart else."""
    missing = [name for name, task in tasks.items() if task.instruction is None]
    if missing:
        raise ConfigError(f"tasks.{missing[0]}.instruction is missing; --method lora trains a model to read it")
    prompts = build_prompts(spec, tasks)
    contents = {prompts[name].content for name in tasks}
    if len(contents) < len(tasks):
        raise ConfigError(
            "two of the tasks have equal prompts, so one adapter cannot tell them apart: give them different "
            "instructions, or use --method head"
        )
