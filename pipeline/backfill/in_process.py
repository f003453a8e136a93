"""Carries a backfill in this process: no Ray, one copy of each model; for small inputs, from Python above all."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

from pipeline.backfill.carrier import Carrier, Manner, OpenStore, Tools
from pipeline.backfill.dispatch import WORKS_PER_CARRIER, Dispatch
from pipeline.backfill.executor import CHECKPOINT_S, TURN_S, BackfillEvents, Interval, RunState
from pipeline.backfill.outcome import Outcome
from pipeline.backfill.vectors import FragmentFile
from pipeline.backfill.work import BackfillJob, Work
from pipeline.context import Context
from pipeline.errors import ConfigError, RefractError, TransientError
from pipeline.interfaces import Embedder
from pipeline.records.batches import Embeddings, Priority, TokenBatch


class LocalExecutor:
    """Implements `pipeline.backfill.executor.BackfillExecutor`. One run at a time."""

    def __init__(self, context: Context) -> None:
        """Takes the context whose models are used, and whose store where a job has no other configuration."""
        self._context = context

    def check(self, job: BackfillJob) -> None:
        """See BackfillExecutor."""
        if job.share:
            raise ConfigError("share: a backfill in this process has no running app to share with")

    def run(self, job: BackfillJob, works: Sequence[Work], events: BackfillEvents) -> None:
        """See BackfillExecutor."""
        if not works:
            return
        dispatch = Dispatch(works, 1, events)
        dispatch.carrier_up(0)
        embedder = _Turns(self._context.embedder)
        events.doing("loading the models")
        with self._carrier(job, embedder) as carrier, _threads(carrier) as threads:
            under_way: dict[Future[Outcome], Work] = {}
            checkpoint, turn = Interval(CHECKPOINT_S), Interval(TURN_S)
            while not dispatch.is_over:
                for _, work in dispatch.hand_out():
                    under_way[threads.submit(carrier.carry, work)] = work
                for future in wait(under_way, timeout=TURN_S, return_when=FIRST_COMPLETED).done:
                    _settle(dispatch, under_way.pop(future), future)
                if checkpoint.is_due():
                    dispatch.reached(_checkpoints(carrier))
                if turn.is_due():
                    events.progress(RunState(dispatch.counts([carrier.counts()]), embedder.busy_s, 1))
            events.progress(RunState(dispatch.counts([]), embedder.busy_s, 1))

    @contextmanager
    def _carrier(self, job: BackfillJob, embedder: Embedder) -> Iterator[Carrier]:
        context = self._context if job.source is self._context.source else Context(job.source)
        tasks = {name: context.tasks[name] for name in job.tasks}
        tokenizers = context.tokenizers({task.config.model for task in tasks.values()})
        with ExitStack() as stack:
            if job.output is None:
                store = stack.enter_context(closing(context.open_store()))
                store.open(list(tasks.values()))
                tools = Tools(tokenizers, embedder, lambda _fragment, _tasks: store)
            else:
                tools = Tools(tokenizers, embedder, _files(job.output))
            manner = Manner(growing=True, whole=job.output is not None)
            yield stack.enter_context(closing(Carrier(context.config, job.topic, tasks, tools, manner)))


class _Turns:
    """Lets one batch at a time into an embedder that takes one thread at a time, and times it."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._lock = threading.Lock()
        self.busy_s = 0.0

    def embed(self, model: str, batch: TokenBatch, priority: Priority) -> Embeddings:
        """See Embedder."""
        with self._lock:
            began_s = time.monotonic()
            rows = self._embedder.embed(model, batch, priority)
            self.busy_s += time.monotonic() - began_s
        return rows


@contextmanager
def _threads(carrier: Carrier) -> Iterator[ThreadPoolExecutor]:
    """The threads that call `carry`; at the end of the block, whatever the reason, they end soon."""
    with ThreadPoolExecutor(WORKS_PER_CARRIER, thread_name_prefix="carry") as threads:
        try:
            yield threads
        finally:
            carrier.stop()


def _files(folder: Path) -> OpenStore:
    return partial(FragmentFile, folder)


def _settle(dispatch: Dispatch, work: Work, future: Future[Outcome]) -> None:
    try:
        outcome = future.result()
    except RefractError as error:
        dispatch.returned(work, error)
    else:
        dispatch.finished(work, outcome)


def _checkpoints(carrier: Carrier) -> dict[str, Outcome]:
    """Returns no checkpoints while the store is away: its writes are repeated until it is back."""
    try:
        return carrier.checkpoints()
    except TransientError:
        return {}
