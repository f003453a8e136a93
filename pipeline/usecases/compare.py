"""Source against store: `verify` finds what differs, `repair` also writes it."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from pipeline.compare.accounting import Accounts, account, write_missing
from pipeline.compare.comparison import Comparison, note_source
from pipeline.compare.extras import Approve, approved
from pipeline.compare.findings import SourceFindings, TaskFindings
from pipeline.compare.joined import JoinedRange
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
from pipeline.records.record import PointIds
from pipeline.usecases.compared_sources import CompareRequest, Sources, sources_of


def verify(context: Context, request: CompareRequest, progress: Progress) -> VerifyReport:
    """Compares the store with its sources, key by key, and writes nothing.

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
    """Whether they may go although a source was not compared that may hold their records, or although they are more
    than a tenth of a collection."""


def repair(
    context: Context, request: CompareRequest, progress: Progress, extras: DeleteExtras | None = None
) -> RepairReport:
    """Compares as `verify` does, writes what differs, and writes the dead letters that are missing.

    Nothing newer is overwritten, so beside a Qdrant server the pipeline may run meanwhile. Wrong vectors are found
    among the sample only. Without `extras` no point is deleted.

    Raises ConfigError where extras are not proven to be such, or are more than a tenth of a collection, unless
    `extras.force`; else like `verify`.
    """
    with _compared(context, request, progress) as compared:
        not_compared = {found.task.name: list(compared.sources.not_compared(found)) for found in compared.tasks}
        delete_extras = extras is not None and approved(
            compared.tasks, not_compared, extras.approve, force=extras.force
        )
        repaired = mend(compared.tasks, compared.revisit, compared.store, delete_extras=delete_extras)
        letters_written = _write_letters(context, compared, progress)
    return RepairReport(compared.report(request.examples), repaired, letters_written)


@dataclass(frozen=True, slots=True)
class _Compared:
    """Both sides after the comparison, and what was found."""

    sources: Sources
    joined: JoinedRange
    source: RecordRange
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
        tasks = {
            found.task.name: found.report(examples, self._place, self.sources.not_compared(found))
            for found in self.tasks
        }
        has_pending = self.accounts.num_pending or any(task.pending for task in tasks.values())
        return VerifyReport(
            equal=self.accounts.complete and all(found.equal for found in self.tasks),
            sources=list(self.sources.names),
            unread=dict(self.sources.unread),
            records=self.read.num_records,
            dead_letters=dict(self.read.dead_letters),
            dead_letters_missing=self.accounts.num_missing,
            dead_letters_pending=self.accounts.num_pending,
            dead_letters_unknown=self.accounts.num_unknown,
            running=self.waiting.is_running if has_pending else None,
            missing_letters=list(islice(lost, examples)),
            tasks=tasks,
        )

    def _place(self, entry: np.void) -> str:
        topic = self.revisit.topics[entry["topic"]]
        return self.joined.place(topic, int(entry["partition"]), int(entry["offset"]))


@contextmanager
def _compared(context: Context, request: CompareRequest, progress: Progress) -> Iterator[_Compared]:
    """Compares every task that the sources are for; the store stays open inside."""
    config = context.config
    retry = patient(progress)
    sources = sources_of(context, request)
    joined = sources.open()
    source = PatientRange(joined, retry)
    with tempfile.TemporaryDirectory(prefix="refract-verify-") as folder, _open_store(context) as opened_store:
        store = PatientStore(opened_store, retry)
        ids = PointIds(config.pipeline, config.source.key_spaces)
        keys = SourceKeys(Path(folder), ids, list(config.source.topics))
        read = note_source(source, keys, progress)
        waiting = Waiting(request.wait_s, partial(retry, "brokers", partial(_is_running, config)), progress)
        comparison = Comparison(keys, source, store, waiting, progress)
        findings = [
            comparison.compare(context.tasks[name], reading, request.sample)
            for name, reading in sources.readings(joined)
        ]
        revisit = Revisit(source, keys, context, progress)
        check_vectors(findings, revisit, store)
        accounts = account(source, read.undecodable, waiting)
        yield _Compared(sources, joined, source, store, revisit, read, findings, accounts, waiting)


def _is_running(config: Config) -> bool:
    """Whether a pipeline may finish records meanwhile: none does beside an embedded store, which is open here."""
    if config.store.type == "edge":
        return False
    from pipeline.sources.group.rewinding import members_of  # Kafka

    return members_of(config.source) > 0


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
