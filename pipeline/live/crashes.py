"""Finds the record that kills the process that embeds it, or fails there, so that it holds up no other record.

One text can kill a model (a fault in a kernel, memory that runs out). Every batch computed at the same time dies with
it, and a restart changes nothing. So a batch whose process died is computed again with nothing beside it, right
after a harmless text. If the harmless text survives and the batch does not, the batch is to blame: it is halved, like
any refused batch, until the record stands alone. An error that nobody foresaw is proven in the same way, at once:
where the harmless text fails with it, the model is to blame, and a person must help.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition
from typing import TypeVar

import structlog

from pipeline.errors import DiedError, Reason, RecordError, UnexpectedFault

PROBE_TEXT = "ok"

MAX_DEATHS = 2
"""Times a record may die alone before it is blamed: a process may be killed for another reason, too."""

Result = TypeVar("Result")
log = structlog.get_logger(__name__)


class Suspects:
    """Lets calls run beside each other, and those of a suspect by themselves. Thread-safe."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._num_beside = 0
        self._num_suspects = 0
        """Waiting and running."""
        self._is_alone = False

    def watch(
        self, call: Callable[[], Result], probe: Callable[[], object], *, is_single: bool
    ) -> Callable[[], Result]:
        """Returns the call, to be repeated while it raises DiedError or another outage.

        It raises RecordError (crashes_worker, fails_in_model) once what it computes is to blame. `probe` computes
        something harmless; while that dies, too, nobody is blamed: it is an outage. Where it fails as unexpectedly,
        that UnexpectedFault is raised.
        """
        max_deaths = MAX_DEATHS if is_single else 1
        num_deaths: int | None = None
        """Those alone; None before it is a suspect."""

        def attempt() -> Result:
            nonlocal num_deaths
            if num_deaths is None:
                try:
                    with self._beside():
                        return call()
                except DiedError:
                    num_deaths = 0
                    raise
                except UnexpectedFault:
                    num_deaths = 0
            with self._alone():
                probe()
                try:
                    return call()
                except UnexpectedFault as error:
                    log.warning("A model failed at what it computed.", single=is_single, error=str(error))
                    raise RecordError(Reason.FAILS_IN_MODEL, str(error)) from error
                except DiedError as error:
                    num_deaths += 1
                    log.warning("A process died of what it computed.", single=is_single, times=num_deaths)
                    if num_deaths == max_deaths:
                        raise RecordError(Reason.CRASHES_WORKER, str(error)) from error
                    raise

        return attempt

    @contextmanager
    def _beside(self) -> Iterator[None]:
        with self._changed:
            while self._num_suspects:
                self._changed.wait()
            self._num_beside += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_beside -= 1
                self._changed.notify_all()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._changed:
            self._num_suspects += 1
            while self._num_beside or self._is_alone:
                self._changed.wait()
            self._is_alone = True
        try:
            yield
        finally:
            with self._changed:
                self._is_alone = False
                self._num_suspects -= 1
                self._changed.notify_all()
