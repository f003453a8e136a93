"""The seam of every engine: token batches in, float32 rows out, one forward batch at a time."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from pipeline.errors import RefractError
from pipeline.records.batches import Embeddings, TokenBatch

MERGED_ITEMS = 1_024
"""Items of one job: enough to pack by length, few enough that the first batch of a job does not wait long."""

Result = Embeddings | RefractError
"""What one token batch came to. An error is about that batch only: BatchShapeError (send halves) or
RecordError (one text, and it can never be embedded)."""


class Job(ABC):
    """Token batches under way. Between two steps the caller may run another job, a query's for example."""

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether nothing is left to compute."""

    @abstractmethod
    def step(self) -> int:
        """Computes one forward batch and returns its tokens; of several beside each other the largest. 0 when done."""

    @abstractmethod
    def results(self) -> list[Result]:
        """Returns one result per token batch, in order. Runs the steps that are left."""


class Engine(ABC):
    """One loaded model with the prompts of its tasks. All methods are called from one thread at a time."""

    dimension: int
    """Width of the model's own vectors, before any truncation."""
    max_batch_tokens: int
    """Tokens of one forward batch at present."""

    @abstractmethod
    def begin(self, batches: Sequence[TokenBatch], max_tokens: int | None = None) -> Job:
        """Returns a job over all items of all batches, sorted by length and packed together.

        Args:
            batches: What to embed.
            max_tokens: Most tokens of one forward batch of this job, where `max_batch_tokens` is more. An item that
                is longer is a forward batch of its own.

        Raises:
            ConfigError: a prompt name this engine does not know.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Returns what `check` and `status` print: model, templates, precision, device, budget, warnings."""

    def embed_many(self, batches: Sequence[TokenBatch]) -> list[Result]:
        """Returns one result per batch, in order; an error of one batch leaves the others whole."""
        return self.begin(batches).results()

    def embed(self, batch: TokenBatch) -> Embeddings:
        """Returns one (num_texts, dimension) float32 array per prompt, rows L2-normalised, NaN where impossible.

        Raises:
            BatchShapeError: an item does not fit in memory; half the batch may.
            RecordError: the same for a batch of one text.
        """
        (result,) = self.embed_many([batch])
        if isinstance(result, RefractError):
            raise result
        return result
