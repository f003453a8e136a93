"""Trains a model's tasks on labelled records: an adapter that reads their instructions, or a head for each."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pipeline.backfill.selection import chosen_topic
from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.config.yaml_loader import load_yaml
from pipeline.context import Context
from pipeline.errors import ConfigError, RefractError, nearest
from pipeline.interfaces import Progress
from pipeline.quality.paraphrases import read_wordings
from pipeline.usecases.labelled import Draw, LabelledInput, read_labelled

if TYPE_CHECKING:
    from pipeline.tuning.loop import Length, Watch
    from pipeline.tuning.settings import LoraSettings
    from pipeline.tuning.texts import LabelledTexts
    from pipeline.tuning.tuner import Tuned, Tuner

Method = Literal["lora", "head", "auto"]
METHODS: tuple[Method, ...] = get_args(Method)

_OPTIONAL = frozenset({"peft", "scipy", "sklearn"})

DEFAULT_STEPS = 300
"""Of LoRA where neither steps nor minutes are given."""

_FEW_ROWS = 8
"""Rows of a class below which it is named."""

_CHANCE = 0.15
"""κ that shuffled labels may reach; above it something tells a text by more than its label."""


@dataclass(frozen=True, slots=True)
class TuneRequest:
    """What to train, on what, for how long."""

    inputs: Sequence[str]
    """Files, folders, globs or Kafka ranges, as of a backfill."""
    tasks: Sequence[str]
    output: Path
    """The folder to write; must not exist."""
    method: Method = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    """Task -> column of its label; else the column of the task's name."""
    topic: str | None = None
    """Whose template makes the text; None: the only one."""
    steps: int | None = None
    minutes: float | None = None
    seed: int = 0
    wordings: Path | None = None
    """YAML or JSON: task -> other wordings of its instruction."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `LoraSettings` that differ from their defaults."""
    control: bool = False
    """Whether LoRA is trained a second time, on shuffled labels."""
    allow_drop: bool = False
    """Whether the model may lose general ability."""
    base: str | None = None
    """Written into the adapter as the name of its model; None: the hub id or the folder it was loaded from."""
    max_texts: int = 100_000


@dataclass(frozen=True, slots=True)
class TuneReport:
    """What a run came to. `card` is card.json of the folder."""

    method: str
    output: str
    why: str
    """Why this method was kept."""
    card: Mapping[str, Any]
    notes: Sequence[str]
    """What limits the figures, a sentence each."""
    use: Sequence[str]
    """Lines of the configuration by which the result is served."""


def tune(context: Context, request: TuneRequest, progress: Progress, watch: "Watch") -> TuneReport:
    """Trains, measures, and writes the folder. The same request continues where it was killed.

    Args:
        context: The configuration.
        request: What to do.
        progress: Hears what begins, and how many rows are read.
        watch: Called after every step of LoRA.

    Raises:
        ConfigError: the request, the configuration or the labels cannot work.
        RefractError: the model would lose too much general ability.
        EnvironmentFault: the loss diverged, or the disk does not take the output.
        KeyboardInterrupt: interrupted before any state was worth keeping.
    """
    try:
        from pipeline.engine.spec import resolve
        from pipeline.tuning.folder import check_output, unfinished_folder
        from pipeline.tuning.tuner import Tuner, check_reads_instructions
    except ModuleNotFoundError as error:
        if error.name not in _OPTIONAL:
            raise
        raise ConfigError(f"tune: needs the package {error.name}; pip install 'refract[tune]'") from None
    check_output(request.output)
    tasks, model = _tasks(context, request), _model(context, request)
    settings, wordings = _settings(request), _wordings(context, request)
    data = _read(context, request, tasks, progress)
    if request.method == "lora":
        check_reads_instructions(resolve(model.model_copy(update={"adapter": None})), tasks)
    progress(f"embedding {len(data.texts):,} texts", 0, 0)
    tuner = Tuner(model, tasks, data, wordings, settings)
    tuned, why = _train(tuner, request, progress, watch)
    if tuned.general is not None and not tuned.general.is_kept and not request.allow_drop:
        raise RefractError(
            f"recall of plain pairs fell from {tuned.general.before:.2f} to {tuned.general.after:.2f}, by more than "
            "0.05: the model would be worse at everything else. Train fewer steps or at a lower --learning-rate, or "
            "allow it with --allow-drop"
        )
    card = _write(tuner, tuned, request)
    shutil.rmtree(unfinished_folder(request.output), ignore_errors=True)
    return TuneReport(
        tuned.method, str(request.output), why, card, _notes(tuner, tuned, request), _use(request, tuned, model, tasks)
    )


