"""What every actor builds first: the configuration, the bound tasks, logs and a metric registry."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from pipeline.config.app import Config
from pipeline.config.load import parse_config, read_tree
from pipeline.engine.load import identify
from pipeline.logs import configure_logs
from pipeline.tasks import Task, bind_tasks


@dataclass(frozen=True)
class ConfigTree:
    """A configuration on its way to an actor: as written, with `${NAME}` still standing for secrets.

    Each actor fills in the variables from its own environment. So no secret is ever an actor's
    argument, where Ray's state API and dashboard would show it.
    """

    tree: Mapping[str, Any]
    origin: str

    @classmethod
    def read(cls, path: Path) -> "ConfigTree":
        """Reads the file. Raises ConfigError."""
        return cls(read_tree(path), str(path))

    def load(self) -> Config:
        """Returns the validated configuration. Raises ConfigError."""
        return parse_config(self.tree, environ=os.environ, origin=self.origin)


class Context:
    """A process's configuration, tasks and metric registry."""

    def __init__(self, source: ConfigTree) -> None:
        configure_logs()
        self.config = source.load()
        self.registry = CollectorRegistry()

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """All tasks by name, with the fingerprints of the models' files."""
        return bind_tasks(self.config, {name: identify(model) for name, model in self.config.models.items()})

    @property
    def filterable(self) -> Sequence[str]:
        """Payload fields that searches may filter on: the allow-list of every topic."""
        names = (name for topic in self.config.source.topics.values() for name in topic.payload_fields)
        return tuple(dict.fromkeys(names))
