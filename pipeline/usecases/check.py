"""Reports what a configuration will do and everything that is wrong with it; starts and creates nothing."""

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from pipeline.binding import ModelIdentity, Task, bind_task
from pipeline.config.advice import advice, file_faults
from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.config.pipeline import Config
from pipeline.config.store import EdgeStoreConfig
from pipeline.context import Context
from pipeline.engine.entry import check_tasks, identify, instruction_form
from pipeline.errors import ConfigError, EnvironmentFault, RefractError, TransientError
from pipeline.interfaces import Inspectable
from pipeline.quality.instructions import Asked, instruction_advice
from pipeline.usecases.check_formats import check_formats
from pipeline.usecases.tasks import Prompter, load_prompter

_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


class FaultKind(StrEnum):
    """What a fault means for the exit code."""

    CONFIG = "config"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that keeps the pipeline from working."""

    kind: FaultKind
    message: str


@dataclass(frozen=True, slots=True)
class TopicTask:
    """One task of one topic, and the collection it fills."""

    topic: str
    task: str
    mode: str
    model: str
    dimension: int | None
    """None when the model's files could not be read."""
    alias: str
    collection: str | None
    """The physical collection; None without a dimension."""
    state: str
    """What the store holds under that name."""
    record_prompt: str
    query_prompt: str


@dataclass(slots=True)
class CheckReport:
    """What a configuration will do, and what is wrong with it."""

    pipeline: str
    tasks: list[TopicTask] = field(default_factory=list)
    source: dict[str, Any] = field(default_factory=dict)
    """What the brokers say, by fact."""
    store: str = ""
    """What the store says about itself."""
    faults: list[Fault] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """What was not checked, and why."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults

    def tree(self) -> dict[str, Any]:
        """Returns the report as `--json` prints it."""
        return {"ok": self.ok, **asdict(self)}

    @contextmanager
    def catching(self, what: str = "") -> Iterator[None]:
        """Turns an error of the block into faults, one per line of its message, and continues."""
        try:
            yield
        except RefractError as error:
            kind = FaultKind.UNREACHABLE if isinstance(error, TransientError) else FaultKind.CONFIG
            self.add(kind, str(error), what)

    def add(self, kind: FaultKind, text: str, what: str = "") -> None:
        """Adds a fault for every line of the text, each once."""
        for line in text.splitlines():
            fault = Fault(kind, f"{what}: {line}" if what else line)
            if fault not in self.faults:
                self.faults.append(fault)


def check(context: Context, *, offline: bool = False) -> CheckReport:
    """Checks everything that can be checked without starting or creating anything.

    Faults are collected, not raised. `offline` asks neither brokers nor store nor a model hub.
    """
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's client is imported; else it tries for half a minute
    config = context.config
    report = CheckReport(config.pipeline)
    report.advice = advice(config, ray_token=os.environ.get("RAY_AUTH_MODE") == "token")
    report.faults = [Fault(FaultKind.CONFIG, f"{context.source.origin}: {line}") for line in file_faults(config)]
    identities, prompters = _models(config, report, offline=offline)
    report.advice += instruction_advice(_asked(config, identities))
    bound = {
        name: bind_task(name, task, identities[task.model], config.payload_of(name))
        for name, task in config.tasks.items()
        if task.model in identities
    }
    check_formats(config, report, offline=offline)
    states: Mapping[str, str] = {}
    if offline:
        report.skipped += ["brokers and topics (--offline)", "store and collections (--offline)"]
    else:
        with report.catching():
            report.source = _ask_brokers(config)
        states = _ask_store(context, list(bound.values()), report)
    report.tasks = list(_topic_tasks(config, bound, prompters, states))
    return report


def _asked(config: Config, models: Collection[str]) -> list[Asked]:
    """Returns what the tasks of those models ask that can be looked at."""
    is_free = {name: instruction_form(config.models[name]).is_free for name in models}
    return [
        Asked(
            name,
            task.model,
            task.instruction,
            task.query_instruction,
            task.mode,
            is_free[task.model],
            has_head=task.head is not None,
        )
        for name, task in config.tasks.items()
        if task.model in is_free
    ]


def _models(
    config: Config, report: CheckReport, *, offline: bool
) -> tuple[dict[str, ModelIdentity], dict[str, Prompter]]:
    """Returns the identity of every model that is there and can do its tasks, and what shows its prompts."""
    identities: dict[str, ModelIdentity] = {}
    prompters: dict[str, Prompter] = {}
    for name, model in config.models.items():
        tasks = config.tasks_of(name)
        if not _tasks_fit(name, model, tasks, report, offline=offline):
            continue
        with report.catching(f"models.{name}"):
            identities[name] = identify(model, tasks)
            if tasks:
                prompters[name] = load_prompter(model, tasks)
    return identities, prompters


def _tasks_fit(
    name: str, model: ModelConfig, tasks: Mapping[str, TaskConfig], report: CheckReport, *, offline: bool
) -> bool:
    """Checks task by task, so that every fault is reported, unless the model's files are not available at all."""
    fits = True
    for task, settings in tasks.items():
        try:
            check_tasks(name, model, {task: settings})
        except ConfigError as error:
            fits = False
            if not isinstance(error.__cause__, TransientError):
                report.add(FaultKind.CONFIG, str(error))
                continue
            if offline:
                report.skipped.append(f"models.{name}: {model.model} is not on this machine (--offline)")
            else:
                report.add(FaultKind.UNREACHABLE, str(error))
            break
    return fits


