"""Backfill: files of records, or ranges of a topic, into the tasks' collections or into files of vectors; resumable."""

import datetime as dt
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.backfill.bulk import finish_index
from pipeline.backfill.counts import BackfillReport, BackfillStatus, TaskStatus
from pipeline.backfill.executor import BackfillExecutor, RunState
from pipeline.backfill.inputs import Fragment
from pipeline.backfill.ledger import Ledger, read_progress
from pipeline.backfill.losses import find_losses
from pipeline.backfill.outcome import Outcome
from pipeline.backfill.selection import checked_inputs, chosen_tasks, chosen_topic, unresolved_words, warnings
from pipeline.backfill.watch import BackfillWatch, Unwatched
from pipeline.backfill.work import BackfillJob, Work
from pipeline.binding import Task
from pipeline.config.pipeline import Config
from pipeline.config.source import TopicConfig
from pipeline.config.store import EdgeStoreConfig, QdrantStoreConfig
from pipeline.context import Context
from pipeline.engine.entry import check_tasks
from pipeline.errors import EnvironmentFault
from pipeline.interfaces import DeferrableIndex, Store

LOCK_WAIT_S = 15.0
"""A killed run lets go of an embedded store within seconds."""


@dataclass(frozen=True, slots=True)
class BackfillRequest:
    """What is wanted of a backfill."""

    inputs: Sequence[str]
    """Files, folders, globs, or kafka://TOPIC?from=…&to=…"""
    topic: str | None = None
    """None: that of a Kafka range, or the only one."""
    tasks: Sequence[str] | None = None
    """None: all of the topic's."""
    output: Path | None = None
    """Folder of Parquet files; None: the tasks' collections."""
    share: bool = False
    """Whether to use the running app's embedders, which serve live records first."""


def backfill(
    context: Context, request: BackfillRequest, executor: BackfillExecutor, watch: BackfillWatch | None = None
) -> BackfillReport:
    """Embeds the inputs' records; run again, it continues where it was stopped.

    Raises:
        ConfigError: something cannot work; nothing is written.
        EnvironmentFault, TransientError: something other than a fragment failed; what the ledger holds is durable.
    """
    watch = watch or Unwatched()
    job = _job(context, request)
    executor.check(job)
    tasks = [context.tasks[name] for name in job.tasks]
    inputs = checked_inputs(context.config, job.topic, request.inputs, watch.step)
    for text in warnings(context.config, job.topic, inputs):
        watch.note(text)
    fragments = inputs.fragments
    if job.output is not None:
        from pipeline.backfill.vectors import check_output

        check_output(job.output, tasks, watch.step)
    began_s = time.monotonic()
    folder = ledger_folder(context.config, job.output)
    with closing(Ledger(folder, tasks, job.topic)) as ledger:
        run = _Bookkeeper(ledger, watch, BackfillReport())
        works = _works(context, job, run, fragments)
        watch.note(f"{len(works)} of {len(fragments)} fragments to do; ledger in {folder}")
        if works:
            watch.begin(works)
            executor.run(job, works, run)
            run.judge_paths(context.config.source.topics[job.topic])
        if job.output is None and isinstance(context.config.store, QdrantStoreConfig):
            _finish_index(context, tasks, watch)
    run.report.seconds = time.monotonic() - began_s
    return run.report


def backfill_status(context: Context, request: BackfillRequest) -> BackfillStatus:
    """Returns what the ledger of such a run holds, also while it runs. Raises ConfigError, EnvironmentFault."""
    job = _job(context, request)
    names = {task.fingerprint: task.name for task in context.tasks.values()}
    folder = ledger_folder(context.config, job.output)
    tasks = [
        TaskStatus(
            task=names.get(found.fingerprint),
            fingerprint=found.fingerprint[:10],
            fragments_done=found.num_done,
            fragments_begun=found.num_begun,
            rows=found.num_rows,
            rejected=found.num_rejected,
            last=dt.datetime.fromtimestamp(found.noted_s, dt.UTC).isoformat(timespec="seconds"),
        )
        for found in read_progress(folder)
    ]
    return BackfillStatus(folder, tasks)


def ledger_folder(config: Config, output: Path | None) -> Path:
    """Returns the ledger's place: beside an embedded store, in the folder of vectors, else in var/."""
    if output is not None:
        return output / "_ledger"
    if isinstance(config.store, EdgeStoreConfig):
        return config.store.path.with_name(f"{config.store.path.name}.backfill")
    return Path("var") / f"{config.pipeline}.backfill"


