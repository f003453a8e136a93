"""The beginning of a backfill, into a store that is thrown away: how fast the real path is on this cluster."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from actors.backfill_run import BackfillRun, Progress, needed_resources
from actors.cluster import cluster
from pipeline.backfill.estimate import Pace
from pipeline.backfill.fragments import Fragment
from pipeline.backfill.work import Job, Work
from pipeline.config.load import ConfigTree
from pipeline.engine.null import is_null
from pipeline.errors import EnvironmentFault

MEASURED_S = 8.0
LONGEST_S = 90.0
"""From the first rows on; a pace that is not known by then is told from what there is."""

FEWEST_STEPS = 5
"""Batches come back in steps; fewer of them say too little."""

BATCH_ROWS = 128
"""Rows of one call meanwhile, where a model computes: a whole batch of a large one takes too long to be seen."""


class _EnoughError(Exception):
    """The pace is known."""


class _Watch:
    """Notes when how many rows were through."""

    def __init__(self, num_tasks: int, began_s: float, step: Callable[[str, int], None]) -> None:
        self._num_tasks = num_tasks
        self._began_s = began_s
        self._step = step
        self.points: list[tuple[float, float, float]] = []
        """(seconds since the start, rows through, seconds embedders computed); one for each change of the rows."""
        self.num_embedders = 0

    def __call__(self, progress: Progress) -> None:
        counts, elapsed_s = progress.counts, time.monotonic() - self._began_s
        rows = counts.num_rejected + (counts.written + counts.deleted) / self._num_tasks
        self.num_embedders = max(self.num_embedders, progress.num_embedders)
        self._step("measuring the path, rows through", int(rows))
        if rows > (self.points[-1][1] if self.points else 0):
            self.points.append((elapsed_s, rows, progress.busy_s))
        if not self.points:
            return
        measured_s = elapsed_s - self.points[0][0]
        known = measured_s >= MEASURED_S and len(self.points) > FEWEST_STEPS
        if known or measured_s >= LONGEST_S:
            raise _EnoughError

    def pace(self, elapsed_s: float, *, finished: bool) -> Pace:
        """Returns what was seen. Raises EnvironmentFault where no row came through."""
        if not self.points:
            raise EnvironmentFault("no row of the input came through while its pace was measured")
        (first_s, first_rows, first_busy_s), (last_s, last_rows, last_busy_s) = self.points[0], self.points[-1]
        if last_s == first_s or (finished and len(self.points) <= FEWEST_STEPS):
            # All there was went through in a moment: how long that took says more than any pace.
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
    source: ConfigTree,
    topic: str,
    tasks: Sequence[str],
    fragments: Sequence[Fragment],
    address: str | None,
    step: Callable[[str, int], None],
) -> Pace:
    """Returns the pace of the first rows of the fragments, which come in the order given.

    Everything is as in the run itself, actors and cluster, but for the store: points go into an embedded
    one in a temporary folder. Takes as long as the models take to load, and some seconds more.

    Raises EnvironmentFault where nothing came through, and what a backfill raises.
    """
    began_s = time.monotonic()
    config = source.load()
    with TemporaryDirectory(prefix="refract-plan-") as folder:
        tree = {**source.tree, "store": {"type": "edge", "path": str(Path(folder) / "store")}}
        if not all(is_null(model) for model in config.models.values()):
            rows = min(config.limits.max_batch_records, BATCH_ROWS)
            tree["limits"] = {**source.tree.get("limits", {}), "max_batch_records": rows}
        job = Job(ConfigTree(tree, source.origin), topic, list(tasks), None, share=False)
        watch, finished = _Watch(len(tasks), began_s, step), True
        faults: list[str] = []
        step("starting Ray and loading the models", 0)
        with cluster(address, config.ray.namespace, needed_resources(job)):
            run = BackfillRun(job, lambda *_: None, lambda _, why: faults.append(why), watch)
            try:
                run.run([Work(fragment, job.tasks, fragment.begin) for fragment in fragments])
            except _EnoughError:
                finished = False
            elapsed_s = time.monotonic() - began_s
        if faults and not watch.points:
            raise EnvironmentFault(faults[0])
        return watch.pace(elapsed_s, finished=finished)
