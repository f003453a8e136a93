"""What one can do with Refract, from Python: one object over one configuration.

    from pipeline import Session

    with Session.open("configs/demo.yaml") as refract:
        rows = refract.embed("urgency", ["the server room is on fire"])
        hits = refract.search("urgency", "nobody can log in", limit=5)

Nothing is loaded before it is used: opening a session reads the file, `embed` loads the task's model, and `search`
opens the store.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pipeline.config.app import Config
from pipeline.config.load import ConfigTree

if TYPE_CHECKING:
    from pipeline.context import Context
    from pipeline.records.batches import Float32
    from pipeline.search import Hit
    from pipeline.tasks import Task
    from pipeline.usecases.search import StoreSearch

InputType = Literal["query", "document"]
"""The side of a task that texts are embedded on. Records are documents; a symmetric task asks the same of both."""


class Session:
    """One configuration, used from Python. Close it, or use it in a `with`. One thread."""

    def __init__(self, source: ConfigTree) -> None:
        """Validates the configuration. Raises ConfigError with one line per fault."""
        self._source = source
        self.config: Config = source.load()
        self._context: Context | None = None
        self._search: StoreSearch | None = None

    @classmethod
    def open(cls, config: str | Path) -> Self:
        """Returns a session of a configuration file. Raises ConfigError."""
        return cls(ConfigTree.read(Path(config)))

    @classmethod
    def of(cls, tree: Mapping[str, Any]) -> Self:
        """Returns a session of a configuration that is a mapping, spelled as in the file. Raises ConfigError."""
        return cls(ConfigTree(tree, "configuration"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the store and the models. Safe to call twice; a later call opens what it needs again."""
        self.release_store()
        self._search = self._context = None

    @property
    def context(self) -> "Context":
        """The configuration in use, for the functions of `pipeline.usecases`."""
        if self._context is None:
            from pipeline.context import Context

            self._context = Context(self._source)
        return self._context

    @property
    def tasks(self) -> "dict[str, Task]":
        """All tasks by name, with dimension, collection and fingerprint. Raises ConfigError, TransientError."""
        return self.context.tasks

    def embed(self, task: str, texts: Sequence[str], *, input_type: InputType = "document") -> "Float32":
        """Returns the texts' vectors under a task, computed in this process: no Ray, no Kafka, no store.

        Args:
            task: Name of a task of the configuration.
            texts: Any number of texts; each is cut to what the model takes.
            input_type: The side of the task.

        Returns:
            A (num_texts, dimension) float32 array in the order of the texts, rows L2-normalised. A row of NaN is a text
            the model gave no finite vector for.

        Raises:
            ConfigError: there is no such task, or its model cannot work as configured.
            TransientError: the model's files cannot be had just now.
        """
        from pipeline.usecases.embed import embed

        return embed(self.context, task, texts, as_queries=input_type == "query")

    def search(
        self, task: str, text: str | None = None, *, key: str | int | None = None, limit: int = 10, **filters: Any
    ) -> "list[Hit]":
        """Returns the records most similar to a text, or to the stored record of a key, by falling score.

        The query gets the task's own prompt. While the app of this configuration holds an embedded store, it is asked
        instead: the same answer, from the running app's models.

        Args:
            task: Name of a task of the configuration.
            text: What to look for; or
            key: the key of a stored record, whose neighbours are wanted.
            limit: How many hits at most.
            **filters: Payload field = a value to equal, a list of values to match any of, or {gt, gte, lt, lte}.

        Raises:
            QueryError: the query is wrong; `code` says how.
            EnvironmentFault: the store holds another task's or another instruction's vectors under this name.
            TransientError: the store does not answer.
        """
        if self._search is None:
            from pipeline.usecases.search import StoreSearch

            self._search = StoreSearch(self.context)
        return self._search.hits(task, text, key, limit, filters)

    def release_store(self) -> None:
        """Closes the store, so that another process may open an embedded one. The next search opens it again."""
        if self._search is not None:
            self._search.close()
