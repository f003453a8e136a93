"""`refract backfill`: files of records, or ranges of a topic, into the tasks' collections; resumable."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.backfill_report import ProgressLine, print_report, print_status
from pipeline.cli.exits import ExitCode
from pipeline.cli.options import AsJson, ConfigFile
from pipeline.cli.output import print_note
from pipeline.cli.progress import progress
from pipeline.config.app import Config
from pipeline.config.store import EdgeStoreConfig, QdrantStoreConfig
from pipeline.errors import ConfigError, EnvironmentFault, nearest

if TYPE_CHECKING:
    from pipeline.backfill.fragments import Fragment
    from pipeline.backfill.ledger import Ledger
    from pipeline.backfill.outcome import Outcome, Report
    from pipeline.backfill.work import Work
    from pipeline.interfaces import Store
    from pipeline.tasks import Task

LOCK_WAIT_S = 15.0
"""A killed run lets go of an embedded store within seconds."""


class Target(StrEnum):
    """Where the vectors go."""

    STORE = "store"
    PARQUET = "parquet"


def backfill(
    config: ConfigFile,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT…",
            help="Parquet, JSONL or CSV: file, folder or glob; or kafka://TOPIC?from=2026-01-01&to=latest",
        ),
    ] = None,
    *,
    tasks: Annotated[str | None, typer.Option("--tasks", help="Some tasks, by comma.", show_default="all")] = None,
    topic: Annotated[
        str | None, typer.Option("--topic", help="Whose rules the rows follow.", show_default="the only one")
    ] = None,
    to: Annotated[Target, typer.Option("--to", help="The tasks' collections, or files of vectors.")] = Target.STORE,
    output: Annotated[Path | None, typer.Option("--output", help="Folder of --to parquet.", show_default=False)] = None,
    share: Annotated[
        bool,
        typer.Option("--share", help="Use the running app's embedders, live records first.", show_default=False),
    ] = False,
    show_status: Annotated[
        bool, typer.Option("--status", help="Show what earlier runs have finished, and do nothing.", show_default=False)
    ] = False,
    address: Annotated[
        str | None, typer.Option("--address", help="Ray cluster to join.", show_default="ray.address, else a new one")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Embed files of records into the store; run again, it continues where it was stopped.

    Versions decide, so it may run before, after and beside live traffic. An embedded store belongs to one process: stop
    the app first, or use --share.
    """
    from pipeline.config.load import ConfigTree
    from pipeline.context import Context

    source = ConfigTree.read(config)
    context = Context(source)
    name = chosen_topic(context.config, topic, inputs or [])
    chosen = [context.tasks[task] for task in chosen_tasks(context.config.source.topics[name].tasks, tasks)]
    if (to is Target.PARQUET) != (output is not None):
        raise ConfigError("--to parquet needs --output FOLDER, and --output needs --to parquet")
    plan = _Plan(context, name, chosen, output, ledger_folder(context.config, output))
    if show_status:
        print_status(plan.folder, context.tasks.values(), as_json=as_json)
        return
    if not inputs:
        raise ConfigError("name at least one INPUT, or --status")
    if share and not (address or context.config.ray.address):
        raise ConfigError("--share needs the running app's cluster: --address HOST:PORT, or auto on a machine of it")
    from pipeline.backfill.work import Job

    job = Job(source, name, [task.name for task in chosen], output, share)
    report = _run(plan, job, inputs, address or context.config.ray.address)
    print_report(report, as_json=as_json)
    if not report.ok:
        raise typer.Exit(ExitCode.FAILED)


@dataclass(frozen=True, slots=True)
class _Plan:
    context: Any
    topic: str
    tasks: Sequence["Task"]
    output: Path | None
    folder: Path

    @property
    def config(self) -> Config:
        config: Config = self.context.config
        return config


def ledger_folder(config: Config, output: Path | None) -> Path:
    """Returns the ledger's place: beside an embedded store, in the folder of vectors, else in var/."""
    if output is not None:
        return output / "_ledger"
    if isinstance(config.store, EdgeStoreConfig):
        return config.store.path.with_name(f"{config.store.path.name}.backfill")
    return Path("var") / f"{config.pipeline}.backfill"


def checked_fragments(config: Config, topic: str, inputs: Sequence[str]) -> "list[Fragment]":
    """Returns the fragments of the inputs; raises ConfigError, before anything is written, for what cannot work."""
    from pipeline.backfill.fragments import list_fragments
    from pipeline.backfill.rows import check_columns, check_topic

    settings = config.source.topics[topic]
    with progress() as step:
        fragments = list_fragments(inputs, config, lambda done: step("listing files", done, 0))
    if any(not fragment.is_kafka for fragment in fragments):
        check_topic(topic, settings)
        check_columns(fragments, settings)
        if settings.version is None:
            print_note(f"Topic {topic!r} has no `version` field: a row loses against every live record of its key.")
    return fragments


