"""The demo once the app is ready: sends the records, asks questions, and compares the store with what was sent."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any, Protocol

from pipeline.binding import Task
from pipeline.errors import RefractError
from pipeline.interfaces import PointReader
from pipeline.records.record import PointIds
from pipeline.usecases.client import AppClient
from pipeline.usecases.demo_setup import Demo
from pipeline.usecases.running import App, State

RATE = 80.0
"""Records a second: slow enough to watch, fast enough not to wait."""

LOOK_S = 0.5
PATIENCE_S = 240.0
MAX_HITS = 5
QUERIES = (
    "nobody in the company can log in and customers are calling, please help right now",
    "when you find a quiet moment: my printer leaves a small grey line on the paper",
)


class StoringApp(App, Protocol):
    """An app whose store can be read."""

    @property
    def tasks(self) -> Mapping[str, Task]:
        """All tasks by name."""

    def store(self) -> PointReader:
        """Returns the store, for reading."""


@dataclass(frozen=True, slots=True)
class Answers:
    """The hits of one question under every task."""

    question: str
    hits: Mapping[str, Sequence[Mapping[str, Any]]]
    """By task."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What one task's collection holds of the records that were sent."""

    task: str
    live: int
    deleted: int
    newest: int
    """Keys in their newest version."""
    wrong: int


def stream(app: App, demo: Demo, stop: Event) -> Iterator[State]:
    """Sends the records from a thread and yields the app's state until all are finished or `stop` is set.

    Raises RefractError when they are not finished in time, and like `Demo.send`.
    """
    failures: list[RefractError] = []
    sent: list[int] = []

    def send() -> None:
        try:
            sent.append(demo.send(RATE if demo.newest else None, stop))
        except RefractError as error:
            failures.append(error)

    sender = Thread(target=send, name="produce", daemon=True)
    sender.start()
    deadline_s = time.monotonic() + PATIENCE_S + demo.num_rows / 10
    while not stop.is_set():
        state = app.state()
        yield state
        if failures:
            raise failures[0]
        if sent and _finished(state, demo, sent[0]):
            return
        if time.monotonic() > deadline_s:
            raise RefractError("the records did not arrive in time; the table above shows where they are")
        stop.wait(LOOK_S)


def ask(demo: Demo) -> Iterator[Answers]:
    """Yields the answers to the demo's questions, and the neighbours of one stored record. Raises like AppClient."""
    with AppClient(demo.config) as app:
        for query in QUERIES:
            hits = {task: app.search(task, text=query, limit=MAX_HITS)["hits"] for task in demo.tasks}
            yield Answers(f'search "{query}"', hits)
        key = next((key for key, (_, deleted) in demo.newest.items() if not deleted), None)
        if key is None:
            key = app.search(demo.tasks[0], text=QUERIES[0], limit=1)["hits"][0]["key"]
        hits = {task: app.search(task, key=key, limit=MAX_HITS)["hits"] for task in demo.tasks}
        yield Answers(f"neighbours of record {key}", hits)


def prove(app: StoringApp, demo: Demo) -> list[Proof]:
    """Compares what each collection holds with the newest state of every key that was sent. Demo data only."""
    return [_proof(app, demo, task) for task in demo.tasks if demo.newest]


def dead_letters(demo: Demo) -> Mapping[str, int]:
    """Returns how many records were dead-lettered, by reason."""
    from pipeline.sources.letters.letter_reader import read_dead_letters  # Kafka

    return Counter(str(letter.reason) for letter in read_dead_letters(demo.config.source))


def _finished(state: State, demo: Demo, num_sent: int) -> bool:
    """Whether every record that was sent was stored, found older, or dead-lettered."""
    facts = state["topics"][demo.topic]
    task = next(iter(facts["tasks"].values()))
    done: int = task["written"] + task["deleted"] + task["stale"] + sum(facts["dead_letters"].values())
    received, behind = int(facts["received"]), int(facts["lag_records"])
    return received >= num_sent and behind == 0 and done >= num_sent


def _proof(app: StoringApp, demo: Demo, name: str) -> Proof:
    spaces = PointIds(demo.config.pipeline, demo.config.source.key_spaces)
    ids = {spaces.of(demo.topic, f"s:{key}"): version for key, version in demo.newest.items()}
    collection, store = app.tasks[name].collection, app.store()
    stored = {point.id: (point.version, point.deleted) for point in store.retrieve(collection, list(ids))}
    num_wrong = sum(stored.get(point) != version for point, version in ids.items())
    num_wrong += abs(store.count(collection) - sum(not deleted for _, deleted in ids.values()))
    num_live = sum(not deleted for _, deleted in stored.values())
    return Proof(name, num_live, len(stored) - num_live, len(ids) - num_wrong, num_wrong)