def _ask_brokers(config: Config) -> dict[str, Any]:
    from pipeline.sources.client.admin import inspect_cluster  # Kafka, unless offline

    return inspect_cluster(config.source)


def _ask_store(context: Context, tasks: Sequence[Task], report: CheckReport) -> dict[str, str]:
    """Asks the store about itself and about every task's collection; returns what it says of each task."""
    settings = context.config.store
    if isinstance(settings, EdgeStoreConfig) and not settings.path.exists():
        report.store = f"Qdrant Edge in {settings.path}, which will be created"
        return {task.name: "new" for task in tasks}
    states: dict[str, str] = {}
    with report.catching("store"):
        try:
            store = context.open_store()
        except EnvironmentFault:
            if not _app_runs(context.config):
                raise
            report.store = "in use by the running app"
            return {}
        with closing(store):
            report.store = store.check()
            states = _inspect(store, tasks, report)
    return states


def _inspect(store: Inspectable, tasks: Sequence[Task], report: CheckReport) -> dict[str, str]:
    states: dict[str, str] = {}
    for task in tasks:
        with report.catching(f"tasks.{task.name}"):
            state = store.inspect([task])[task.name]
            states[task.name] = str(state)
            report.advice += [f"tasks.{task.name}: {note}" for note in state.notes]
    return states


def _app_runs(config: Config) -> bool:
    """Whether the app of this configuration answers, and so is the one that holds the embedded store."""
    from pipeline.usecases.client import AppClient  # an HTTP client, for a store that is in use only

    try:
        with AppClient(config) as app:
            return str(app.status().get("pipeline")) == config.pipeline
    except RefractError:
        return False


def _topic_tasks(
    config: Config, bound: Mapping[str, Task], prompters: Mapping[str, Prompter], states: Mapping[str, str]
) -> Iterator[TopicTask]:
    for topic, topic_config in config.source.topics.items():
        sample = _PLACEHOLDER.sub(lambda match: f"<{match[1].removesuffix('?')}>", topic_config.text)
        for name in topic_config.tasks:
            task, settings = bound.get(name), config.tasks[name]
            prompter = prompters.get(settings.model)
            yield TopicTask(
                topic=topic,
                task=name,
                mode=settings.mode,
                model=f"{settings.model} ({config.models[settings.model].model})",
                dimension=task.dimension if task else settings.dimension,
                alias=settings.collection or name,
                collection=task.collection if task else None,
                state=states.get(name, "not checked"),
                record_prompt=prompter.show(task.prompt, sample)[0] if prompter and task else "",
                query_prompt=prompter.show(task.query_prompt, "<query>")[0] if prompter and task else "",
            )
