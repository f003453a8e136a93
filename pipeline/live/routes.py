"""Where records go: which tasks each topic's are embedded for, and what a batch is handed to on its way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.binding import Task
from pipeline.interfaces import DeadLetters, Embedder, PointWriter, Tokenizer
from pipeline.live.crashes import Suspects
from pipeline.live.observer import Observer
from pipeline.live.retry import Retrier
from pipeline.records.batches import Priority
from pipeline.records.record import PointIds


@dataclass(frozen=True, slots=True)
class Routes:
    """Which tasks the records of each topic are embedded for."""

    ids: PointIds
    tasks: Mapping[str, Sequence[Task]]
    """Topic -> its tasks."""
    tokenizers: Mapping[str, Tokenizer]
    """Model name -> tokenizer."""

    @property
    def all_tasks(self) -> list[Task]:
        """Every task of every topic, once."""
        return list({task.name: task for tasks in self.tasks.values() for task in tasks}.values())


@dataclass(frozen=True, slots=True)
class Ports:
    """What a batch is handed to. Every part is thread-safe; the topics of one process share them."""

    embedder: Embedder
    store: PointWriter
    dead_letters: DeadLetters
    retry: Retrier
    observer: Observer
    priority: Priority = Priority.LIVE
    suspects: Suspects = field(default_factory=Suspects)