class _Bookkeeper:
    """Implements `BackfillEvents`: what is durable in the store is noted in the ledger, then counted, then shown."""

    def __init__(self, ledger: Ledger, watch: BackfillWatch, report: BackfillReport) -> None:
        self.report = report
        self._ledger = ledger
        self._watch = watch
        self._withdrawn: set[str] = set()
        self._began_s: float | None = None
        self._resolved = Counter[str]()

    def left(self, fragments: Sequence[Fragment]) -> list[Work]:
        """Returns what is to be done of the fragments, and counts the others."""
        lefts = [self._ledger.left_of(fragment) for fragment in fragments]
        works = [work for work in lefts if work.tasks]
        if num_changed := sum(work.changed for work in lefts):
            self._watch.note(f"{num_changed} fragments changed since they were read; they are read again.")
        self.report.fragments_skipped = len({work.name for work in lefts if not work.tasks} - self._withdrawn)
        return works

    def notice_losses(self, fragments: Sequence[Fragment], tasks: Mapping[str, Task], store: Store) -> None:
        """Forgets what was finished and is not in the store any more, so that it is done again."""
        losses = find_losses(self._ledger.noted_points(fragments), tasks, store)
        if losses.gone:
            self._ledger.forget(losses.gone)
            number = len({point.fragment for point in losses.gone})
            names = ", ".join(sorted({point.task for point in losses.gone}))
            self._watch.note(f"{number} fragments that were read have lost their points of {names}; read again.")
        for point in losses.withdrawn:
            self._withdrawn.add(point.fragment)
            uri = point.fragment.rpartition("#")[0]
            self.report.failed[point.fragment] = (
                f"its points of task {point.task!r} were deleted as extras, under versions that a backfill does not "
                f"beat: `refract repair CONFIG --input {uri}` brings them back"
            )
            self._watch.note(f"{point.fragment}: {self.report.failed[point.fragment]}")

    def doing(self, what: str) -> None:
        self._watch.doing(what)

    def noted(self, work: Work, outcome: Outcome, *, done: bool) -> None:
        self._ledger.note(work, outcome, done=done)
        if done:
            self.report.add(outcome.counts)
            self._resolved += outcome.counts.resolved
            self._watch.over(work)

    def judge_paths(self, topic: TopicConfig) -> None:
        """Warns of paths that no row of this run had."""
        num_rows = self.report.rows - self.report.rejected
        self.report.unresolved_paths = [path for path in topic.watched_paths if not self._resolved[path]]
        if num_rows and self.report.unresolved_paths:
            self._watch.note(unresolved_words(self.report.unresolved_paths, num_rows))

    def failed(self, work: Work, why: str) -> None:
        self.report.failed[work.name] = why
        self._watch.over(work)
        self._watch.note(why if work.name in why else f"{work.name}: {why}")

    def progress(self, state: RunState) -> None:
        now = time.monotonic()
        if self._began_s is None and state.counts.rows:
            self._began_s = now
        self.report.working_seconds = 0.0 if self._began_s is None else now - self._began_s
        self._watch.show(state)


def _job(context: Context, request: BackfillRequest) -> BackfillJob:
    topic = chosen_topic(context.config, request.topic, request.inputs)
    tasks = chosen_tasks(context.config, topic, request.tasks)
    return BackfillJob(context.source, topic, tasks, request.output, request.share)


def _works(context: Context, job: BackfillJob, run: "_Bookkeeper", fragments: Sequence[Fragment]) -> list[Work]:
    """Returns what is to be done. The tasks' collections are opened: what is wrong is told before anything starts.

    Where points are to come, the index of an empty collection is put off, as far as the store can do that.
    """
    if job.output is not None or (job.share and isinstance(context.config.store, EdgeStoreConfig)):
        return run.left(fragments)  # there is no store, or it is in other hands
    tasks = {name: context.tasks[name] for name in job.tasks}
    if not job.share:
        for name, model in context.config.models.items():
            own = {task.name: task.config for task in tasks.values() if task.config.model == name}
            if own:
                check_tasks(name, model, own)
    with _opened_store(context, list(tasks.values())) as store:
        run.notice_losses(fragments, tasks, store)
        works = run.left(fragments)
        if works and not job.share and isinstance(store, DeferrableIndex):
            for task in tasks.values():
                store.defer_index(task)
    return works


def _finish_index(context: Context, tasks: Sequence[Task], watch: BackfillWatch) -> None:
    with _opened_store(context, tasks) as store:
        if built := finish_index(store, tasks, watch.step):
            watch.note(f"the vector index of {', '.join(built)}, put off while it was filled, is built")


@contextmanager
def _opened_store(context: Context, tasks: Sequence[Task]) -> Iterator[Store]:
    """The store with the tasks' collections. Waits a while for the lock of an embedded one."""
    deadline_s = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            store = context.open_store()
            break
        except EnvironmentFault:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.5)
    with closing(store):
        store.open(tasks)
        yield store
