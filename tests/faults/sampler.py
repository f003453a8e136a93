"""Looks at the store while the pipeline is being disturbed, for what a comparison at the end could not tell."""

import random
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import Any, Self

import kafka.errors as kafka_errors
from kafka import KafkaAdminClient, TopicPartition

from pipeline.errors import RefractError
from pipeline.interfaces import PointReader
from pipeline.records.record import uuid_text
from pipeline.sources.client.admin import group_offsets
from pipeline.sources.client.connection import client_settings, connect
from tests.e2e.differences import Difference, Harm
from tests.e2e.oracle import Journal, Placed

INTERVAL_S = 0.3
NUM_READ = 60
RECENT = 5_000
"""Only the newest records are looked at: those in motion."""


class Sampler:
    """A thread that reads points again and again: no version may go down, and what is committed must be stored.

    Committed offsets are read before the points, so a point that is missing then was committed too
    early. While the broker or the store is away it waits for the next turn.
    """

    def __init__(self, journal: Journal, store: PointReader, seed: int = 0) -> None:
        self._journal = journal
        self._store = store
        self._random = random.Random(seed)
        self._seen: dict[tuple[str, bytes], int] = {}
        self._found: list[Difference] = []
        self._lock = Lock()
        self._stop = Event()
        self._admin: Any = None
        self._thread = Thread(target=self._run, name="sampler", daemon=True)
        self.num_looks = 0
        """How many points were looked at; a sampler that saw nothing has proved nothing."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._forget_admin()

    def take(self) -> list[Difference]:
        """Returns what was found since the last call."""
        with self._lock:
            found, self._found = self._found, []
        return found

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            try:
                self._look()
            except RefractError:
                continue
            except (kafka_errors.KafkaError, OSError):
                self._forget_admin()

    def _look(self) -> None:
        placed = self._journal.placed
        if not placed:
            return
        committed = self._committed()
        recent = placed[-RECENT:]
        sample = self._random.sample(recent, min(NUM_READ, len(recent)))
        for collection in sorted({name for record in sample for name in record.collections}):
            records = [record for record in sample if collection in record.collections]
            points = self._store.retrieve(collection, list({record.point for record in records}))
            stored = {point.id: point.version for point in points}
            for record in records:
                finished = committed.get((record.topic, record.partition), 0) > record.offset
                self._judge(record, collection, stored.get(record.point, -1), finished=finished)

    def _judge(self, record: Placed, collection: str, version: int, *, finished: bool) -> None:
        before = self._seen.get((collection, record.point), -1)
        self._seen[collection, record.point] = max(version, before)
        name = uuid_text(record.point)
        if version < before:
            harm = Harm.STALE if version >= 0 else Harm.LOST
            self._note(harm, f"{name}: version {before} was stored, and then {version}")
        if finished and version < record.version:
            place = f"{record.topic}[{record.partition}] at {record.offset}"
            self._note(Harm.LOST, f"{name}: {place} is committed, and version {version} is stored")
        self.num_looks += 1

    def _note(self, harm: Harm, told: str) -> None:
        with self._lock:
            self._found.append(Difference(harm, told))

    def _committed(self) -> dict[tuple[str, int], int]:
        source = self._journal.source
        if self._admin is None:
            self._admin = connect(KafkaAdminClient, client_settings(source, "sampler"), source)
        partitions = [TopicPartition(*place) for place in list(self._journal.ends)]
        offsets = group_offsets(self._admin, source.group_id, partitions)
        return {tuple(partition): known.offset for partition, known in offsets.items()}

    def _forget_admin(self) -> None:
        admin, self._admin = self._admin, None
        if admin is not None:
            with suppress(Exception):
                admin.close()
