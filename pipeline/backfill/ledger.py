"""What a backfill has finished, per fragment and task fingerprint; survives a kill at any moment."""

import fcntl
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.backfill.inputs import Fragment
from pipeline.backfill.outcome import Outcome, Reject
from pipeline.backfill.work import Work
from pipeline.binding import Task
from pipeline.errors import EnvironmentFault

FILE = "ledger.sqlite"

_TABLE = (
    "CREATE TABLE IF NOT EXISTS progress (fragment TEXT, fingerprint TEXT, state TEXT, next_row INTEGER,"
    " done INTEGER, num_rows INTEGER, num_rejected INTEGER, noted_s REAL, PRIMARY KEY (fragment, fingerprint))"
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


class Ledger:
    """A SQLite file in a folder of its own, with a lease per task. One thread at a time.

    Only what was flushed is noted. The lease is a kernel lock: a killed backfill releases it.
    """

    def __init__(self, folder: Path, tasks: Iterable[Task]) -> None:
        """Takes the leases. Raises EnvironmentFault where another backfill has one, or the folder cannot be used."""
        self._folder = folder
        self._tasks = {task.name: task for task in tasks}
        self._leases: list[IO[str]] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for task in self._tasks.values():
                self._take_lease(task)
            self._db = sqlite3.connect(folder / FILE, isolation_level=None)
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute(_TABLE)
        except (OSError, sqlite3.Error) as error:
            self._release()
            raise EnvironmentFault(f"ledger {folder}: cannot be used ({error})") from None
        except EnvironmentFault:
            self._release()
            raise

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

    def note(self, work: Work, outcome: Outcome, *, done: bool) -> None:
        """Notes how far a fragment is, durably and for all tasks of the work at once. Raises EnvironmentFault.

        Args:
            work: Where this run began, and for which tasks.
            outcome: What became of the rows since, rejects included; they are written beside the ledger first.
            done: Whether the fragment is finished.
        """
        fragment = work.fragment
        try:
            if outcome.rejects:
                write_rejects(self._folder, fragment, outcome.rejects, work.start)
            self._db.execute("BEGIN")
            for name in work.tasks:
                self._db.execute(
                    "INSERT OR REPLACE INTO progress VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        *(fragment.name, self._tasks[name].fingerprint, fragment.state, outcome.next_row, done),
                        *(outcome.next_row - fragment.begin, len(outcome.rejects), time.time()),
                    ),
                )
            self._db.execute("COMMIT")
        except (OSError, sqlite3.Error) as error:
            raise EnvironmentFault(f"ledger {self._folder}: cannot be written ({error})") from None

    def close(self) -> None:
        """Closes the file and releases the leases."""
        self._db.close()
        self._release()

    def _take_lease(self, task: Task) -> None:
        lease = (self._folder / f"{task.collection}.lease").open("w")
        self._leases.append(lease)
        try:
            fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EnvironmentFault(f"task {task.name!r}: another backfill works on it ({self._folder})") from None

    def _release(self) -> None:
        for lease in self._leases:
            lease.close()


def read_progress(folder: Path) -> list[TaskProgress]:
    """Returns what a ledger holds, also while a backfill runs. Raises EnvironmentFault."""
    if not (folder / FILE).exists():
        return []
    try:
        with sqlite3.connect(f"file:{folder / FILE}?mode=ro", uri=True) as db:
            rows = db.execute(
                "SELECT fingerprint, SUM(done), SUM(1 - done), SUM(num_rows), SUM(num_rejected), MAX(noted_s)"
                " FROM progress GROUP BY fingerprint ORDER BY MAX(noted_s) DESC"
            ).fetchall()
    except sqlite3.Error as error:
        raise EnvironmentFault(f"ledger {folder}: cannot be read ({error})") from None
    return [TaskProgress(*row) for row in rows]


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
