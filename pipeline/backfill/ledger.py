"""What a backfill has finished, per fragment and task fingerprint; survives a kill at any moment."""

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.backfill.inputs import Fragment
from pipeline.backfill.kafka_ranges import SCHEME
from pipeline.backfill.leases import Leases
from pipeline.backfill.outcome import Outcome, Reject
from pipeline.backfill.work import Work
from pipeline.binding import Task
from pipeline.errors import EnvironmentFault

FILE = "ledger.sqlite"

_TABLE = (
    "CREATE TABLE IF NOT EXISTS progress (fragment TEXT, fingerprint TEXT, state TEXT, next_row INTEGER,"
    " done INTEGER, num_rows INTEGER, num_rejected INTEGER, noted_s REAL, PRIMARY KEY (fragment, fingerprint))"
)

_ADDED = {"topic": "TEXT", "witness": "TEXT", "witness_version": "INTEGER"}
"""Columns that earlier ledgers lack: the topic whose rules the rows follow, and a point that was stored."""

_NOTE = (
    "INSERT INTO progress VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET state = excluded.state,"
    " next_row = excluded.next_row, done = excluded.done, num_rows = excluded.num_rows,"
    " num_rejected = excluded.num_rejected, noted_s = excluded.noted_s, topic = excluded.topic,"
    # Rows that are all rejected leave no point: then the one before still stands for the fragment.
    " witness_version = CASE WHEN excluded.witness IS NULL THEN witness_version ELSE excluded.witness_version END,"
    " witness = COALESCE(excluded.witness, witness)"
)


@dataclass(frozen=True, slots=True)
class TaskProgress:
    """What the ledger holds of one fingerprint."""

    fingerprint: str
    num_done: int
    num_begun: int
    """Fragments finished in part."""
    num_rows: int
    num_rejected: int
    noted_s: float
    """Unix time of the last entry."""


@dataclass(frozen=True, slots=True)
class NotedFile:
    """A file that was backfilled, at least in part."""

    uri: str
    topic: str | None
    """Whose rules its rows follow; None in entries of earlier versions, which did not note it."""


@dataclass(frozen=True, slots=True)
class NotedPoint:
    """A point that was stored with a fragment: while the store holds it, the rest is there, too."""

    fragment: str
    task: str
    id: bytes | None
    """None in entries of earlier versions, which noted none."""
    version: int


class Ledger:
    """A SQLite file in a folder of its own, with a lease per task. One thread at a time.

    Only what was flushed is noted.
    """

    def __init__(self, folder: Path, tasks: Iterable[Task], topic: str) -> None:
        """Takes the leases; `topic` is the one whose rules the fragments follow.

        Raises EnvironmentFault where another process has a lease, or the folder cannot be used.
        """
        self._folder = folder
        self._tasks = {task.name: task for task in tasks}
        self._topic = topic
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._leases = Leases(folder, self._tasks.values(), "backfill")
        except OSError as error:
            raise EnvironmentFault(f"ledger {folder}: cannot be used ({error})") from None
        try:
            self._db = sqlite3.connect(folder / FILE, isolation_level=None)
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute(_TABLE)
            known = _columns(self._db)
            for name, kind in _ADDED.items():
                if name not in known:
                    self._db.execute(f"ALTER TABLE progress ADD COLUMN {name} {kind}")
        except sqlite3.Error as error:
            self._leases.close()
            raise EnvironmentFault(f"ledger {folder}: cannot be used ({error})") from None

    def left_of(self, fragment: Fragment) -> Work:
        """Returns what is left of a fragment: the tasks it is not finished for, and from which row on."""
        found = {
            fingerprint: (state, next_row, bool(done))
            for fingerprint, state, next_row, done in self._db.execute(
                "SELECT fingerprint, state, next_row, done FROM progress WHERE fragment = ?", (fragment.name,)
            )
        }
        left, starts, changed = [], [], False
        for name, task in self._tasks.items():
            state, next_row, done = found.get(task.fingerprint, (fragment.state, 0, False))
            if state != fragment.state:
                changed, next_row, done = True, 0, False
            if not done:
                left.append(name)
                starts.append(next_row)
        return Work(fragment, left, min(starts, default=0), changed)

    def noted_points(self, fragments: Iterable[Fragment]) -> list[NotedPoint]:
        """Returns a point of each fragment and task that has stored some, and of which the input has not changed."""
        names = {task.fingerprint: name for name, task in self._tasks.items()}
        states = {fragment.name: fragment.state for fragment in fragments}
        rows = self._db.execute(
            "SELECT fragment, state, fingerprint, witness, witness_version FROM progress WHERE num_rows > num_rejected"
        )
        return [
            NotedPoint(fragment, names[fingerprint], None if point is None else bytes.fromhex(point), version or 0)
            for fragment, state, fingerprint, point, version in rows
            if states.get(fragment) == state and fingerprint in names
        ]

    def forget(self, points: Iterable[NotedPoint]) -> None:
        """Drops the entries of fragments whose points are gone. Raises EnvironmentFault."""
        entries = [(point.fragment, self._tasks[point.task].fingerprint) for point in points]
        try:
            self._db.execute("BEGIN")
            self._db.executemany("DELETE FROM progress WHERE fragment = ? AND fingerprint = ?", entries)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise EnvironmentFault(f"ledger {self._folder}: cannot be written ({error})") from None

    def note(self, work: Work, outcome: Outcome, *, done: bool) -> None:
        """Notes how far a fragment is, durably and for all tasks of the work at once. Raises EnvironmentFault.

        Args:
            work: Where this run began, and for which tasks.
            outcome: What became of the rows since, rejects included; they are written beside the ledger first.
            done: Whether the fragment is finished.
        """
        fragment, witness = work.fragment, outcome.witness
        stored = (None, None) if witness is None else (witness.id.hex(), witness.version)
        try:
            if outcome.rejects:
                write_rejects(self._folder, fragment, outcome.rejects, work.start)
            self._db.execute("BEGIN")
            for name in work.tasks:
                self._db.execute(
                    _NOTE,
                    (
                        *(fragment.name, self._tasks[name].fingerprint, fragment.state, outcome.next_row, done),
                        *(outcome.next_row - fragment.begin, len(outcome.rejects), time.time(), self._topic, *stored),
                    ),
                )
            self._db.execute("COMMIT")
        except (OSError, sqlite3.Error) as error:
            raise EnvironmentFault(f"ledger {self._folder}: cannot be written ({error})") from None

    def close(self) -> None:
        """Closes the file and releases the leases."""
        self._db.close()
        self._leases.close()