def _run(plan: _Plan, job: Any, inputs: Sequence[str], address: str | None) -> "Report":
    from pipeline.backfill.bulk import finish_index
    from pipeline.backfill.ledger import Ledger
    from pipeline.backfill.outcome import Report
    from pipeline.interfaces import DeferrableIndex

    fragments = checked_fragments(plan.config, plan.topic, inputs)
    if plan.output is not None:
        from pipeline.backfill.vectors import check_output

        with progress() as step:
            check_output(plan.output, plan.tasks, step)
    report, began_s = Report(), time.monotonic()
    ledger = Ledger(plan.folder, plan.tasks)
    try:
        works = _pending(ledger, fragments, plan.tasks)
        report.fragments_skipped = len(fragments) - len(works)
        print_note(f"{len(works)} of {len(fragments)} fragments to do; ledger in {plan.folder}")
        if plan.output is None and not job.share:
            with _store(plan) as store:
                if works and isinstance(store, DeferrableIndex):
                    for task in plan.tasks:
                        store.defer_index(task)
        if works:
            _carry(plan, job, works, ledger, report, address)
        if isinstance(plan.config.store, QdrantStoreConfig) and plan.output is None:
            with _store(plan) as store, progress() as step:
                if built := finish_index(store, plan.tasks, step):
                    print_note(f"the vector index of {', '.join(built)}, put off while it was filled, is built")
    finally:
        ledger.close()
    report.elapsed_s = time.monotonic() - began_s
    return report


def _pending(ledger: "Ledger", fragments: "Sequence[Fragment]", tasks: "Sequence[Task]") -> "list[Work]":
    from pipeline.backfill.work import Work

    works, num_changed = [], 0
    for fragment in fragments:
        pending = ledger.pending(fragment, tasks)
        num_changed += pending.changed
        if pending.tasks:
            works.append(Work(fragment, [task.name for task in pending.tasks], pending.start))
    if num_changed:
        print_note(f"{num_changed} fragments changed since they were read; they are read again.")
    return works


def _carry(
    plan: _Plan, job: Any, works: "Sequence[Work]", ledger: "Ledger", report: "Report", address: str | None
) -> None:
    from actors.backfill_run import BackfillRun, needed_resources
    from actors.cluster import cluster

    bound = plan.context.tasks

    def noted(work: "Work", outcome: "Outcome", done: bool) -> None:  # noqa: FBT001 - a callback
        ledger.note(work.fragment, [bound[name] for name in work.tasks], work.start, outcome, done=done)
        if done:
            report.counts.add(outcome.counts)
            report.fragments_done += 1
            line.finished(work)

    def failed(work: "Work", why: str) -> None:
        report.failed[work.fragment.name] = why
        line.finished(work)
        print_note(why if work.fragment.name in why else f"{work.fragment.name}: {why}")

    with ProgressLine(works) as line:
        line.note("joining Ray" if address else "starting Ray")
        with cluster(address, plan.config.ray.namespace, needed_resources(job)):
            line.note("starting the actors and loading the models")
            try:
                BackfillRun(job, noted, failed, line.show).run(works)
            finally:
                report.working_s = line.working_s


@contextmanager
def _store(plan: _Plan) -> "Iterator[Store]":
    """Opens the store from here, with the tasks' collections: what is wrong is told before any actor starts."""
    from pipeline.engine.load import check_tasks
    from pipeline.stores.open import open_store

    for name, model in plan.config.models.items():
        own = {task.name: task.config for task in plan.tasks if task.config.model == name}
        if own:
            check_tasks(name, model, own)
    deadline_s = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            store = open_store(plan.config.store, plan.config.pipeline, plan.config.filterable)
            break
        except EnvironmentFault:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.5)
    try:
        store.open(plan.tasks)
        yield store
    finally:
        store.close()


def chosen_topic(config: Config, name: str | None, inputs: Sequence[str]) -> str:
    """Returns the topic whose rules the inputs follow. Raises ConfigError."""
    from pipeline.backfill.kafka_ranges import SCHEME, topic_of

    named = {topic_of(given) for given in inputs if given.startswith(SCHEME)}
    if name is not None:
        named.add(name)
    if len(named) > 1:
        raise ConfigError(f"one run follows one topic's rules; these are several: {', '.join(sorted(named))}")
    return config.topic_named(named.pop() if named else None)


def chosen_tasks(known: list[str], wanted: str | None) -> list[str]:
    """Returns the tasks of `--tasks`, each once; all without it. Raises ConfigError."""
    chosen = wanted.split(",") if wanted else list(known)
    for name in chosen:
        if name not in known:
            raise ConfigError(f"--tasks: {name!r} is no task of this topic.{nearest(name, known)}")
    return list(dict.fromkeys(chosen))
