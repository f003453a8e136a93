"""What a training run can be told; equal settings on equal data and one machine give equal weights."""

from dataclasses import dataclass

LARGE_WIDTH = 768
"""Hidden size from which a model is trained in smaller steps."""


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """A run of the LoRA loop."""

    seed: int = 0
    rank: int = 16
    """Rank of every update; its scale, alpha, is twice as much."""
    dropout: float = 0.0
    """In front of the updates; the model's own dropout stays off. On a CPU drawing it costs a quarter of a step."""
    learning_rate: float | None = None
    """None: `default_learning_rate`."""
    temperature: float = 0.1
    texts: int = 24
    """Texts of a batch; each appears under every task's instruction."""
    rehearsal: int = 48
    """General texts of a step, which are to keep their neighbours; 0 for none."""
    plain_share: float = 0.1
    """Share of the batches without an instruction, which hold the model to what it was."""
    warmup_steps: int = 20
    """Steps over which the learning rate rises; afterwards it falls to nothing at the last one."""
    max_tokens: int = 256
    """Longest prompt in training; longer texts are cut."""
    workers: int = 1
    """Processes that take every step together, each with a batch of its own."""

    @property
    def alpha(self) -> int:
        """Scale of the updates."""
        return 2 * self.rank


def default_learning_rate(hidden_size: int) -> float:
    """Returns 5e-4 for small models and 1e-4 for large ones."""
    return 1e-4 if hidden_size > LARGE_WIDTH else 5e-4
