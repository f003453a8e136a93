"""What a physical collection says about itself, and whether a task may use it."""

from collections.abc import Mapping
from typing import Any

from pipeline.binding import Task
from pipeline.errors import EnvironmentFault
from pipeline.interfaces import CollectionState

DISTANCE = "Cosine"
SCHEMA = 1
"""Raised when the system fields or their meaning change."""


def collection_metadata(task: Task, pipeline: str) -> dict[str, Any]:
    """Returns what is stored with the task's collection, in every store."""
    return {
        "schema": SCHEMA,
        "pipeline": pipeline,
        "task": task.name,
        "fingerprint": task.fingerprint,
        "dimension": task.dimension,
        "distance": DISTANCE,
        "model": task.config.model,
        "instruction": task.config.instruction,
        "mode": task.config.mode,
    }


def check_metadata(collection: str, found: Mapping[str, Any], task: Task, pipeline: str) -> None:
    """Raises EnvironmentFault, naming what was found and what was expected, when the task must not use it."""
    expected = collection_metadata(task, pipeline)
    for name in ("schema", "pipeline", "fingerprint", "dimension", "distance"):
        if found.get(name) != expected[name]:
            raise EnvironmentFault(
                f"collection {collection!r} has {name} {found.get(name)!r}, task {task.name!r} needs "
                f"{expected[name]!r}; use another collection name, or drop the collection"
            )


def collection_state(task: Task, target: str | None, *, exists: bool) -> CollectionState:
    """Returns what a task finds in the store; `target` is where its alias leads."""
    return CollectionState(exists, task.alias, None if target == task.collection else target)


def check_alias(task: Task, collection: str, fingerprint: object) -> None:
    """Raises EnvironmentFault when the task's alias leads readers to vectors of another fingerprint."""
    if fingerprint != task.fingerprint:
        raise EnvironmentFault(
            f"alias {task.alias!r} points to collection {collection!r} with fingerprint {fingerprint!r}, but task "
            f"{task.name!r} has {task.fingerprint!r} and writes to {task.collection!r}: finish the migration and "
            f"move the alias, or restore the task's earlier settings"
        )
