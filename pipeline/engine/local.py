"""The configured engines in this process, behind the protocols that the actors implement elsewhere."""

from collections.abc import Sequence

from pipeline.config.app import Config
from pipeline.engine.engine import Engine
from pipeline.engine.load import load_engine, load_tokenizer
from pipeline.interfaces import Embedder, Tokenizer
from pipeline.records.batches import Embeddings, Float32, Priority, TokenBatch
from pipeline.tasks import Task


class LocalEmbedder:
    """Implements `pipeline.interfaces.Embedder`. Loads a model when it is first asked for. One thread at a time."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._engines: dict[str, Engine] = {}

    def embed(self, model: str, batch: TokenBatch, priority: Priority) -> Embeddings:  # noqa: ARG002 - nobody waits
        """See Embedder."""
        if model not in self._engines:
            self._engines[model] = load_engine(self._config.models[model], self._config.tasks_of(model), threads=None)
        return self._engines[model].embed(batch)


class LocalEncoder:
    """Turns texts into vectors. Loads a model's tokenizer when it is first asked for. One thread at a time."""

    def __init__(self, config: Config, embedder: Embedder) -> None:
        self._config = config
        self._embedder = embedder
        self._tokenizers: dict[str, Tokenizer] = {}

    def encode(self, task: Task, texts: Sequence[str]) -> Float32:
        """Returns (n, dimension): the vectors that records with these texts get under the task.

        A row of NaN is a text without a finite vector. Raises like `load_tokenizer` and the embedder.
        """
        model = task.config.model
        if model not in self._tokenizers:
            self._tokenizers[model] = load_tokenizer(self._config.models[model], self._config.tasks_of(model))
        tokens = self._tokenizers[model].encode(texts, [task.prompt])
        [rows] = self._embedder.embed(model, tokens, Priority.BACKFILL)
        return rows
