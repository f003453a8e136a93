"""The beginning of a backfill, into a store that is thrown away: how fast the real path is."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.backfill.costs import Pace
from pipeline.backfill.executor import BackfillExecutor, RunState
from pipeline.backfill.inputs import Fragment
from pipeline.backfill.outcome import Outcome
from pipeline.backfill.work import BackfillJob, Work
from pipeline.config.load import ConfigTree
from pipeline.engine.null import is_null
from pipeline.errors import EnvironmentFault
from pipeline.interfaces import Progress

MEASURED_S = 8.0
LONGEST_S = 90.0
"""From the first rows on; if the pace is not known by then, what there is has to do."""

FEWEST_STEPS = 5
"""Batches come back in steps; fewer of them say too little."""

BATCH_ROWS = 128
"""Rows of a batch meanwhile, where a model computes: a whole batch of a large one takes too long to be seen."""


class _EnoughError(Exception):
    """The pace is known."""


class PaceWatch:
    """Implements `BackfillEvents`: notes when how many rows were through, and ends the run when the pace is known."""

    def __init__(self, num_tasks: int, num_rows: int, step: Progress) -> None:
        self._num_tasks = num_tasks
        self._num_rows = num_rows
        self._step = step
        self._began_s = time.monotonic()
        self.elapsed_s = 0.0
        """From the start to the last that was heard."""
        self.points: list[tuple[float, float, float]] = []
        """(seconds since the start, rows through, seconds embedders computed); one for each change of the rows."""
        self.num_embedders = 0
        self.faults: list[str] = []

    def doing(self, what: str) -> None:
        """See BackfillEvents."""
        self._step(what, 0, 0)

    def noted(self, work: Work, outcome: Outcome, *, done: bool) -> None:
        """See BackfillEvents. What is durable in a store that is thrown away does not matter."""

    def failed(self, work: Work, why: str) -> None:  # noqa: ARG002 - `why` names it
        """See BackfillEvents."""
        self.faults.append(why)

    def progress(self, state: RunState) -> None:
        """See BackfillEvents. Raises _EnoughError when the pace is known."""
        counts, self.elapsed_s = state.counts, time.monotonic() - self._began_s
        rows = counts.num_rejected + (counts.written + counts.deleted) / self._num_tasks
        self.num_embedders = max(self.num_embedders, state.num_embedders)
        self._step("measuring the path, rows through", int(rows), self._num_rows if rows else 0)
        if rows > (self.points[-1][1] if self.points else 0):
            self.points.append((self.elapsed_s, rows, state.busy_s))
        if not self.points:
            return
        measured_s = self.elapsed_s - self.points[0][0]
        known = measured_s >= MEASURED_S and len(self.points) > FEWEST_STEPS
        if known or measured_s >= LONGEST_S:
            raise _EnoughError

    def pace(self, elapsed_s: float, *, finished: bool) -> Pace:
        """Returns what was seen. Raises EnvironmentFault where no row came through."""
        if not self.points:
            raise EnvironmentFault("no row of the input came through while its pace was measured")
        (first_s, first_rows, first_busy_s), (last_s, last_rows, last_busy_s) = self.points[0], self.points[-1]
        if last_s == first_s or (finished and len(self.points) <= FEWEST_STEPS):
            # Everything went through in a moment: how long that took says more than any pace.
            return Pace(elapsed_s, last_rows, last_rows / elapsed_s, last_rows, 0.0, self.num_embedders)
        seconds = last_s - first_s
        return Pace(
            first_s=first_s,
            first_rows=first_rows,
            rows_per_s=(last_rows - first_rows) / seconds,
            num_rows=last_rows,
            embedder_busy=(last_busy_s - first_busy_s) / seconds / max(self.num_embedders, 1),
            num_embedders=self.num_embedders,
        )


def rehearse(
    executor: BackfillExecutor, job: BackfillJob, fragments: Sequence[Fragment], num_rows: int, step: Progress
) -> Pace:
    """Returns the pace of the first rows of the fragments, which come in the order given.

    Everything is as in the run itself except the store: points go into an embedded one in a temporary folder. Takes as
    long as the models take to load, and some seconds more. `num_rows` are those of the input, for `step`.

    Raises EnvironmentFault where nothing came through, and what a backfill raises.
    """
    watch, finished = PaceWatch(len(job.tasks), num_rows, step), True
    with TemporaryDirectory(prefix="refract-plan-") as folder:
        scratch = replace(job, source=_into(job.source, Path(folder) / "store"), output=None, share=False)
        works = [Work(fragment, job.tasks, fragment.begin) for fragment in _from_all_over(fragments)]
        try:
            executor.run(scratch, works, watch)
        except _EnoughError:
            finished = False
    if watch.faults and not watch.points:
        raise EnvironmentFault(watch.faults[0])
    return watch.pace(watch.elapsed_s, finished=finished)


def _into(source: ConfigTree, store: Path) -> ConfigTree:
    """Returns the configuration with an embedded store at that path, and with small batches where a model computes."""
    config = source.load()
    tree = {**source.tree, "store": {"type": "edge", "path": str(store)}}
    if not all(is_null(model) for model in config.models.values()):
        rows = min(config.limits.max_batch_records, BATCH_ROWS)
        tree["limits"] = {**source.tree.get("limits", {}), "max_batch_records": rows}
    return ConfigTree(tree, source.origin)


def _from_all_over(fragments: Sequence[Fragment]) -> list[Fragment]:
    """Returns the fragments with the first ones from all over the input."""
    stride = max(len(fragments) // 16, 1)
    return [fragment for first in range(stride) for fragment in fragments[first::stride]]
