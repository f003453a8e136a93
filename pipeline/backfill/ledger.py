"""What a backfill has finished, per fragment and task fingerprint; survives a kill at any moment."""

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

from pipeline.backfill.fragments import Fragment
from pipeline.errors import EnvironmentFault
from pipeline.tasks import Task


class Ledger:
    """A SQLite file in a folder of its own, with a lease per task. One thread at a time.

    A fragment is noted only after its points are flushed. The lease is a kernel lock, so a killed
    backfill holds none.
    """

    def __init__(self, folder: Path, tasks: Iterable[Task]) -> None:
        """Takes the leases. Raises EnvironmentFault where another backfill has one, or the folder cannot be used."""
        self._leases: list[IO[str]] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for task in tasks:
                lease = (folder / f"{task.collection}.lease").open("w")
                self._leases.append(lease)
                try:
                    fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise EnvironmentFault(f"task {task.name!r}: another backfill works on it ({folder})") from None
            self._db = sqlite3.connect(folder / "ledger.sqlite", isolation_level=None)
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS done (fragment TEXT, fingerprint TEXT, size INTEGER, mtime_ns INTEGER,"
                " num_rows INTEGER, num_rejected INTEGER, PRIMARY KEY (fragment, fingerprint))"
            )
        except (OSError, sqlite3.Error) as error:
            self._release()
            raise EnvironmentFault(f"ledger {folder}: cannot be used ({error})") from None
        except EnvironmentFault:
            self._release()
            raise

    def pending(self, fragment: Fragment, tasks: Sequence[Task]) -> tuple[list[Task], bool]:
        """Returns the tasks the fragment is not finished for, and whether its file changed since it was."""
        found = {
            fingerprint: (size, mtime_ns)
            for fingerprint, size, mtime_ns in self._db.execute(
                "SELECT fingerprint, size, mtime_ns FROM done WHERE fragment = ?", (fragment.name,)
            )
        }
        now = (fragment.size, fragment.mtime_ns)
        pending = [task for task in tasks if found.get(task.fingerprint) != now]
        return pending, any(task.fingerprint in found for task in pending)

    def finish(self, fragment: Fragment, tasks: Iterable[Task], num_rows: int, num_rejected: int) -> None:
        """Notes a fragment as finished, durably and for all tasks at once. Raises EnvironmentFault."""
        try:
            self._db.execute("BEGIN")
            self._db.executemany(
                "INSERT OR REPLACE INTO done VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (fragment.name, task.fingerprint, fragment.size, fragment.mtime_ns, num_rows, num_rejected)
                    for task in tasks
                ],
            )
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise EnvironmentFault(f"ledger: cannot be written ({error})") from None

    def close(self) -> None:
        """Closes the file and gives the leases back."""
        self._db.close()
        self._release()

    def _release(self) -> None:
        for lease in self._leases:
            lease.close()


def write_rejects(folder: Path, fragment: Fragment, rejects: Sequence[tuple[int, str, str, str]]) -> None:
    """Writes (row, reason, task, detail) of a fragment as Parquet beside the ledger, whole or not at all."""
    import hashlib  # noqa: PLC0415

    import pyarrow as pa  # noqa: PLC0415 - an optional dependency
    import pyarrow.parquet as pq  # noqa: PLC0415

    names = ("row", "reason", "task", "detail")
    columns = dict(zip(names, map(list, zip(*rejects, strict=True)), strict=True))
    table = pa.table({"fragment": [fragment.name] * len(rejects), **columns})
    path = folder / "rejects" / f"{hashlib.sha256(fragment.name.encode()).hexdigest()[:16]}.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path.with_suffix(".tmp"))
    with path.with_suffix(".tmp").open("rb") as file:
        os.fsync(file.fileno())
    path.with_suffix(".tmp").replace(path)
