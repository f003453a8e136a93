"""A task as the pipeline uses it: its prompt names, and the fingerprint of everything that decides its vectors."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from pipeline.config.model import TaskConfig
from pipeline.config.payload_fields import PayloadField
from pipeline.config.pipeline import Config

FINGERPRINT_PREFIX = 10
"""Hex digits of the fingerprint in a physical collection name: 40 bits, enough for the generations of one task."""


@dataclass(frozen=True, slots=True)
class HeadIdentity:
    """What a task's head is, as far as vectors go."""

    dimension: int
    """Width of what it makes, before any truncation."""
    digest: str
    """sha256, hex, of its weights."""


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What a model is, as far as vectors go. Found by the engine from the model's files, without loading weights."""

    dimension: int
    """Width of the model's own vectors, before any truncation."""
    parts: Mapping[str, str]
    """Everything else that decides a vector: weights, adapter, template, pooling, tokenizer …, by name."""
    heads: Mapping[str, HeadIdentity] = field(default_factory=dict)
    """Task -> its head, for the tasks that have one."""


@dataclass(frozen=True, slots=True)
class Task:
    """One way of embedding a record, bound to its model's identity."""

    name: str
    config: TaskConfig
    dimension: int
    fingerprint: str
    """sha256, hex, over everything that decides a vector of this task."""
    payload: Mapping[str, PayloadField] = field(default_factory=dict, hash=False)
    """Fields stored with its points, by stored name: what searches may filter on, and how it is indexed."""

    @property
    def prompt(self) -> str:
        """Name of the prompt that records get."""
        return self.name

    @property
    def query_prompt(self) -> str:
        """Name of the prompt that queries get. A symmetric task asks the same of both."""
        return self.name if self.config.mode == "symmetric" else f"{self.name}:query"

    @property
    def alias(self) -> str:
        """The collection as its readers know it."""
        return self.config.collection or self.name

    @property
    def collection(self) -> str:
        """The physical collection that writers use: one per fingerprint, so two sorts of vectors never mix."""
        return f"{self.alias}__{self.fingerprint[:FINGERPRINT_PREFIX]}"


def bind_task(
    name: str, config: TaskConfig, model: ModelIdentity, payload: Mapping[str, PayloadField] | None = None
) -> Task:
    """Returns the task with its dimension and fingerprint; `payload` is what `Config.payload_of` says of it.

    Raises:
        ValueError: the task has a head that `model` does not know, because it was identified without its tasks.
    """
    head = model.heads.get(name)
    if config.head is not None and head is None:
        raise ValueError(f"tasks.{name}.head: the model was identified without it")
    dimension = config.dimension or (model.dimension if head is None else head.dimension)
    decides = {
        "instruction": config.instruction,
        "query_instruction": config.query_instruction,
        "mode": config.mode,
        "dimension": dimension,
        "max_tokens": config.max_tokens,
        "model": dict(model.parts),
    }
    if head is not None:
        decides["head"] = head.digest
    digest = hashlib.sha256(orjson.dumps(decides, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return Task(name, config, dimension, digest, payload or {})


def bind_tasks(config: Config, models: Mapping[str, ModelIdentity]) -> dict[str, Task]:
    """Returns all tasks of a configuration by name."""
    return {
        name: bind_task(name, task, models[task.model], config.payload_of(name)) for name, task in config.tasks.items()
    }
