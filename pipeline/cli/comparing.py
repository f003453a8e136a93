"""What `verify` and `repair` share: the source, the store wherever it is held, and the comparison itself."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.output import print_note, print_table
from pipeline.compare.accounting import Accounts, account
from pipeline.compare.comparison import Comparison, Kind, SourceReport, TaskReport, note_source
from pipeline.compare.keyspace import KeySpace
from pipeline.compare.revisit import Encoder, Revisit
from pipeline.config.app import Config
from pipeline.errors import ConfigError, RefractError, TransientError
from pipeline.interfaces import Embedder, Progress, RecordRange, Store
from pipeline.tasks import Task

InputFile = Annotated[
    Path | None,
    typer.Option("--input", help="Compare with this CSV, JSON Lines or Parquet file.", show_default="the topics"),
]
Topic = Annotated[
    str | None, typer.Option("--topic", help="The topic --input stands for, if there are several.", show_default=False)
]
KeyField = Annotated[
    str | None, typer.Option("--key", help="Column or field of --input's key.", show_default="the topic's `key`")
]
RowNumber = Annotated[str | None, typer.Option("--row-number", help="As for `refract produce`.", show_default=False)]
Sample = Annotated[
    str, typer.Option("--sample", metavar="N|all", help="Vectors per task to compute again and compare.")
]
Wait = Annotated[
    float, typer.Option("--wait", min=0, help="Seconds to wait for records the pipeline has not finished.")
]


@dataclass(frozen=True, slots=True)
class Compared:
    """The outcome, and what is needed to mend it."""

    source: SourceReport
    tasks: Sequence[TaskReport]
    topics: Sequence[str]
    accounts: Accounts
    revisit: Revisit

    @property
    def equal(self) -> bool:
        """Whether every task's collection holds what the source says, and the dead-letter topic the rest."""
        return self.accounts.complete and all(report.equal for report in self.tasks)


@contextmanager
def compared(
    config: Config,
    source: RecordRange,
    topics: Sequence[str],
    *,
    sample: str,
    wait_s: float,
    progress: Progress,
) -> Iterator[Compared]:
    """Yields the comparison of every task of the topics, with the store still open."""
    size = _sample_size(sample)
    tasks = bound_tasks(config)
    used: dict[str, list[str]] = {}
    for topic in topics:
        for name in config.source.topics[topic].tasks:
            used.setdefault(name, []).append(topic)
    with tempfile.TemporaryDirectory(prefix="refract-verify-") as directory, _backends(config) as backends:
        store, embedder = backends
        keys = KeySpace(Path(directory), topics)
        found = note_source(config.pipeline, source, keys, progress)
        comparison = Comparison(keys, source, store, wait_s=wait_s, progress=progress)
        reports = [comparison.compare(tasks[name], where, size) for name, where in used.items()]
        encoder = Encoder(config.pipeline, _tokenizers(config, {tasks[name].config.model for name in used}), embedder)
        revisit = Revisit(source, keys, encoder, store, progress)
        revisit.check_vectors(reports)
        accounts = account(source, found.undecodable, wait_s=wait_s, progress=progress)
        yield Compared(found, reports, keys.topics, accounts, revisit)


def open_range(
    config: Config, file: Path | None, topic: str | None, key: str | None, row_number: str | None
) -> tuple[RecordRange, list[str]]:
    """Returns the source to compare with, and the topics whose records it has. Raises ConfigError."""
    if file is None:
        if topic or key or row_number:
            raise ConfigError("--topic, --key and --row-number say how to read --input; without it they mean nothing")
        from pipeline.records.decode import Decoders
        from pipeline.sources.ranges import TopicRange

        return TopicRange(config.source, Decoders(config.source, config.limits)), list(config.source.topics)
    from pipeline.compare.file_range import open_file

    found = open_file(file, config, topic, key, row_number)
    return found, [found.topic]


def bound_tasks(config: Config) -> Mapping[str, Task]:
    """Returns all tasks by name."""
    from pipeline.engine.load import identify
    from pipeline.tasks import bind_tasks

    return bind_tasks(config, {name: identify(model) for name, model in config.models.items()})