def read_progress(folder: Path) -> list[TaskProgress]:
    """Returns what a ledger holds, also while a backfill runs. Raises EnvironmentFault."""
    rows = _read(
        folder,
        "SELECT fingerprint, SUM(done), SUM(1 - done), SUM(num_rows), SUM(num_rejected), MAX(noted_s)"
        " FROM progress GROUP BY fingerprint ORDER BY MAX(noted_s) DESC",
    )
    return [TaskProgress(*row) for row in rows]


def read_witnesses(folder: Path) -> frozenset[bytes]:
    """Returns the ids of the points that stand for fragments, of all tasks. Raises EnvironmentFault."""
    return frozenset(
        bytes.fromhex(point) for (point,) in _read(folder, "SELECT DISTINCT {witness} FROM progress") if point
    )


def read_files(folder: Path) -> dict[NotedFile, set[str]]:
    """Returns the files that have fragments in a ledger, each with the fingerprints of its tasks.

    Raises EnvironmentFault.
    """
    files: dict[NotedFile, set[str]] = {}
    for fragment, topic, fingerprint in _read(folder, "SELECT fragment, {topic}, fingerprint FROM progress ORDER BY 1"):
        if not fragment.startswith(SCHEME):
            files.setdefault(NotedFile(fragment.rpartition("#")[0], topic), set()).add(fingerprint)
    return files


def _read(folder: Path, query: str) -> list[Any]:
    """Returns the rows of a query, in which columns that the ledger may lack stand in braces."""
    if not (folder / FILE).exists():
        return []
    try:
        with closing(sqlite3.connect(f"file:{folder / FILE}?mode=ro", uri=True)) as db:
            known = _columns(db)
            return db.execute(query.format_map({name: name if name in known else "NULL" for name in _ADDED})).fetchall()
    except sqlite3.Error as error:
        raise EnvironmentFault(f"ledger {folder}: cannot be read ({error})") from None


def _columns(db: sqlite3.Connection) -> set[str]:
    return {row[1] for row in db.execute("PRAGMA table_info(progress)")}


def write_rejects(folder: Path, fragment: Fragment, rejects: Sequence[Reject], start: int) -> None:
    """Writes a fragment's rejects of a run that began at row `start` as Parquet, whole or not at all."""
    names = Reject._fields
    columns = dict(zip(names, map(list, zip(*rejects, strict=True)), strict=True))
    table = pa.table({"fragment": [fragment.name] * len(rejects), **columns})
    name = hashlib.sha256(fragment.name.encode()).hexdigest()[:16]
    path = folder / "rejects" / f"{name}-{start}.parquet"
    path.parent.mkdir(exist_ok=True)
    # Of its own: a backfill of other tasks may read the same fragment at the same time.
    beside = path.with_name(f"{path.stem}.{uuid4().hex[:8]}.tmp")
    pq.write_table(table, beside)
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    beside.replace(path)
