"""Who works on a task's collection: one process at a time fills it with old records, or purges it."""

import fcntl
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from pipeline.binding import Task
from pipeline.errors import EnvironmentFault


class Leases:
    """A lease per task, until closed. Kernel locks on files: a process that is killed releases them."""

    def __init__(self, folder: Path, tasks: Iterable[Task], holder: str) -> None:
        """Takes the leases in a folder that exists; `holder` is what others are told: "backfill", "purge".

        Raises EnvironmentFault where another process has one, OSError where the folder cannot be used.
        """
        self._folder = folder
        self._files: list[IO[str]] = []
        try:
            for task in tasks:
                self._take(task, holder)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Releases the leases. Safe to call twice."""
        while self._files:
            self._files.pop().close()

    def _take(self, task: Task, holder: str) -> None:
        file = (self._folder / f"{task.collection}.lease").open("a+")
        self._files.append(file)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            other = file.read(32).strip() or "backfill"
            raise EnvironmentFault(f"task {task.name!r}: another {other} works on it ({self._folder})") from None
        file.truncate(0)
        file.write(holder)
        file.flush()
