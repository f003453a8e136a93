"""How another process is asked: a Serve deployment or a plain actor, behind one protocol.

Ray's failures become the classes of `pipeline.errors` here and nowhere else.
"""

from collections.abc import Callable, Iterable
from typing import Any, NoReturn, Protocol

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from pipeline.errors import DiedError, RefractError, TransientError, UnexpectedFault, UnknownOutcomeError

Wait = Callable[[float], Any]
"""Waits for the answer of one call for at most so many seconds and returns it. Raises what Ray raises."""


class Caller(Protocol):
    """Asks one remote object. Thread-safe."""

    def ask(self, method: str, *args: Any, **kwargs: Any) -> Wait:
        """Starts a call and returns at once."""


class DeploymentCaller:
    """Asks the replicas of a Serve deployment, from a plain thread."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    def ask(self, method: str, *args: Any, **kwargs: Any) -> Wait:
        """See Caller."""
        answer = getattr(self._handle, method).remote(*args, **kwargs)
        return lambda timeout_s: answer.result(timeout_s=timeout_s)


class ActorCaller:
    """Asks a plain actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def ask(self, method: str, *args: Any, **kwargs: Any) -> Wait:
        """See Caller."""
        answer = getattr(self._actor, method).remote(*args, **kwargs)
        return lambda timeout_s: ray.get(answer, timeout=timeout_s)


def call(what: str, timeout_s: float, start: Callable[[], Wait]) -> Any:
    """Returns the answer of a call. `what` names the other side in messages.

    Raises the error of the other side if it is one of `pipeline.errors`, else:
        TransientError: nobody is there, or nobody has room.
        DiedError: the other side died during the call.
        UnknownOutcomeError: no answer came in time; the call may have run.
        UnexpectedFault: the other side failed in a way that nobody expected.
    """
    return call_all(what, timeout_s, [start])[0]


def call_all(what: str, timeout_s: float, starts: Iterable[Callable[[], Wait]]) -> list[Any]:
    """Returns the answers of several calls; all are started before the first is waited for. Raises like `call`."""
    try:
        return [wait(timeout_s) for wait in [start() for start in starts]]
    except Exception as error:  # noqa: BLE001 - raised again under the right name
        _raise_as_ours(error, what)


def _raise_as_ours(error: BaseException, what: str) -> NoReturn:
    """Raises the pipeline's class for a failed call."""
    if isinstance(error, RayTaskError):
        cause = error.cause
        if isinstance(cause, RefractError):
            raise cause from None
        raise UnexpectedFault(f"{what} failed unexpectedly: {type(cause).__name__}") from error
    if isinstance(error, RefractError):
        raise error
    if isinstance(error, (BackPressureError, DeploymentUnavailableError)):
        raise TransientError(f"{what} has no room or no replica") from error
    if isinstance(error, RayActorError) and not isinstance(error, ActorUnavailableError):
        raise DiedError(f"{what} died while it worked on a call") from error
    if isinstance(error, (TimeoutError, GetTimeoutError, RayActorError, RayError, RayServeException)):
        raise UnknownOutcomeError(f"{what} did not answer: {type(error).__name__}") from error
    raise error
