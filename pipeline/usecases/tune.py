"""Trains a model's tasks on labelled records, or on pairs: an adapter that reads instructions, or a head for each."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from pipeline.backfill.selection import chosen_topic
from pipeline.config.model import TaskConfig
from pipeline.config.yaml_loader import load_yaml
from pipeline.context import Context
from pipeline.errors import ConfigError
from pipeline.interfaces import Progress
from pipeline.quality.paraphrases import read_wordings
from pipeline.usecases.labelled import Draw, LabelledInput, read_labelled
from pipeline.usecases.tune_request import (
    Training,
    TuneReport,
    TuneRequest,
    base_of,
    check_general,
    checkpoint_of,
    drop_unfinished,
    length_of,
    model_of,
    run_notes,
    settings_of,
    tasks_of,
    use_adapter,
)

if TYPE_CHECKING:
    from pipeline.tuning.job import Trainer
    from pipeline.tuning.loop import Watch
    from pipeline.tuning.texts import LabelledTexts
    from pipeline.tuning.tuner import Tuned, Tuner

_OPTIONAL = frozenset({"peft", "scipy", "sklearn"})

_FEW_ROWS = 8
"""Rows of a class below which it is named."""

_CHANCE = 0.15
"""κ that shuffled labels may reach; above it something tells a text by more than its label."""


def tune(
    context: Context, request: TuneRequest, progress: Progress, watch: "Watch", trainer: "Trainer | None" = None
) -> TuneReport:
    """Trains, measures, and writes the folder. The same request continues where it was killed.

    Args:
        context: The configuration.
        request: What to do.
        progress: Hears what begins, and how many rows are read.
        watch: Called after every step of LoRA.
        trainer: Takes the steps of LoRA; None takes them in this process.

    Raises:
        ConfigError: the request, the configuration, the labels or the pairs cannot work.
        RefractError: the model would lose too much general ability.
        EnvironmentFault: the loss diverged, or the disk does not take the output.
        KeyboardInterrupt: interrupted before any state was worth keeping.
    """
    try:
        from pipeline.tuning.folder import check_output
        from pipeline.tuning.job import train_here
        from pipeline.usecases.tune_pairs import tune_pairs
    except ModuleNotFoundError as error:
        if error.name not in _OPTIONAL:
            raise
        raise ConfigError(f"tune: needs the package {error.name}; pip install 'refract[tune]'") from None
    check_output(request.output)
    if request.workers > 1 and trainer is None:
        raise ConfigError(f"workers is {request.workers}: this process is one; give a trainer, or use --workers")
    chosen = Training(progress, watch, trainer or train_here)
    if request.pairs is not None:
        return tune_pairs(context, request, chosen)
    return _tune_labels(context, request, chosen)


def _tune_labels(context: Context, request: TuneRequest, how: Training) -> TuneReport:
    from pipeline.engine.spec import resolve
    from pipeline.tuning.tuner import Tuner, check_reads_instructions

    if not request.inputs:
        raise ConfigError("name at least one INPUT, or --pairs FILE for retrieval tasks")
    tasks, model = tasks_of(context, request), model_of(context, request)
    settings, wordings = settings_of(request), _wordings(context, request)
    data = _read(context, request, tasks, how.progress)
    if request.method == "lora":
        check_reads_instructions(resolve(model.model_copy(update={"adapter": None})), tasks)
    how.progress(f"embedding {len(data.texts):,} texts", 0, 0)
    tuner = Tuner(model, tasks, data, wordings, settings)
    tuned, why = _train(tuner, request, how)
    check_general(tuned.general, allow_drop=request.allow_drop)
    card = _write(tuner, tuned, request)
    drop_unfinished(request)
    use = [f"tasks.{task}.head: {request.output / task}" for task in tasks]
    if tuned.method == "lora":
        use = use_adapter(request, tasks, model)
    return TuneReport(tuned.method, str(request.output), why, card, _notes(tuner, tuned, request), use)


def _train(tuner: "Tuner", request: TuneRequest, how: Training) -> tuple["Tuned", str]:
    from pipeline.tuning.tuner import check_reads_instructions

    if request.method == "head":
        return tuner.heads(how.progress), "asked for"
    if request.method == "lora":
        return _lora(tuner, request, how), "asked for"
    heads = tuner.heads(how.progress)
    try:
        check_reads_instructions(tuner.spec, tuner.tasks)
    except ConfigError as error:
        return heads, f"LoRA cannot be trained here: {error}"
    if request.minutes is None and request.steps is None:
        return heads, "no --minutes or --steps were given for LoRA"
    lora = _lora(tuner, request, how)
    better, worse = (heads, lora) if heads.score >= lora.score else (lora, heads)
    return better, (
        f"score {better.score:.2f} of {better.method} on the selection fold, {worse.score:.2f} of {worse.method}"
    )


def _lora(tuner: "Tuner", request: TuneRequest, how: Training) -> "Tuned":
    how.progress("training", 0, 0)
    file, length = checkpoint_of(request), length_of(request)
    tuned = tuner.lora(length, file, how.watch, how.train, keep_general=not request.allow_drop)
    if not request.control or (tuned.outcome is not None and tuned.outcome.stopped is not None):
        return tuned
    how.progress("training on shuffled labels, as a control", 0, 0)
    return replace(tuned, shuffled=tuner.lora_control(length, file, how.watch, how.train))


def _write(tuner: "Tuner", tuned: "Tuned", request: TuneRequest) -> Mapping[str, Any]:
    from pipeline.engine.prompts import build_prompts
    from pipeline.tuning.card import make_card
    from pipeline.tuning.folder import appearing, write_adapter, write_card, write_head

    base = base_of(request, tuner.spec)
    card = make_card(tuner, tuned, base)
    with appearing(request.output) as folder:
        if tuned.method == "lora":
            prompts = build_prompts(tuner.spec, tuner.tasks)
            write_adapter(folder, tuner.encoder, prompts, base=base.name, revision=base.revision)
        for task, head in tuned.heads.items():
            write_head(folder / task, head, tuner.identity)
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
    notes = run_notes(tuned.outcome, tuned.general)
    if not tuner.spec.exclude_instruction and set(tuner.spec.pooling) & {"mean", "max", "weightedmean"}:
        notes.append(
            f"the instruction's own tokens are pooled with the text's; overrides.exclude_instruction: true of the "
            f"model of {request.tasks[0]} keeps them out and usually separates tasks better"
        )
    return notes


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