def _train(tuner: "Tuner", request: TuneRequest, progress: Progress, watch: "Watch") -> tuple["Tuned", str]:
    from pipeline.tuning.tuner import check_reads_instructions

    if request.method == "head":
        return tuner.heads(progress), "asked for"
    if request.method == "lora":
        return _lora(tuner, request, progress, watch), "asked for"
    heads = tuner.heads(progress)
    try:
        check_reads_instructions(tuner.spec, tuner.tasks)
    except ConfigError as error:
        return heads, f"LoRA cannot be trained here: {error}"
    if request.minutes is None and request.steps is None:
        return heads, "no --minutes or --steps were given for LoRA"
    lora = _lora(tuner, request, progress, watch)
    better, worse = (heads, lora) if heads.score >= lora.score else (lora, heads)
    return better, (
        f"score {better.score:.2f} of {better.method} on the selection fold, {worse.score:.2f} of {worse.method}"
    )


def _lora(tuner: "Tuner", request: TuneRequest, progress: Progress, watch: "Watch") -> "Tuned":
    from pipeline.tuning.folder import CHECKPOINT, unfinished_folder

    progress("training", 0, 0)
    file = unfinished_folder(request.output) / CHECKPOINT
    tuned = tuner.lora(_length(request), file, watch)
    if not request.control or (tuned.outcome is not None and tuned.outcome.stopped is not None):
        return tuned
    progress("training on shuffled labels, as a control", 0, 0)
    return replace(tuned, shuffled=tuner.lora_control(_length(request), file, watch))


def _length(request: TuneRequest) -> "Length":
    from pipeline.tuning.loop import Length

    if request.minutes is None and request.steps is None:
        return Length(steps=DEFAULT_STEPS)
    return Length(request.steps, request.minutes)


def _write(tuner: "Tuner", tuned: "Tuned", request: TuneRequest) -> Mapping[str, Any]:
    from pipeline.engine.prompts import build_prompts
    from pipeline.tuning.card import Base, make_card
    from pipeline.tuning.folder import appearing, write_adapter, write_card, write_head

    files = tuner.spec.files
    hub_name = files.name if files.commit is not None else str(files.folder)
    base = Base(request.base or hub_name, files.commit)
    card = make_card(tuner, tuned, base)
    with appearing(request.output) as folder:
        if tuned.method == "lora":
            prompts = build_prompts(tuner.spec, tuner.tasks)
            write_adapter(folder, tuner.encoder, prompts, base=base.name, revision=base.revision)
        for task, head in tuned.heads.items():
            write_head(folder / task, head)
        write_card(folder, card)
    return card.facts


def _notes(tuner: "Tuner", tuned: "Tuned", request: TuneRequest) -> list[str]:
    data, split = tuner.data, tuner.split
    notes = []
    rows = data.rows
    if not rows.is_whole:
        notes.append(f"trained on a sample of {len(data.texts):,} distinct texts out of {rows.num_read:,} rows")
    for count, what in (
        (rows.num_refused, f"rows make no record and were left out, {rows.num_empty:,} for a blank text"),
        (rows.num_equal, "rows have the text of another row and were left out"),
        (split.num_moved, "texts went to the fold of their near copies"),
    ):
        if count:
            notes.append(f"{count:,} {what}")
    for task, label in data.labels.items():
        if data.contradicted[task]:
            notes.append(f"{task}: {data.contradicted[task]:,} texts occur again with another value; the first counts")
        unlabelled = int((label.codes < 0).sum())
        if unlabelled:
            notes.append(f"{task}: {unlabelled:,} texts have no label")
        thin = [f"{value} ({count})" for value, count in label.thin]
        if thin:
            notes.append(f"{task}: classes with fewer than {_FEW_ROWS} rows can hardly be learned: {', '.join(thin)}")
        chance = None if tuned.shuffled is None else tuned.shuffled[task]
        if chance is not None and chance > _CHANCE:
            notes.append(
                f"{task}: shuffled labels reach κ {chance:.2f} instead of 0, so equal texts may be in two folds"
            )
    if tuned.method == "lora":
        notes += _lora_notes(tuner, tuned, request)
    return notes


