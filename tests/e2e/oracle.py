"""A journal of everything a test has produced, and what the stores and the dead-letter topic must hold because of it.

The rules are written here a second time, on purpose and as plainly as possible: the newest version
of a key counts, a delete is a version without a vector, of two equal versions the first stays, and a
record that can never be stored is a letter and nothing else.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from kafka import KafkaProducer

from pipeline.config.app import Config
from pipeline.engine.load import identify, load_engine, load_tokenizer
from pipeline.errors import Reason
from pipeline.interfaces import Store, StoredPoint
from pipeline.records import Float32, point_id
from pipeline.sources.letter_reader import StoredLetter, read_dead_letters
from pipeline.stores.points import uuid_text
from pipeline.tasks import Task, bind_tasks

VERSION_0 = 1_700_000_000_000
"""Version 0 of the tests' tickets: versions are times in milliseconds, and one in the future is refused."""

MAX_SHOWN = 5
PAGE = 1_000


@dataclass(slots=True)
class State:
    """What must be stored for one key."""

    version: int
    text: str | None
    payload: Mapping[str, Any]
    sources: set[str] = field(default_factory=set)
    """Positions of the records that said so; more than one when a version was sent twice."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A record on its way, with what it must lead to: a state of a key, or a letter."""

    topic: str
    acknowledged: Any
    """The producer's future of the record's place."""
    key: str = ""
    version: int | None = None
    """None: its offset."""
    text: str | None = None
    payload: Mapping[str, Any] = field(default_factory=dict)
    reason: Reason | None = None
    value: bytes | None = None


