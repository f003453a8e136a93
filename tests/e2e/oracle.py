"""A journal of everything a test has produced, and what the stores and the dead-letter topic must hold because of it.

The rules are written here a second time, on purpose and as plainly as possible: the newest version
of a key counts, a delete is a version without a vector, of two equal versions the first stays, and a
record that can never be stored is a letter and nothing else.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from kafka import KafkaProducer

from pipeline.binding import Task, bind_tasks
from pipeline.config.pipeline import Config
from pipeline.engine.entry import identify, load_engine, load_tokenizer
from pipeline.errors import Reason
from pipeline.interfaces import PointReader, StoredPoint
from pipeline.records.batches import Float32
from pipeline.records.record import point_id, uuid_text
from pipeline.sources.client.admin import open_admin, topic_exists
from pipeline.sources.letters.letter_reader import StoredLetter, read_dead_letters
from tests.e2e.differences import Difference, Harm, State, difference_of, told

VERSION_0 = 1_700_000_000_000
"""Version 0 of the tests' tickets: versions are times in milliseconds, and one in the future is refused."""


def stored_version(version: int) -> int:
    """Returns a ticket's version as it is stored: a time in microseconds."""
    return (VERSION_0 + version) * 1_000


PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Placed:
    """A record the broker has acknowledged; its point in `collections` must reach `version`."""

    topic: str
    partition: int
    offset: int
    point: bytes
    version: int
    collections: Sequence[str]


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

    def __init__(self, config: Config, *, bootstrap_servers: str = "", log: Path | None = None) -> None:
        """Connects. `bootstrap_servers` leads past a proxy in the configuration; `log` outlives this process."""
        self.config = config
        self.source = config.source
        """As the configuration says, but for the servers."""
        if bootstrap_servers:
            self.source = config.source.model_copy(update={"bootstrap_servers": bootstrap_servers.split(",")})
        self.tickets, self.events = (f"{config.pipeline}.{name}" for name in ("tickets", "events"))
        self.tasks = bind_tasks(config, {name: identify(model) for name, model in config.models.items()})
        self.ends: dict[tuple[str, int], int] = {}
        """(topic, partition) -> the offset after the last record: where the group must stand in the end."""
        self.letters: dict[tuple[str, int, int], tuple[Reason, bytes | None]] = {}
        self.states: dict[str, dict[bytes, State]] = {name: {} for name in config.tasks}
        self.placed: list[Placed] = []
        """Every record that must be stored, in the order in which the brokers' answers were taken."""
        self.num_embeddings = 0
        """How many the records need when each is embedded once for each of its tasks."""
        self._on_the_way: list[Sent] = []
        self._log = log.open("ab", buffering=1 << 16) if log else None
        self._producer: Any = KafkaProducer(
            bootstrap_servers=self.source.bootstrap_servers,
            acks="all",
            enable_idempotence=True,
            linger_ms=5,
            max_request_size=4 << 20,
            delivery_timeout_ms=120_000,
            metadata_max_age_ms=5_000,
            api_version=tuple(config.source.api_version) if config.source.api_version else None,
            metrics_enabled=False,
        )

    def close(self) -> None:
        self._producer.close(timeout=5)
        if self._log is not None:
            self._log.close()

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
            version=stored_version(version),
            text=None if deleted else text,
            payload={} if deleted else payload,
        )
        return text

    def null_value(self, key: str, version: int) -> None:
        """Sends Kafka's own delete; its timestamp is its version."""
        stamp, stored = VERSION_0 + version, stored_version(version) + 999
        self._send(self.tickets, key.encode(), None, timestamp_ms=stamp, key=key, version=stored)

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
        if self._log is not None:
            self._log.flush()
            os.fsync(self._log.fileno())
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
        states = self.states[task]
        ids = (point_id(self.config.pipeline, topic, f"s:{key}") for topic in self.config.source.topics)
        return next(states[point] for point in ids if point in states)

    def num_records(self) -> int:
        """How many records the topics hold."""
        return sum(self.ends.values())

    def compare(self, store: PointReader) -> list[Difference]:
        """Compares every collection and the dead-letter topic with the journal, one by one."""
        return [
            *(found for task in self.tasks.values() for found in self._task_differences(store, task)),
            *self._letter_differences(),
        ]

    def store_differences(self, store: PointReader) -> list[str]:
        """Tells what is lost, doubled, stale or made up in the collections."""
        found = [told(task.name, self._task_differences(store, task)) for task in self.tasks.values()]
        return [line for lines in found for line in lines]

    def letter_differences(self) -> list[str]:
        """Tells how the dead-letter topic differs. A letter may be there twice, but not with two reasons."""
        return [str(difference) for difference in self._letter_differences()]

    def _letter_differences(self) -> list[Difference]:
        found: dict[tuple[str, int, int], StoredLetter] = {}
        differences = []
        for letter in self.stored_letters():
            place = (letter.position.topic, letter.position.partition, letter.position.offset)
            found[place] = letter
            if place not in self.letters:
                line = f"{place}: a letter ({letter.reason}: {letter.detail}) of a record that is sound"
                differences.append(Difference(Harm.DOUBLED, line))
                continue
            reason, value = self.letters[place]
            if letter.reason != reason:
                line = f"{place}: a letter with {letter.reason} ({letter.detail}), expected {reason}"
            elif value is not None and not value.startswith(letter.value or b""):
                line = f"{place}: the letter holds another value"
            elif not letter.is_shortened and letter.value != value:
                line = f"{place}: the letter's value was changed"
            else:
                continue
            differences.append(Difference(Harm.WRONG, line))
        missing = self.letters.keys() - found
        lost = [Difference(Harm.LOST, f"{place}: no letter ({self.letters[place][0]})") for place in missing]
        return differences + lost

    def stored_letters(self) -> Sequence[StoredLetter]:
        """Returns the dead-letter topic, copies included. A topic that nothing was to go to may not be there."""
        with open_admin(self.source, "looking for dead letters") as admin:
            exists = topic_exists(admin, self.source.dead_letter_topic)
        return list(read_dead_letters(self.source)) if exists else []

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
        if self._log is not None:
            line = {"topic": topic, "key": raw_key, "value": value, **expected}
            self._log.write(orjson.dumps(line, default=lambda raw: raw.decode("utf-8", "replace")) + b"\n")
        future = self._producer.send(topic, key=raw_key, value=value, headers=list(headers), timestamp_ms=timestamp_ms)
        self._on_the_way.append(Sent(topic, future, value=value, **expected))

    def _apply(self, record: Sent, partition: int, offset: int) -> None:
        generation = self.config.source.topics[record.topic].generation
        version = (generation << 40) | offset if record.version is None else record.version
        source = f"{record.topic}:{partition}:{offset}"
        point = point_id(self.config.pipeline, record.topic, f"s:{record.key}")
        payload = {"_key": f"s:{record.key}", **record.payload}
        tasks = self.config.source.topics[record.topic].tasks
        collections = [self.tasks[task].collection for task in tasks]
        self.placed.append(Placed(record.topic, partition, offset, point, version, collections))
        self.num_embeddings += len(tasks) * (record.text is not None)
        for task in tasks:
            states = self.states[task]
            kept = states.get(point)
            if kept is None or version > kept.version:
                states[point] = State(version, record.text, payload, {source})
            elif version == kept.version:
                assert kept.text == record.text, "a test must not send two texts of one version: either may win"
                kept.sources.add(source)

    def _task_differences(self, store: PointReader, task: Task) -> list[Difference]:
        expected = self.states[task.name]
        if not expected:
            return []
        stored = all_points(store, task.collection)
        found = (difference_of(point, expected.get(point), stored.get(point)) for point in expected.keys() | stored)
        differences = [difference for difference in found if difference is not None]
        if not differences and self.config.models[task.config.model].model.startswith("null:"):
            differences = self._vector_differences(task, expected, stored)
        return differences

    def _vector_differences(
        self, task: Task, expected: Mapping[bytes, State], stored: Mapping[bytes, StoredPoint]
    ) -> list[Difference]:
        """Compares with what the null engine gives here: equal texts have equal vectors, and no others."""
        live = {point: state.text for point, state in expected.items() if state.text is not None}
        rows = self.vectors(task.name, list(live.values()))
        differences = []
        for point, row in zip(live, rows, strict=True):
            vector = stored[point].vector
            if vector is None or not np.allclose(vector, row, atol=1e-6):
                line = f"{uuid_text(point)} ({expected[point].payload['_key']}) has another text's vector"
                differences.append(Difference(Harm.WRONG, line))
        return differences

    def vectors(self, task: str, texts: Sequence[str]) -> Float32:
        """Returns the record vectors of texts, computed in this process."""
        name = self.config.tasks[task].model
        model = self.config.models[name].model_copy(update={"overrides": {}})
        tasks = {other: settings for other, settings in self.config.tasks.items() if settings.model == name}
        tokens = load_tokenizer(model, tasks).encode(texts, [task])
        return load_engine(model, tasks).embed(tokens)[0]


def all_points(store: PointReader, collection: str) -> dict[bytes, StoredPoint]:
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
