"""The seam of every engine: token batches in, float32 rows out, one forward batch at a time."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from pipeline.errors import RefractError
from pipeline.records.batches import Embeddings, Float32, TokenBatch

MERGED_ITEMS = 1_024
"""Items of one job: enough to pack by length, few enough that the first batch of a job does not wait long."""

Rows = list[Float32]
"""One (num_texts, dimension) float32 array per prompt of a batch, as the model made them: not cut, not normalised."""

Result = Rows | RefractError
"""What one token batch came to. An error is about that batch only: BatchShapeError (send halves) or
RecordError (one text, and it can never be embedded)."""


class Job(ABC):
    """Token batches under way. Between two steps the caller may run another job, a query's for example."""

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether nothing is left to compute."""

    @property
    @abstractmethod
    def num_forward_items(self) -> int:
        """Texts that go through the model: each of a batch once for all of its prompts that share a pass."""

    @abstractmethod
    def step(self) -> int:
        """Computes one forward batch and returns its tokens; of several beside each other the largest. 0 when done."""

    @abstractmethod
    def results(self) -> list[Result]:
        """Returns one result per token batch, in order, for `Engine.finish`. Runs the steps that are left."""


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

    def pass_of(self, prompt: str) -> str:
        """Returns the name of one prompt for all that share its pass: their rows are equal until `finish`.

        A prompt that the engine does not know is its own.
        """
        return prompt

    def finish(self, batch: TokenBatch, rows: Rows) -> Embeddings:  # noqa: ARG002 - for engines whose prompts differ
        """Returns the embeddings of a batch from a job's rows of it: through the prompts' heads, cut, normalised."""
        return rows

    def embed_many(self, batches: Sequence[TokenBatch]) -> list[Embeddings | RefractError]:
        """Returns one result per batch, in order; an error of one batch leaves the others whole."""
        return [
            result if isinstance(result, RefractError) else self.finish(batch, result)
            for batch, result in zip(batches, self.begin(batches).results(), strict=True)
        ]

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
