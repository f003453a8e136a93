"""Purge: removes old tombstones for good, once no older record can come and bring back what they keep deleted."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from pipeline.binding import Task
from pipeline.compare.patience import patient
from pipeline.config.pipeline import Config
from pipeline.context import Context
from pipeline.errors import ConfigError
from pipeline.interfaces import CollectionState, PointWriter, Progress, Purgeable, Repairable, StoredPoint
from pipeline.live.retry import Retrier
from pipeline.records.batches import PointBatch
from pipeline.stores.points import DELETED_AT_FIELD
from pipeline.usecases.fills import fills_under_way

PAGE_POINTS = 1_000
"""Tombstones of one step: below the sizes at which stores slow down."""

_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class PurgeRequest:
    """Which tombstones may leave."""

    older_than_ms: int
    """Age in milliseconds. Choose more than the longest outage: so late may a record come that a tombstone refuses."""
    execute: bool = False
    """Whether to remove them; otherwise they are only counted."""
    force: bool = False
    """Whether to do it although a backfill is begun and not finished."""


@dataclass(slots=True)
class PurgedTask:
    """The tombstones of one task's collection."""

    collection: str
    tombstones: int = 0
    """All of them, before the purge."""
    due: int = 0
    """Those that are old enough, and nothing names them: they leave."""
    witnesses: int = 0
    """Old enough, but named by a committed offset or by the backfill's ledger as a point that is stored: they stay."""
    undated: int = 0
    """Those of earlier versions, without a time. A purge that is executed gives them the time it meets them, so that
    they leave with a later one."""
    purged: int = 0
    """Removed now. Fewer than `due` where a newer record came meanwhile."""


@dataclass(frozen=True, slots=True)
class PurgeReport:
    """What a purge did, or would do."""

    tasks: Mapping[str, PurgedTask]
    """By the task's name."""
    delete_retention_ms: Mapping[str, int]
    """By source topic; no purge goes below."""
    fills: Sequence[str]
    """What must be finished first; empty after a purge that was not forced."""
    executed: bool

    @property
    def due(self) -> int:
        """Tombstones that leave."""
        return sum(task.due for task in self.tasks.values())


class PurgedStore(PointWriter, Repairable, Purgeable, Protocol):
    """What a purge asks of a store, in this process or in the running app."""

    def inspect(self, tasks: Sequence[Task]) -> Mapping[str, CollectionState]:
        """See `Inspectable.inspect`."""


AppStore = Callable[[Config], AbstractContextManager[PurgedStore]]
"""Opens the embedded store of the running app."""


def purge(
    context: Context, request: PurgeRequest, progress: Progress, app_store: AppStore | None = None
) -> PurgeReport:
    """Counts the tombstones of every task's collection and, if told so, removes those that are old enough.

    What is revived or deleted again meanwhile stays, so the pipeline may run. Absences of store and brokers of up to
    five minutes are waited for.

    Args:
        context: The pipeline.
        request: How old they must be, and whether to do it.
        progress: Called with what is being done, how much of it is done, and how much there is (0: not known).
        app_store: For an embedded store that the running app holds; None refuses it then.

    Raises:
        ConfigError: the age is below a topic's `delete.retention.ms`, a backfill is not finished, or the running app
            holds the store.
        TransientError: the brokers do not say which points committed offsets stand on, or the store is away.
        EnvironmentFault: a backfill or another purge is at work, or a broker or the store refuses.
    """
    from pipeline.sources.client.admin import delete_retention_ms  # Kafka

    tasks = list(context.tasks.values())
    retention_ms = delete_retention_ms(context.config.source)
    _check_age(request.older_than_ms, retention_ms)
    with _leases(context, tasks, execute=request.execute):
        fills = fills_under_way(context, tasks)
        if fills and request.execute and not request.force:
            raise ConfigError(
                f"{fills[0]}. A purge would let its older rows bring back what was deleted; nothing was removed. Say "
                "--force where it will never go on"
            )
        with _opened_store(context, app_store) as store:
            purging = _Purging(store, _witnesses(context), request, progress)
            found = {task.name: purging.of(task) for task in tasks}
    return PurgeReport(found, retention_ms, fills, request.execute)


