"""A configuration in use: its tasks bound to their models, and the parts of it that any process may need."""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Self

from prometheus_client import CollectorRegistry

from pipeline.config.app import Config
from pipeline.config.load import ConfigTree
from pipeline.engine.load import identify, load_tokenizer
from pipeline.engine.local import LocalEmbedder, LocalEncoder
from pipeline.interfaces import ComparableStore, Tokenizer
from pipeline.stores.open import open_store
from pipeline.tasks import Task, bind_tasks


class Context:
    """One process's configuration, tasks and metric registry. Everything is made when it is first asked for."""

    def __init__(self, source: ConfigTree) -> None:
        """Validates the configuration. Raises ConfigError."""
        self.source = source
        self.config: Config = source.load()
        self.registry = CollectorRegistry()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Reads a configuration file. Raises ConfigError."""
        return cls(ConfigTree.read(path))

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """All tasks by name, with the fingerprints of the models' files. Raises ConfigError, TransientError."""
        return bind_tasks(self.config, {name: identify(model) for name, model in self.config.models.items()})

    @cached_property
    def embedder(self) -> LocalEmbedder:
        """The models in this process, each loaded when it is first used."""
        return LocalEmbedder(self.config)

    @cached_property
    def encoder(self) -> LocalEncoder:
        """Turns texts into vectors in this process, each model loaded when it is first used."""
        return LocalEncoder(self.config, self.embedder)

    def tokenizers(self, models: Iterable[str] | None = None) -> dict[str, Tokenizer]:
        """Returns the tokenizers of some models, of all without a list. Raises ConfigError, TransientError."""
        wanted = self.config.models if models is None else models
        return {name: load_tokenizer(self.config.models[name], self.config.tasks_of(name)) for name in wanted}

    def open_store(self, *, shared: bool = False) -> ComparableStore:
        """Returns the configured store; no collection is opened yet. Raises like `pipeline.stores.open.open_store`."""
        return open_store(self.config.store, self.config.pipeline, self.config.filterable, shared=shared)
