"""`refract backfill`: files of records into the tasks' collections, resumable."""

import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.exits import ExitCode
from pipeline.cli.options import ConfigFile
from pipeline.cli.output import print_note
from pipeline.cli.progress import progress
from pipeline.config.app import Config
from pipeline.config.store import EdgeStoreConfig
from pipeline.errors import ConfigError, nearest


def backfill(
    config: ConfigFile,
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT…", help="Parquet, JSONL or CSV: file, folder or glob.")],
    *,
    tasks: Annotated[str | None, typer.Option("--tasks", help="Some tasks, by comma.", show_default="all")] = None,
    topic: Annotated[str | None, typer.Option("--topic", help="Whose rules the rows follow.")] = None,
    address: Annotated[str | None, typer.Option("--address", help="Ray cluster to join.")] = None,
) -> None:
    """Embed files of records into the store; run again, it continues where it was stopped.

    Versions decide, so it may run before or after live traffic; with an embedded store, stop the app first.
    """
    from actors.backfill import Outcome, cluster, run_fragments
    from actors.context import ConfigTree, Context
    from pipeline.backfill.fragments import Fragment, list_fragments
    from pipeline.backfill.ledger import Ledger, write_rejects
    from pipeline.backfill.rows import check_topic

    source = ConfigTree.read(config)
    context = Context(source)
    name = _topic(context.config, topic)
    check_topic(name, settings := context.config.source.topics[name])
    chosen = [context.tasks[task] for task in _tasks(settings.tasks, tasks)]
    if settings.version is None:
        print_note(f"Topic {name!r} has no `version` field: a row loses against every live record of its key.")
    fragments = list_fragments(inputs)
    folder = _folder(context.config)
    ledger = Ledger(folder, chosen)
    try:
        work, num_changed = {}, 0
        for fragment in fragments:
            pending, changed = ledger.pending(fragment, chosen)
            num_changed += changed
            if pending:
                work[fragment] = [task.name for task in pending]
        if num_changed:
            print_note(f"{num_changed} fragments changed since they were finished; they are read again.")
        print_note(f"{len(work)} of {len(fragments)} fragments to do; ledger in {folder}")
        counts, started_s = Counter[str](), time.monotonic()
        with progress() as step:

            def done(fragment: Fragment, outcome: Outcome) -> None:
                if outcome.rejects:
                    write_rejects(folder, fragment, outcome.rejects)
                finished = (context.tasks[task] for task in work[fragment])
                ledger.finish(fragment, finished, outcome.num_rows, len(outcome.rejects))
                rejected, stale = len(outcome.rejects), outcome.num_stale
                counts.update(fragments=1, rows=outcome.num_rows, rejected=rejected, stale=stale)
                step("fragments", counts["fragments"] + counts["failed"], len(work))

            def failed(fragment: Fragment, why: str) -> None:
                counts["failed"] += 1
                print_note(f"{fragment.name}: {why}")

            if work:
                with cluster(address or context.config.ray.address):
                    run_fragments(source, name, work, done, failed)
    finally:
        ledger.close()
    _report(counts, time.monotonic() - started_s)


def _report(counts: Counter[str], elapsed_s: float) -> None:
    """Prints what this run did; exits with 1 if anything of it was rejected or failed."""
    typer.echo(
        f"rows {counts['rows']:,}  stale {counts['stale']:,}  rejected {counts['rejected']:,}  "
        f"fragments failed {counts['failed']:,}  {counts['rows'] / max(elapsed_s, 1e-9):,.0f} rows/s"
    )
    if counts["rejected"] or counts["failed"]:
        raise typer.Exit(ExitCode.FAILED)


def _topic(config: Config, name: str | None) -> str:
    topics = config.source.topics
    if name is None and len(topics) > 1:
        raise ConfigError(f"choose the topic whose rules the rows follow with --topic: {', '.join(topics)}")
    chosen = name or next(iter(topics))
    if chosen not in topics:
        raise ConfigError(f"--topic: {chosen!r} is no source topic of this file.{nearest(chosen, topics)}")
    return chosen


def _tasks(known: list[str], wanted: str | None) -> list[str]:
    chosen = wanted.split(",") if wanted else list(known)
    for name in chosen:
        if name not in known:
            raise ConfigError(f"--tasks: {name!r} is no task of this topic.{nearest(name, known)}")
    return list(dict.fromkeys(chosen))


def _folder(config: Config) -> Path:
    """The ledger's place: beside an embedded store, else in var/."""
    if isinstance(config.store, EdgeStoreConfig):
        return config.store.path.with_name(f"{config.store.path.name}.backfill")
    return Path("var") / f"{config.pipeline}.backfill"