class _Purging:
    """One purge of a store. One thread."""

    def __init__(
        self, store: PurgedStore, witnesses: Callable[[], frozenset[bytes]], request: PurgeRequest, progress: Progress
    ) -> None:
        self._store = store
        self._retry: Retrier = patient(progress)
        self._read_witnesses = partial(self._retry, "brokers", witnesses)
        self._witnesses = self._read_witnesses()
        self._execute = request.execute
        self._oldest_kept_ms = round(time.time() * 1000) - request.older_than_ms
        self._progress = progress

    def of(self, task: Task) -> PurgedTask:
        """Returns what there is of a task's tombstones, and what was done with them."""
        found = PurgedTask(task.collection)
        if not self._call(self._store.inspect, [task])[task.name].exists:
            return found
        page: list[StoredPoint] = []
        while page := self._call(self._store.tombstones, task.collection, page[-1].id if page else None, PAGE_POINTS):
            dated = [(point, point.deleted_ms) for point in page if point.deleted_ms is not None and point.version >= 0]
            old = [point for point, deleted_ms in dated if deleted_ms < self._oldest_kept_ms]
            due = [point for point in old if point.id not in self._witnesses]
            found.tombstones += len(page)
            found.undated += len(page) - len(dated)
            found.witnesses += len(old) - len(due)
            found.due += len(due)
            if self._execute:
                found.purged += self._remove(task, due)
                self._date(task, [point for point in page if point.deleted_ms is None and point.version >= 0])
            self._progress(f"{'purging' if self._execute else 'counting'} {task.name}", found.tombstones, 0)
        if self._execute:
            self._call(self._store.flush)
        return found

    def _remove(self, task: Task, due: Sequence[StoredPoint]) -> int:
        """Removes tombstones, except those that became witnesses meanwhile; returns how many are gone.

        A record that is proven older is a witness, too, and what the store holds of its key may be an old tombstone.
        So the group may have committed one between the last look and the removal: it is put back, for ingestors
        refuse to read on from an offset whose witness is gone.
        """
        if not due:
            return 0
        purged = self._call(self._store.purge_tombstones, task.collection, {point.id: point.version for point in due})
        self._witnesses = self._read_witnesses()
        again = [point for point in due if point.id in self._witnesses]
        if again:
            self._call(self._store.upsert, _tombstones(task, again))
        return int(purged) - len(again)

    def _date(self, task: Task, undated: Sequence[StoredPoint]) -> None:
        """Writes tombstones again, so that they get a time. It is later than their own, which is never unsafe."""
        if undated:
            self._call(self._store.repair, _tombstones(task, undated))

    def _call(self, method: Callable[..., Any], *args: Any) -> Any:
        return self._retry("store", partial(method, *args))


def _tombstones(task: Task, points: Sequence[StoredPoint]) -> PointBatch:
    """Returns tombstones as they were; those without a time get one when they are written."""
    return PointBatch(
        np.frombuffer(b"".join(point.id for point in points), np.uint8).reshape(-1, 16),
        np.array([point.version for point in points], np.int64),
        np.ones(len(points), np.bool_),
        [
            {**point.payload, **({} if point.deleted_ms is None else {DELETED_AT_FIELD: point.deleted_ms})}
            for point in points
        ],
        {task.collection: np.zeros((len(points), task.dimension), np.float32)},
    )


def _check_age(older_than_ms: int, retention_ms: Mapping[str, int]) -> None:
    topic, least_ms = max(retention_ms.items(), key=lambda item: item[1])
    if older_than_ms < least_ms:
        raise ConfigError(
            f"--older-than: {_days(older_than_ms)} is below delete.retention.ms of topic {topic!r}, {_days(least_ms)}: "
            "so long a reader of the topic may meet a record before its delete. Expected at least "
            f"{_days(least_ms)}, and more than the longest outage"
        )


def _days(milliseconds: int) -> str:
    return f"{milliseconds / _DAY_MS:g} days"


def _witnesses(context: Context) -> Callable[[], frozenset[bytes]]:
    """Returns what asks which points must stay: those that committed offsets and the backfill's ledger name."""
    from pipeline.backfill.ledger import read_witnesses  # pyarrow
    from pipeline.sources.group.witnesses import committed_witnesses  # Kafka
    from pipeline.usecases.backfill import ledger_folder

    noted = read_witnesses(ledger_folder(context.config, None))
    return lambda: noted | committed_witnesses(context.config.source)


@contextmanager
def _leases(context: Context, tasks: Sequence[Task], *, execute: bool) -> Iterator[None]:
    """Keeps backfills away while tombstones leave."""
    if not execute:
        yield
        return
    from pipeline.backfill.leases import Leases
    from pipeline.usecases.backfill import ledger_folder

    folder = ledger_folder(context.config, None)
    folder.mkdir(parents=True, exist_ok=True)
    with closing(Leases(folder, tasks, "purge")):
        yield


@contextmanager
def _opened_store(context: Context, app_store: AppStore | None) -> Iterator[PurgedStore]:
    """Opens the store, or that of the running app where it is embedded and the app holds its directory."""
    from pipeline.usecases.client import app_answers  # an HTTP client, for an embedded store only

    if context.config.store.type == "edge" and app_answers(context.config):
        if app_store is None:
            raise ConfigError("store.type edge: the running app holds the store's directory; stop it first")
        with app_store(context.config) as store:
            yield store
        return
    with closing(context.open_store()) as store:
        yield store
