"""Gathers what a configuration will do and everything that is wrong with it, and starts and creates nothing."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, cast

from pipeline.config.app import Config
from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.config.store import EdgeStoreConfig
from pipeline.errors import ConfigError, EnvironmentFault, RefractError, TransientError
from pipeline.interfaces import Inspectable
from pipeline.tasks import ModelIdentity, Task, bind_task

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
class PlannedTask:
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
    """What stands in the store under that name."""
    record_prompt: str
    query_prompt: str


@dataclass(slots=True)
class Plan:
    """What `refract check` found."""

    pipeline: str
    tasks: list[PlannedTask] = field(default_factory=list)
    source: dict[str, Any] = field(default_factory=dict)
    store: str = ""
    faults: list[Fault] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @contextmanager
    def catching(self, what: str = "") -> Iterator[None]:
        """Turns an error of the block into faults, one per line of its message, and goes on."""
        try:
            yield
        except RefractError as error:
            kind = FaultKind.UNREACHABLE if isinstance(error, TransientError) else FaultKind.CONFIG
            self.add(kind, str(error), what)

    def add(self, kind: FaultKind, text: str, what: str = "") -> None:
        """Notes a fault for every line, each once."""
        for line in text.splitlines():
            fault = Fault(kind, f"{what}: {line}" if what else line)
            if fault not in self.faults:
                self.faults.append(fault)


def make_plan(path: Path, *, offline: bool) -> Plan:
    """Checks everything that can be checked.

    Raises:
        ConfigError: the file itself is wrong, so that there is nothing to plan with.
    """
    from pipeline.config.advice import advice, file_faults
    from pipeline.config.load import load_config

    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's client is imported; else it tries for half a minute
    config = load_config(path)
    plan = Plan(config.pipeline)
    plan.advice = advice(config, ray_token=os.environ.get("RAY_AUTH_MODE") == "token")
    plan.faults = [Fault(FaultKind.CONFIG, f"{path}: {line}") for line in file_faults(config)]
    identities, prompters = _models(config, plan, offline=offline)
    bound = {
        name: bind_task(name, task, identities[task.model])
        for name, task in config.tasks.items()
        if task.model in identities
    }
    states: dict[str, str] = {}
    if offline:
        plan.skipped += ["brokers and topics (--offline)", "store and collections (--offline)"]
    else:
        with plan.catching():
            plan.source = _source(config)
        states = _store(config, list(bound.values()), plan)
    plan.tasks = list(_planned(config, bound, prompters, states))
    return plan


class _Prompter(Protocol):
    def show(self, prompt: str, text: str) -> tuple[str, list[int]]:
        """Returns what the model sees for a text, and its token ids."""


def prompter(model: ModelConfig, tasks: Mapping[str, TaskConfig]) -> _Prompter:
    """Returns what shows the prompts of a model's tasks. Raises ConfigError, TransientError."""
    from pipeline.engine.load import load_tokenizer

    return cast("_Prompter", load_tokenizer(model, tasks))


def _models(config: Config, plan: Plan, *, offline: bool) -> tuple[dict[str, ModelIdentity], dict[str, _Prompter]]:
    """Every model's identity, and what shows its prompts, for those that are there and can do their tasks."""
    from pipeline.engine.load import identify

    identities: dict[str, ModelIdentity] = {}
    prompters: dict[str, _Prompter] = {}
    for name, model in config.models.items():
        own = config.tasks_of(name)
        if not _tasks_fit(name, model, own, plan, offline=offline):
            continue
        with plan.catching(f"models.{name}"):
            identities[name] = identify(model)
            if own:
                prompters[name] = prompter(model, own)
    return identities, prompters


def _tasks_fit(name: str, model: ModelConfig, tasks: Mapping[str, TaskConfig], plan: Plan, *, offline: bool) -> bool:
    """Checks task by task, so that every fault is told, unless the model's files cannot be had at all."""
    from pipeline.engine.load import check_tasks

    fits = True
    for task, settings in tasks.items():
        try:
            check_tasks(name, model, {task: settings})
        except ConfigError as error:
            fits = False
            if not isinstance(error.__cause__, TransientError):
                plan.add(FaultKind.CONFIG, str(error))
                continue
            if offline:
                plan.skipped.append(f"models.{name}: {model.model} is not on this machine (--offline)")
            else:
                plan.add(FaultKind.UNREACHABLE, str(error))
            break
    return fits


def _source(config: Config) -> dict[str, Any]:
    from pipeline.sources.client.admin import inspect_cluster

    return inspect_cluster(config.source)


def _store(config: Config, tasks: list[Task], plan: Plan) -> dict[str, str]:
    """Asks the store about itself and about every task's collection."""
    from pipeline.stores.open import open_store

    if isinstance(config.store, EdgeStoreConfig) and not config.store.path.exists():
        plan.store = f"Qdrant Edge in {config.store.path}, which will be created"
        return {task.name: "new" for task in tasks}
    states: dict[str, str] = {}
    with plan.catching("store"):
        try:
            store = open_store(config.store, config.pipeline, config.filterable)
        except EnvironmentFault:
            if not _app_runs(config):
                raise
            plan.store = "in use by the running app"
            return {}
        try:
            plan.store = store.check()
            states = _inspect(store, tasks, plan)
        finally:
            store.close()
    return states


def _inspect(store: Inspectable, tasks: list[Task], plan: Plan) -> dict[str, str]:
    states: dict[str, str] = {}
    for task in tasks:
        with plan.catching(f"tasks.{task.name}"):
            states |= store.inspect([task])
    return states


def _app_runs(config: Config) -> bool:
    """Whether the app of this configuration answers: then it is the one that holds the embedded store."""
    from pipeline.usecases.client import AppClient

    try:
        with AppClient(config) as app:
            return str(app.get("/v1/status").get("pipeline")) == config.pipeline
    except RefractError:
        return False


def _planned(
    config: Config, bound: Mapping[str, Task], prompters: Mapping[str, _Prompter], states: Mapping[str, str]
) -> Iterator[PlannedTask]:
    for topic, topic_config in config.source.topics.items():
        sample = _PLACEHOLDER.sub(lambda match: f"<{match[1].removesuffix('?')}>", topic_config.text)
        for name in topic_config.tasks:
            task, settings = bound.get(name), config.tasks[name]
            shown = prompters.get(settings.model)
            yield PlannedTask(
                topic=topic,
                task=name,
                mode=settings.mode,
                model=f"{settings.model} ({config.models[settings.model].model})",
                dimension=task.dimension if task else settings.dimension,
                alias=settings.collection or name,
                collection=task.collection if task else None,
                state=states.get(name, "not checked"),
                record_prompt=shown.show(task.prompt, sample)[0] if shown and task else "",
                query_prompt=shown.show(task.query_prompt, "<query>")[0] if shown and task else "",
            )