class Journal:
    """Produces records with a client of its own, and knows what must come of them. Use from one thread."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.tickets, self.events = (f"{config.pipeline}.{name}" for name in ("tickets", "events"))
        self.tasks = bind_tasks(config, {name: identify(model) for name, model in config.models.items()})
        self.ends: dict[tuple[str, int], int] = {}
        """(topic, partition) -> the offset after the last record: where the group must stand in the end."""
        self.letters: dict[tuple[str, int, int], tuple[Reason, bytes | None]] = {}
        self.states: dict[str, dict[bytes, State]] = {name: {} for name in config.tasks}
        self._on_the_way: list[Sent] = []
        self._producer: Any = KafkaProducer(
            bootstrap_servers=config.source.bootstrap_servers,
            acks="all",
            enable_idempotence=True,
            linger_ms=5,
            max_request_size=4 << 20,
            delivery_timeout_ms=120_000,
            metrics_enabled=False,
        )

    def close(self) -> None:
        self._producer.close(timeout=5)

    def ticket(self, key: str, version: int, body: str = "", *, deleted: bool = False, **fields: Any) -> str:
        """Sends a state of a ticket to `tickets`; returns the text that is embedded."""
        title, body = f"Ticket {key}", body or f"{key} as of {version}"
        payload = {"title": title, **fields}
        value = {"id": key, "body": body, "updated_at": VERSION_0 + version, **payload}
        value["status"] = "deleted" if deleted else "open"
        text = f"{title}\n\n{body}"
        self._send(
            self.tickets,
            key.encode(),
            orjson.dumps(value),
            key=key,
            version=VERSION_0 + version,
            text=None if deleted else text,
            payload={} if deleted else payload,
        )
        return text

    def null_value(self, key: str, version: int) -> None:
        """Sends Kafka's own delete; its timestamp is its version."""
        version += VERSION_0
        self._send(self.tickets, key.encode(), None, timestamp_ms=version, key=key, version=version)

    def event(self, key: str, message: str | None) -> None:
        """Sends to `events`, whose records carry no version: the later offset is newer. None deletes."""
        value = None if message is None else orjson.dumps({"message": message})
        self._send(self.events, key.encode(), value, key=key, text=message)

    def poison(
        self,
        reason: Reason,
        value: bytes | None,
        *,
        key: bytes | None = b"poison",
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Sends to `tickets` what can never be stored."""
        self._send(self.tickets, key, value, headers=headers, reason=reason)

    def settle(self) -> None:
        """Returns when the brokers have everything; only then are positions known, and with them what to expect."""
        self._producer.flush(timeout=120)
        sent, self._on_the_way = self._on_the_way, []
        for record in sent:
            placed = record.acknowledged.get(timeout=120)
            self.ends[record.topic, placed.partition] = placed.offset + 1
            if record.reason is not None:
                self.letters[record.topic, placed.partition, placed.offset] = (record.reason, record.value)
                continue
            self._apply(record, placed.partition, placed.offset)

    def expected(self, task: str, key: str) -> State:
        """Returns what must be stored for a key."""
        return self.states[task][point_id(self.config.pipeline, f"s:{key}")]

    def num_records(self) -> int:
        """How many records the topics hold."""
        return sum(self.ends.values())

    def store_differences(self, store: Store) -> list[str]:
        """Compares every collection with the journal, point by point: nothing lost, doubled, stale or made up."""
        return [line for task in self.tasks.values() for line in self._task_differences(store, task)]

    def letter_differences(self) -> list[str]:
        """Compares the dead-letter topic with the journal. A letter may be there twice, but not with two reasons."""
        found: dict[tuple[str, int, int], StoredLetter] = {}
        lines = []
        for letter in read_dead_letters(self.config.source) if self.letters else ():
            place = (letter.position.topic, letter.position.partition, letter.position.offset)
            found[place] = letter
            if place not in self.letters:
                lines.append(f"{place}: a letter ({letter.reason}: {letter.detail}) of a record that is sound")
                continue
            reason, value = self.letters[place]
            if letter.reason != reason:
                lines.append(f"{place}: a letter with {letter.reason} ({letter.detail}), expected {reason}")
            elif value is not None and not value.startswith(letter.value or b""):
                lines.append(f"{place}: the letter holds another value")
            elif not letter.is_shortened and letter.value != value:
                lines.append(f"{place}: the letter's value was changed")
        return lines + [f"{place}: no letter ({self.letters[place][0]})" for place in self.letters.keys() - found]

    def _send(
        self,
        topic: str,
        raw_key: bytes | None,
        value: bytes | None,
        *,
        headers: Sequence[tuple[str, bytes]] = (),
        timestamp_ms: int | None = None,
        **expected: Any,
    ) -> None:
        future = self._producer.send(topic, key=raw_key, value=value, headers=list(headers), timestamp_ms=timestamp_ms)
        self._on_the_way.append(Sent(topic, future, value=value, **expected))

    def _apply(self, record: Sent, partition: int, offset: int) -> None:
        version = offset if record.version is None else record.version
        source = f"{record.topic}:{partition}:{offset}"
        point = point_id(self.config.pipeline, f"s:{record.key}")
        payload = {"_key": f"s:{record.key}", **record.payload}
        for task in self.config.source.topics[record.topic].tasks:
            states = self.states[task]
            kept = states.get(point)
            if kept is None or version > kept.version:
                states[point] = State(version, record.text, payload, {source})
            elif version == kept.version:
                assert kept.text == record.text, "a test must not send two texts of one version: either may win"
                kept.sources.add(source)

    def _task_differences(self, store: Store, task: Task) -> list[str]:
        expected = self.states[task.name]
        if not expected:
            return []
        stored = all_points(store, task.collection)
        lines = [_difference(point, expected.get(point), stored.get(point)) for point in expected.keys() | stored]
        wrong = [line for line in lines if line]
        if not wrong and self.config.models[task.config.model].model.startswith("null:"):
            wrong = self._vector_differences(task, expected, stored)
        more = [f"… and {len(wrong) - MAX_SHOWN} more"] if len(wrong) > MAX_SHOWN else []
        return [f"task {task.name}: {line}" for line in sorted(wrong)[:MAX_SHOWN] + more]

    def _vector_differences(
        self, task: Task, expected: Mapping[bytes, State], stored: Mapping[bytes, StoredPoint]
    ) -> list[str]:
        """Compares with what the null engine gives here: equal texts have equal vectors, and no others."""
        live = {point: state.text for point, state in expected.items() if state.text is not None}
        rows = self.vectors(task.name, list(live.values()))
        lines = []
        for point, row in zip(live, rows, strict=True):
            vector = stored[point].vector
            if vector is None or not np.allclose(vector, row, atol=1e-6):
                lines.append(f"{uuid_text(point)} ({expected[point].payload['_key']}) has another text's vector")
        return lines

    def vectors(self, task: str, texts: Sequence[str]) -> Float32:
        """Returns the record vectors of texts, computed in this process."""
        name = self.config.tasks[task].model
        model = self.config.models[name].model_copy(update={"overrides": {}})
        tasks = {other: settings for other, settings in self.config.tasks.items() if settings.model == name}
        tokens = load_tokenizer(model, tasks).encode(texts, [task])
        return load_engine(model, tasks).embed(tokens)[0]


def all_points(store: Store, collection: str) -> dict[bytes, StoredPoint]:
    """Returns every point, tombstones included."""
    points: dict[bytes, StoredPoint] = {}
    after: bytes | None = None
    while page := store.scroll(collection, after, PAGE, with_vectors=True):
        points |= {point.id: point for point in page}
        after = page[-1].id
    return points


def sources(points: Iterable[StoredPoint]) -> set[tuple[str, int, int]]:
    """Returns the (topic, partition, offset) that points say they come from."""
    split = (str(point.payload["_source"]).rsplit(":", 2) for point in points)
    return {(topic, int(partition), int(offset)) for topic, partition, offset in split}


def _difference(point: bytes, state: State | None, stored: StoredPoint | None) -> str:
    name = uuid_text(point)
    if state is None:
        return f"{name} is stored and was never sent"
    name = f"{name} ({state.payload['_key']})"
    if stored is None:
        return f"{name} is missing, expected version {state.version}"
    found = dict(stored.payload)
    source = found.pop("_source", None)
    checks: Sequence[tuple[str, Callable[[], tuple[object, object]]]] = (
        ("version", lambda: (stored.version, state.version)),
        ("deleted", lambda: (stored.deleted, state.text is None)),
        ("payload", lambda: (found, dict(state.payload))),
    )
    for what, values in checks:
        actual, wanted = values()
        if actual != wanted:
            return f"{name}: {what} {actual!r}, expected {wanted!r}"
    return "" if source in state.sources else f"{name}: from {source}, expected {sorted(state.sources)}"
