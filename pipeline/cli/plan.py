"""Gathers what a configuration will do and everything that is wrong with it, and starts and creates nothing."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pipeline.config.app import Config
from pipeline.config.store import EdgeStoreConfig
from pipeline.errors import EnvironmentFault, RefractError, TransientError
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
            for line in str(error).splitlines():
                message = f"{what}: {line}" if what else line
                if not any(fault.message == message for fault in self.faults):
                    self.faults.append(Fault(kind, message))


@runtime_checkable
class _Inspectable(Protocol):
    """A store that can tell, without creating anything, what stands where a task will write."""

    def inspect(self, tasks: Iterable[Task]) -> Mapping[str, str]:
        """Returns task name -> a few words. Raises EnvironmentFault where the task must not write."""


def make_plan(path: Path, *, offline: bool) -> Plan:
    """Checks everything that can be checked.

    Raises:
        ConfigError: the file itself is wrong, so that there is nothing to plan with.
    """
    from pipeline.config.advice import advice, file_faults
    from pipeline.config.load import load_config, read_tree

    config = load_config(path)
    plan = Plan(config.pipeline)
    plan.advice = advice(config, read_tree(path), ray_token=os.environ.get("RAY_AUTH_MODE") == "token")
    plan.faults = [Fault(FaultKind.CONFIG, f"{path}: {line}") for line in file_faults(config)]
    identities, prompts = _models(config, plan)
    bound = {
        name: bind_task(name, task, identities[task.model])
        for name, task in config.tasks.items()
        if task.model in identities
    }
    states: dict[str, str] = {}
    if offline:
        plan.skipped = ["brokers and topics (--offline)", "store and collections (--offline)"]
    else:
        with plan.catching():
            plan.source = _source(config)
        states = _store(config, list(bound.values()), plan)
    plan.tasks = list(_planned(config, bound, prompts, states))
    return plan


Show = Callable[[str, str], tuple[str, list[int]]]


def _models(config: Config, plan: Plan) -> tuple[dict[str, ModelIdentity], dict[str, Show]]:
    """Every model's identity, and what shows its prompts, for those whose files can be read."""
    from pipeline.engine.load import check_tasks, identify, load_tokenizer

    identities: dict[str, ModelIdentity] = {}
    shows: dict[str, Show] = {}
    for name, model in config.models.items():
        own = {task: settings for task, settings in config.tasks.items() if settings.model == name}
        found = len(plan.faults)
        for task, settings in own.items():
            with plan.catching():
                check_tasks(name, model, {task: settings})
        if len(plan.faults) > found:
            continue
        with plan.catching(f"models.{name}"):
            identities[name] = identify(model)
            if own:
                shows[name] = load_tokenizer(model, own).show
    return identities, shows


def _source(config: Config) -> dict[str, Any]:
    from pipeline.sources.admin import inspect

    return inspect(config.source)


def _store(config: Config, tasks: list[Task], plan: Plan) -> dict[str, str]:
    """Asks the store about itself and about every task's collection."""
    from pipeline.stores.open import open_store

    if isinstance(config.store, EdgeStoreConfig) and not config.store.path.exists():
        plan.store = f"Qdrant Edge in {config.store.path}, which will be created"
        return {task.name: "new" for task in tasks}
    filterable = sorted({name for topic in config.source.topics.values() for name in topic.payload_fields})
    states: dict[str, str] = {}
    with plan.catching("store"):
        try:
            store = open_store(config.store, config.pipeline, filterable)
        except EnvironmentFault:
            if not _app_runs(config):
                raise
            plan.store = "in use by the running app"
            return {}
        try:
            plan.store = store.check()
            for task in tasks if isinstance(store, _Inspectable) else ():
                with plan.catching(f"tasks.{task.name}"):
                    states |= store.inspect([task])
        finally:
            store.close()
    return states


def _app_runs(config: Config) -> bool:
    """Whether the app of this configuration answers: then it is the one that holds the embedded store."""
    from pipeline.cli.client import AppClient

    try:
        with AppClient(config) as app:
            return str(app.get("/v1/status").get("pipeline")) == config.pipeline
    except RefractError:
        return False


def _planned(
    config: Config, bound: Mapping[str, Task], shows: Mapping[str, Show], states: Mapping[str, str]
) -> Iterator[PlannedTask]:
    for topic, topic_config in config.source.topics.items():
        sample = _PLACEHOLDER.sub(lambda match: f"<{match[1].removesuffix('?')}>", topic_config.text)
        for name in topic_config.tasks:
            task, settings = bound.get(name), config.tasks[name]
            show = shows.get(settings.model)
            yield PlannedTask(
                topic=topic,
                task=name,
                mode=settings.mode,
                model=f"{settings.model} ({config.models[settings.model].model})",
                dimension=task.dimension if task else settings.dimension,
                alias=settings.collection or name,
                collection=task.collection if task else None,
                state=states.get(name, "not checked"),
                record_prompt=show(task.prompt, sample)[0] if show and task else "",
                query_prompt=show(task.query_prompt, "<query>")[0] if show and task else "",
            )
