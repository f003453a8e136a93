"""What every actor builds first: the configuration, the bound tasks, logs and a metric registry."""

from collections.abc import Sequence
from functools import cached_property

from prometheus_client import CollectorRegistry

from pipeline.config.load import ConfigTree
from pipeline.engine.load import identify
from pipeline.logs import configure_logs
from pipeline.tasks import Task, bind_tasks


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
