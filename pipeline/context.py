"""A configuration in use: its tasks bound to their models, and the parts of it that any process may need."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

from prometheus_client import CollectorRegistry

from pipeline.binding import Task, bind_tasks
from pipeline.config.load import ConfigTree
from pipeline.config.pipeline import Config
from pipeline.engine.entry import identify, load_tokenizer
from pipeline.engine.local import LocalEmbedder
from pipeline.errors import ConfigError, nearest
from pipeline.interfaces import Store, Tokenizer
from pipeline.records.batches import Float32, Priority
from pipeline.stores.open import open_store


class Context:
    """One process's configuration, tasks and metric registry. Everything is made when it is first asked for."""

    def __init__(self, source: ConfigTree) -> None:
        """Validates the configuration. Raises ConfigError."""
        self.source = source
        self.config: Config = source.load()
        self.registry = CollectorRegistry()
        self._tokenizers: dict[str, Tokenizer] = {}

    @classmethod
    def open(cls, path: Path) -> Self:
        """Reads a configuration file. Raises ConfigError."""
        return cls(ConfigTree.read(path))

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """All tasks by name, with the fingerprints of the models' files. Raises ConfigError, TransientError."""
        return bind_tasks(
            self.config,
            {name: identify(model, self.config.tasks_of(name)) for name, model in self.config.models.items()},
        )

    @cached_property
    def embedder(self) -> LocalEmbedder:
        """The models in this process, each loaded when it is first used."""
        return LocalEmbedder(self.config)

    def tokenizers(self, models: Iterable[str] | None = None) -> dict[str, Tokenizer]:
        """Returns the tokenizers of some models, of all without a list. Raises ConfigError, TransientError."""
        wanted = list(self.config.models if models is None else models)
        for name in wanted:
            if name not in self._tokenizers:
                self._tokenizers[name] = load_tokenizer(self.config.models[name], self.config.tasks_of(name))
        return {name: self._tokenizers[name] for name in wanted}

    def encode(self, task: Task, texts: Sequence[str], *, as_queries: bool = False) -> Float32:
        """Returns (n, dimension): the vectors of texts under a task, computed in this process in one batch.

        A row of NaN is a text without a finite vector. Raises like `tokenizers` and `LocalEmbedder.embed`.
        """
        model = task.config.model
        tokens = self.tokenizers([model])[model].encode(texts, [task.query_prompt if as_queries else task.prompt])
        [rows] = self.embedder.embed(model, tokens, Priority.BACKFILL)
        return rows

    def task(self, name: str) -> Task:
        """Returns a task by name. Raises ConfigError for one that the configuration does not have."""
        if name not in self.config.tasks:
            raise ConfigError(
                f"no task {name!r} in {self.source.origin}.{nearest(name, self.config.tasks)} "
                f"Tasks: {', '.join(self.config.tasks)}"
            )
        return self.tasks[name]

    def open_store(self, *, shared: bool = False) -> Store:
        """Returns the configured store; no collection is opened yet. Raises like `pipeline.stores.open.open_store`."""
        return open_store(self.config.store, self.config.pipeline, shared=shared)
