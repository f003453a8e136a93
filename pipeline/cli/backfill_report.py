"""What `refract backfill` shows: a line while it runs, a report at its end, and what its ledger holds."""

import datetime as dt
import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import typer

from pipeline.cli.output import print_json, print_note, print_table

if TYPE_CHECKING:
    from actors.backfill_run import Progress
    from pipeline.backfill.outcome import Report
    from pipeline.backfill.work import Work
    from pipeline.tasks import Task

_WATCHED_S = 0.5
_PIPED_S = 10.0
"""Between two lines that nobody watches."""

_RATE_S = 60.0
"""What rates are of: counts move by whole batches, and one of a slow model on a CPU takes half a minute."""


class ProgressLine:
    """Shows rates, shares and an estimate: one changing line on a terminal, plain lines elsewhere."""

    def __init__(self, works: "Sequence[Work]") -> None:
        self._num_works = len(works)
        self._num_rows = _total_rows(works)
        self._num_bytes = sum(work.fragment.size for work in works)
        self._bytes_done = 0
        self._num_done = 0
        self._began_s: float | None = None
        self._first: tuple[float, int] | None = None
        self._printed_s = float("-inf")
        self._recent: deque[tuple[float, Progress]] = deque()
        self._live: Any = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.status import Status

            self._live = Status("", console=Console(stderr=True))
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def working_s(self) -> float:
        """Seconds since the first rows were seen; the start of Ray and the models lies before."""
        return 0.0 if self._began_s is None else time.monotonic() - self._began_s

    def note(self, text: str) -> None:
        """Says what goes on before anything can be counted."""
        self._print(text)

    def finished(self, work: "Work") -> None:
        """Counts a fragment that is over."""
        self._bytes_done += work.fragment.size
        self._num_done += 1

    def show(self, progress: "Progress") -> None:
        """Shows how things stand, and the rates of the last minute."""
        now = time.monotonic()
        if self._began_s is None and progress.counts.rows:
            self._began_s = now
        if self._first is None and (done := self._done(progress)[0]):
            self._first = now, done
        self._keep(progress, now)
        if now - self._printed_s >= (_WATCHED_S if self._live else _PIPED_S):
            self._print(self.line(progress, now))
            self._printed_s = now

    def line(self, progress: "Progress", now: float) -> str:
        """Returns the line; what the rates are since is kept by then."""
        counts = progress.counts
        before_s, before = self._recent[0]
        seconds = max(now - before_s, 1e-9)

        def rate(name: str) -> float:
            # The counts of a process that died are gone with it.
            return max(float(getattr(counts, name) - getattr(before.counts, name)), 0.0) / seconds

        parts = [
            f"fragments {self._num_done:,}/{self._num_works:,}",
            f"read {counts.rows:,} ({rate('rows'):,.0f} rows/s)",
            f"embedded {counts.embedded:,} ({rate('tokens'):,.0f} tokens/s)",
            f"written {counts.written + counts.deleted:,} ({rate('written') + rate('deleted'):,.0f} points/s)",
        ]
        if progress.num_embedders:
            busy = (progress.busy_s - before.busy_s) / seconds / progress.num_embedders
            parts.append(f"{progress.num_embedders} embedders {min(max(busy, 0), 1):.0%} busy")
        parts += [f"{reason} {number:,}" for reason, number in counts.rejected.items()]
        if counts.retries:
            parts.append(f"retries {counts.retries:,}")
        if (left_s := self._left_s(now, progress)) is not None:
            parts.append(f"about {dt.timedelta(seconds=round(left_s))} left")
        return " · ".join(parts)

    def _keep(self, progress: "Progress", now: float) -> None:
        """Keeps what the rates are since: the youngest that is a minute old, and nothing of before the first rows."""
        if self._recent and not self._recent[-1][1].counts.rows:
            self._recent.clear()
        self._recent.append((now, progress))
        while len(self._recent) > 1 and now - self._recent[1][0] >= _RATE_S:
            self._recent.popleft()

    def _done(self, progress: "Progress") -> tuple[int, int]:
        """Returns what is finished, and of how much: rows where the inputs say how many they have, else bytes."""
        if self._num_rows:
            return progress.counts.finished, self._num_rows
        return self._bytes_done, self._num_bytes

    def _left_s(self, now: float, progress: "Progress") -> float | None:
        """By the pace since the first of it was finished: before, models load while rows are read ahead."""
        done, total = self._done(progress)
        if self._first is None or done <= self._first[1]:
            return None
        return (now - self._first[0]) * max(total - done, 0) / (done - self._first[1])

    def _print(self, text: str) -> None:
        if self._live is not None:
            self._live.update(text)
        else:
            print_note(text)


def print_report(report: "Report", *, as_json: bool) -> None:
    """Prints what a run did."""
    counts = report.counts
    facts = {
        "fragments done": report.fragments_done,
        "fragments skipped": report.fragments_skipped,
        "fragments failed": len(report.failed),
        "rows": counts.rows,
        "embedded": counts.embedded,
        "written": counts.points - counts.stale,
        "stale": counts.stale,
        "rejected": counts.num_rejected,
        "retries": counts.retries,
        "seconds": round(report.elapsed_s, 1),
        "working seconds": round(report.working_s, 1),
        "rows/s": round(counts.rows / report.working_s, 1) if report.working_s else None,
    }
    if as_json:
        tree = {name.replace(" ", "_").replace("/s", "_per_s"): value for name, value in facts.items()}
        print_json(tree | {"rejected_by_reason": dict(counts.rejected), "failed": report.failed})
        return
    print_table("", list(facts), [list(facts.values())])
    if counts.rejected:
        print_table("rejected rows", ["reason", "rows"], sorted(counts.rejected.items()))
    if report.failed:
        print_table("failed", ["fragment", "why"], sorted(report.failed.items()))


def print_status(folder: Path, tasks: "Iterable[Task]", *, as_json: bool) -> None:
    """Prints what the ledger in a folder holds, by task; of fingerprints no task has now, without a name."""
    from pipeline.backfill.ledger import read_progress

    names = {task.fingerprint: task.name for task in tasks}
    rows = [
        {
            "task": names.get(found.fingerprint),
            "fingerprint": found.fingerprint[:10],
            "fragments_done": found.num_done,
            "fragments_begun": found.num_begun,
            "rows": found.num_rows,
            "rejected": found.num_rejected,
            "last": dt.datetime.fromtimestamp(found.noted_s, dt.UTC).isoformat(timespec="seconds"),
        }
        for found in read_progress(folder)
    ]
    if as_json:
        print_json({"ledger": str(folder), "tasks": rows})
    elif rows:
        print_table(
            f"ledger in {folder}", [name.replace("_", " ") for name in rows[0]], [list(row.values()) for row in rows]
        )
    else:
        typer.echo(f"nothing is noted in {folder}")


def _total_rows(works: "Sequence[Work]") -> int:
    """Rows of all fragments; 0 where one of them does not say."""
    counts = [work.fragment.num_rows for work in works]
    if None in counts:
        return 0
    return sum(count for count in counts if count) - sum(work.start for work in works)