def _lora_notes(tuner: "Tuner", tuned: "Tuned", request: TuneRequest) -> list[str]:
    assert tuned.outcome is not None  # noqa: S101 - of a LoRA run
    notes = []
    if tuned.outcome.stopped:
        notes.append(f"{tuned.outcome.stopped}; kept the state after step {tuned.outcome.state.best_step}")
    if not tuned.outcome.state.best_step:
        notes.append("no state was better than the untrained model: the adapter changes nothing")
    if not tuner.spec.exclude_instruction and set(tuner.spec.pooling) & {"mean", "max", "weightedmean"}:
        notes.append(
            f"the instruction's own tokens are pooled with the text's; overrides.exclude_instruction: true of the "
            f"model of {request.tasks[0]} keeps them out and usually separates tasks better"
        )
    if tuned.general is not None and not tuned.general.is_kept:
        notes.append(f"recall of plain pairs fell from {tuned.general.before:.2f} to {tuned.general.after:.2f}")
    return notes


def _use(request: TuneRequest, tuned: "Tuned", model: ModelConfig, tasks: Mapping[str, TaskConfig]) -> list[str]:
    name = next(iter(tasks.values())).model
    if tuned.method == "lora":
        return [f"models.{name}.adapter: {request.output}"] + (
            ["the adapter it had is replaced"] if model.adapter is not None else []
        )
    return [f"tasks.{task}.head: {request.output / task}" for task in tasks]


def _tasks(context: Context, request: TuneRequest) -> dict[str, TaskConfig]:
    """The tasks without their heads: what is trained here is the model, or other heads."""
    known = context.config.tasks
    if not request.tasks:
        raise ConfigError(f"--tasks names no task. Tasks: {', '.join(known)}")
    for name in request.tasks:
        if name not in known:
            raise ConfigError(
                f"no task {name!r} in {context.source.origin}.{nearest(name, known)} Tasks: {', '.join(known)}"
            )
        if known[name].mode == "retrieval":
            raise ConfigError(f"tasks.{name} has mode: retrieval; labels train symmetric tasks only")
    for name in request.columns:
        if name not in request.tasks:
            raise ConfigError(f"--label {name}=…: not among --tasks.{nearest(name, request.tasks)}")
    return {name: known[name].model_copy(update={"head": None}) for name in dict.fromkeys(request.tasks)}


def _model(context: Context, request: TuneRequest) -> ModelConfig:
    models = dict.fromkeys(context.config.tasks[name].model for name in request.tasks)
    if len(models) > 1:
        raise ConfigError(f"the tasks have different models ({', '.join(models)}); train those of one model at a time")
    model = context.config.models[next(iter(models))]
    if model.model.startswith("null:"):
        raise ConfigError(f"models.{next(iter(models))} is {model.model!r}, which has nothing to train")
    return model


def _read(
    context: Context, request: TuneRequest, tasks: Mapping[str, TaskConfig], progress: Progress
) -> "LabelledTexts":
    """Returns the texts in the order of their keys, so that the order of files and rows decides nothing.

    Versions are left aside: of several rows with one key, the last one counts.
    """
    from pipeline.tuning.texts import LabelledTexts, make_classes

    config = context.config
    topic = chosen_topic(config, request.topic, request.inputs)
    settings = config.source.topics[topic].model_copy(update={"version": None, "version_type": None})
    source = config.source.model_copy(update={"topics": config.source.topics | {topic: settings}})
    columns = {task: request.columns.get(task, task) for task in tasks}
    found = read_labelled(
        config.model_copy(update={"source": source}),
        LabelledInput(topic, request.inputs, list(dict.fromkeys(columns.values()))),
        Draw(request.max_texts, request.seed),
        progress,
    )
    found = found.take(sorted(range(len(found.keys)), key=lambda row: found.keys[row]))
    return LabelledTexts(
        found.texts,
        {task: make_classes(column, found.labels[column]) for task, column in columns.items()},
        {task: found.contradicted[column] for task, column in columns.items()},
        found.rows,
    )


def _settings(request: TuneRequest) -> "LoraSettings":
    from pipeline.tuning.settings import LoraSettings

    return replace(LoraSettings(seed=request.seed), **request.settings)


def _wordings(context: Context, request: TuneRequest) -> dict[str, list[str]]:
    path = request.wordings
    if path is None:
        return {}
    try:
        tree = load_yaml(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"--wordings {path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ConfigError(f"--wordings {path}: is not UTF-8 text ({type(error).__name__})") from None
    found = read_wordings(path, tree, list(context.config.tasks), option="--wordings")
    return {task: texts for task, texts in found.items() if task in request.tasks}


def report_tree(report: TuneReport) -> dict[str, Any]:
    """Returns what --json prints."""
    return asdict(report)