def print_reports(outcome: Compared) -> None:
    """Prints a table of tasks, and one of dead letters."""
    kinds = [kind.name.lower() for kind in Kind]
    rows = [
        (
            report.task.name,
            report.num_keys,
            *(report.counts[kind] for kind in kinds),
            report.num_tombstones,
            report.num_newer,
            report.num_checked,
        )
        for report in outcome.tasks
    ]
    columns = ["task", "keys", *(kind.replace("_", " ") for kind in kinds), "tombstones", "newer", "vectors checked"]
    print_table("", columns, rows)
    for report in outcome.tasks:
        if report.fingerprint_fault:
            print_note(f"{report.task.name}: {report.fingerprint_fault}")
    letters = outcome.source.dead_letters
    if letters:
        print_table("dead letters", ["reason", "records"], sorted(letters.items()))
    print_note(f"{outcome.source.num_records:,} records read, {sum(letters.values()):,} of them dead letters")
    accounts = outcome.accounts
    if accounts.num_missing:
        print_note(f"{accounts.num_missing:,} of them are in no dead letter: they are lost")
    if accounts.num_pending:
        print_note(f"{accounts.num_pending:,} of them the pipeline has not dead-lettered yet")
    if accounts.num_unknown:
        print_note(f"{accounts.num_unknown:,} of them are older than what the dead-letter topic has kept")


def as_tree(outcome: Compared, limit: int) -> dict[str, Any]:
    """Returns the comparison for `--json`."""
    return {
        "equal": outcome.equal,
        "records": outcome.source.num_records,
        "dead_letters": dict(outcome.source.dead_letters),
        "dead_letters_missing": outcome.accounts.num_missing,
        "dead_letters_pending": outcome.accounts.num_pending,
        "dead_letters_unknown": outcome.accounts.num_unknown,
        "missing_letters": _named(outcome.accounts, limit),
        "tasks": {
            report.task.name: {
                "collection": report.task.collection,
                "keys": report.num_keys,
                **report.counts,
                "wrong_fingerprint": report.fingerprint_fault or None,
                "tombstones": report.num_tombstones,
                "newer": report.num_newer,
                "vectors_checked": report.num_checked,
                "examples": report.examples(limit, outcome.topics),
            }
            for report in outcome.tasks
        },
    }


def _named(accounts: Accounts, limit: int) -> list[str]:
    """Returns the places of the first missing letters."""
    places = (
        f"{place.topic}:{place.number}:{offset}"
        for place, offsets in accounts.missing.items()
        for offset in offsets.tolist()
    )
    return list(islice(places, limit))


@contextmanager
def _backends(config: Config) -> Iterator[tuple[Store, Embedder]]:
    """Yields store and embedder. Raises ConfigError where a running app holds the embedded store's directory."""
    if config.store.type == "edge" and _app_answers(config):
        raise ConfigError(
            "store.type edge: the running app holds the store's directory; stop it first. A store of type qdrant can "
            "be compared while the app runs"
        )
    from pipeline.engine.local import LocalEmbedder
    from pipeline.stores.open import open_store

    store = open_store(config.store, config.pipeline, config.filterable)
    try:
        yield store, LocalEmbedder(config)
    finally:
        store.close()


def _app_answers(config: Config) -> bool:
    """Whether something of this configuration runs: it then holds the store's directory."""
    from pipeline.usecases.client import AppClient

    try:
        with AppClient(config) as app:
            app.get("/v1/status")
    except TransientError:
        return False
    except RefractError:
        return True
    return True


def _tokenizers(config: Config, models: set[str]) -> dict[str, Any]:
    from pipeline.engine.load import load_tokenizer

    return {model: load_tokenizer(config.models[model], config.tasks_of(model)) for model in models}


def _sample_size(sample: str) -> int | None:
    if sample == "all":
        return None
    if not sample.isascii() or not sample.isdigit():
        raise ConfigError(f"--sample: {sample!r} is neither a number of vectors nor `all`")
    return int(sample)
