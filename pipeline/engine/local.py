"""The configured engines in this process, behind the seam the actors stand behind elsewhere."""

from pipeline.config.pipeline import Config
from pipeline.engine.engine import Engine
from pipeline.engine.entry import load_engine
from pipeline.errors import RefractError, UnexpectedFault
from pipeline.records.batches import Embeddings, Priority, TokenBatch


class LocalEmbedder:
    """Implements `pipeline.interfaces.Embedder`. Loads a model when it is first asked for. One thread at a time."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._engines: dict[str, Engine] = {}

    def embed(self, model: str, batch: TokenBatch, priority: Priority) -> Embeddings:  # noqa: ARG002 - nobody waits
        """See Embedder."""
        if model not in self._engines:
            self._engines[model] = load_engine(self._config.models[model], self._config.tasks_of(model), threads=None)
        try:
            return self._engines[model].embed(batch)
        except RefractError:
            raise
        except Exception as error:  # whatever a model's own code raises
            raise UnexpectedFault(f"model {model} failed unexpectedly: {type(error).__name__}") from error
