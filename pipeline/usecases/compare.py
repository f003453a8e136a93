"""Source against store: `verify` finds what differs, `repair` also writes it."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from pipeline.compare.accounting import Accounts, account, write_missing
from pipeline.compare.comparison import Comparison, note_source
from pipeline.compare.extras import Approve, approved
from pipeline.compare.findings import SourceFindings, TaskFindings
from pipeline.compare.mending import mend
from pipeline.compare.patience import ComparedStore, PatientRange, PatientStore, patient
from pipeline.compare.report import RepairReport, VerifyReport
from pipeline.compare.revisit import Revisit
from pipeline.compare.source_keys import SourceKeys
from pipeline.compare.vector_check import check_vectors
from pipeline.compare.waiting import Waiting
from pipeline.config.pipeline import Config
from pipeline.context import Context
from pipeline.errors import ConfigError
from pipeline.interfaces import Progress, RecordRange, Store
from pipeline.records.decode import Decoders
from pipeline.records.record import PointIds


@dataclass(frozen=True, slots=True)
class CompareRequest:
    """What to compare the store with, and how closely."""

    file: str | Path | None = None
    """A file that `refract backfill` reads, a folder or glob of them; None compares with the source topics."""
    topic: str | None = None
    """The topic that the file stands for; None for the only one."""
    key: str | None = None
    """Column or field of the file's key; None for the topic's `key`."""
    row_number: str | None = None
    """Name under which each row of the file gets its number."""
    sample: int | None = 100
    """Vectors per task to compute again and compare; None for all."""
    wait_s: float = 30.0
    """How long to wait, for all tasks together, for records that the running pipeline has not finished. Nothing is
    waited for where none is running."""
    examples: int = 20
    """Points of each kind, and lost records, that the report names."""


def verify(context: Context, request: CompareRequest, progress: Progress) -> VerifyReport:
    """Compares the store with the source, key by key, and writes nothing.

    With a Qdrant server the pipeline may run meanwhile; an embedded store must not be in use.

    Raises:
        ConfigError: the request does not fit the configuration, or the running app holds the store.
        TransientError, EnvironmentFault: see `pipeline.errors`.
    """
    with _compared(context, request, progress) as compared:
        return compared.report(request.examples)


@dataclass(frozen=True, slots=True)
class DeleteExtras:
    """That extra points are to be deleted, and how carefully."""

    approve: Approve = lambda _extras: True
    """Is asked once, with the figures of every task that has extras; False keeps them."""
    force: bool = False
    """Whether even more than a tenth of a collection may go."""


def repair(
    context: Context, request: CompareRequest, progress: Progress, extras: DeleteExtras | None = None
) -> RepairReport:
    """Compares as `verify` does, writes what differs, and writes the dead letters that are missing.

    Nothing newer is overwritten, so beside a Qdrant server the pipeline may run meanwhile. Wrong vectors are found
    among the sample only. Without `extras` no point is deleted.

    Raises ConfigError where more than a tenth of a collection is extra, unless `extras.force`; else like `verify`.
    """
    with _compared(context, request, progress) as compared:
        delete_extras = extras is not None and approved(compared.tasks, extras.approve, force=extras.force)
        repaired = mend(compared.tasks, compared.revisit, compared.store, delete_extras=delete_extras)
        letters_written = _write_letters(context, compared, progress)
    return RepairReport(compared.report(request.examples), repaired, letters_written)


@dataclass(frozen=True, slots=True)
class _Compared:
    """Both sides after the comparison, and what was found."""

    source: RecordRange
    topics: Sequence[str]
    store: ComparedStore
    revisit: Revisit
    read: SourceFindings
    tasks: Sequence[TaskFindings]
    accounts: Accounts
    waiting: Waiting

    def report(self, examples: int) -> VerifyReport:
        lost = (
            f"{place.topic}:{place.number}:{offset}"
            for place, offsets in self.accounts.missing.items()
            for offset in offsets.tolist()
        )
        tasks = {found.task.name: found.report(examples, self.topics) for found in self.tasks}
        has_pending = self.accounts.num_pending or any(task.pending for task in tasks.values())
        return VerifyReport(
            equal=self.accounts.complete and all(found.equal for found in self.tasks),
            records=self.read.num_records,
            dead_letters=dict(self.read.dead_letters),
            dead_letters_missing=self.accounts.num_missing,
            dead_letters_pending=self.accounts.num_pending,
            dead_letters_unknown=self.accounts.num_unknown,
            running=self.waiting.is_running if has_pending else None,
            missing_letters=list(islice(lost, examples)),
            tasks=tasks,
        )


@contextmanager
def _compared(context: Context, request: CompareRequest, progress: Progress) -> Iterator[_Compared]:
    """Compares every task of the source's topics; the store stays open inside."""
    config = context.config
    retry = patient(progress)
    opened, topics = _open_source(context, request)
    source = PatientRange(opened, retry)
    readers = {name: [topic for topic in topics if name in config.source.topics[topic].tasks] for name in config.tasks}
    tasks = [(context.tasks[name], read) for name, read in readers.items() if read]
    with tempfile.TemporaryDirectory(prefix="refract-verify-") as folder, _open_store(context) as opened_store:
        store = PatientStore(opened_store, retry)
        keys = SourceKeys(Path(folder), PointIds(config.pipeline, config.source.key_spaces), topics)
        read = note_source(source, keys, progress)
        waiting = Waiting(request.wait_s, partial(retry, "brokers", partial(_is_running, config)), progress)
        comparison = Comparison(keys, source, store, waiting, progress)
        findings = [comparison.compare(task, names, request.sample) for task, names in tasks]
        revisit = Revisit(source, keys, context, progress)
        check_vectors(findings, revisit, store)
        accounts = account(source, read.undecodable, waiting)
        yield _Compared(source, topics, store, revisit, read, findings, accounts, waiting)


def _is_running(config: Config) -> bool:
    """Whether a pipeline may finish records meanwhile: none does beside an embedded store, which is open here."""
    if config.store.type == "edge":
        return False
    from pipeline.sources.group.rewinding import members_of  # Kafka

    return members_of(config.source) > 0


def _open_source(context: Context, request: CompareRequest) -> tuple[RecordRange, list[str]]:
    """Returns the source to compare with, and the topics whose records it has."""
    config = context.config
    if request.file is not None:
        from pipeline.compare.file_range import open_file  # pyarrow

        rows = open_file(str(request.file), config, request.topic, request.key, request.row_number)
        return rows, [rows.topic]
    if request.topic or request.key or request.row_number:
        raise ConfigError("--topic, --key and --row-number say how to read --input; they need --input")
    from pipeline.sources.ranges import TopicRange  # Kafka

    return TopicRange(config.source, Decoders(config.source, config.limits)), list(config.source.topics)


@contextmanager
def _open_store(context: Context) -> Iterator[Store]:
    """Opens the store, unless it is embedded and the running app holds its directory."""
    from pipeline.usecases.client import app_answers  # an HTTP client, for an embedded store only

    if context.config.store.type == "edge" and app_answers(context.config):
        raise ConfigError(
            "store.type edge: the running app holds the store's directory; stop it first. A store of type qdrant can "
            "be compared while the app runs"
        )
    with closing(context.open_store()) as store:
        yield store


def _write_letters(context: Context, compared: _Compared, progress: Progress) -> int:
    if not compared.accounts.num_missing:
        return 0
    from pipeline.sources.letters.dead_letters import KafkaDeadLetters  # Kafka

    with closing(KafkaDeadLetters(context.config.source, context.config.pipeline)) as letters:
        return write_missing(compared.source, compared.accounts, letters, patient(progress), progress)
