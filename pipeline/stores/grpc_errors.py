"""What a Qdrant server's gRPC answers mean, as the classes of `pipeline.errors`.

Statuses and texts: qdrant 1.19, `lib/storage/src/content_manager/conversions.rs` and
`lib/collection/src/operations/types.rs`.
"""

from collections.abc import Iterable
from contextlib import suppress

import grpc

from pipeline.errors import (
    BatchShapeError,
    EnvironmentFault,
    Reason,
    RecordError,
    RefractError,
    TransientError,
    UnknownOutcomeError,
)
from pipeline.stores.points import refused

RETRY_AFTER = "retry-after"
"""Trailing metadata of a rate limit that a pause can satisfy; any other rate limit comes without it."""

TOO_BIG = ("split your request", "message larger than", "message length too large", "larger than max")
"""Texts of a rate limit below the request's size, and of message size limits on either side."""

CUT_OFF = ("RST_STREAM", "Stream removed", "GOAWAY", "transport")
"""INTERNAL as the transport reports a broken stream; any other INTERNAL is the server's own HTTP 500,
a full disk among them."""

UNREADABLE = "failed to decode Protobuf message"
"""INTERNAL for a request the server's parser gives up on, as it does for deep nesting."""

DIMENSION = "imension error"
NOT_SENT = ("failed to connect", "name resolution", "DNS resolution", "connection refused", "Connection refused")
"""UNAVAILABLE before a byte of the request left; any other UNAVAILABLE of the transport may have arrived."""

UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
"""UNAVAILABLE because the server's certificate was not signed by the authority given."""

SHARD_AWAY = ("Shard", "shard", "replica", "consensus", "Service unavailable")
"""UNAVAILABLE as the server itself answers it, having done nothing."""

ENVIRONMENT = {
    grpc.StatusCode.UNAUTHENTICATED: "the API key is missing or wrong",
    grpc.StatusCode.PERMISSION_DENIED: "the API key does not allow this",
    grpc.StatusCode.NOT_FOUND: "it does not exist",
    grpc.StatusCode.ALREADY_EXISTS: "the name is taken",
    grpc.StatusCode.UNIMPLEMENTED: "the server does not know this call: not Qdrant's gRPC port, or too old",
    grpc.StatusCode.DATA_LOSS: "stored data is damaged",
}

SEVERITY: tuple[type[RefractError], ...] = (
    EnvironmentFault,
    RecordError,
    BatchShapeError,
    UnknownOutcomeError,
    TransientError,
)
"""Most severe first: what a batch raises when its collections fail differently."""


def error_from_grpc(error: grpc.RpcError, doing: str, num_points: int = 0) -> RefractError:
    """Returns the error of `pipeline.errors` that a failed call amounts to.

    Args:
        error: what the call raised.
        doing: what was tried, naming the collection; begins the message.
        num_points: points of the batch the call was part of; 0 for a call that sends none.
    """
    code, details = error.code(), error.details() or ""
    said = f"{doing}: {code.name} {details[:300]}".rstrip()
    for_a_person = _environment(code, details)
    if for_a_person:
        return EnvironmentFault(f"{doing}: {for_a_person} ({code.name} {details[:300]})")
    if _never_taken(code, details):
        return _refused(said, num_points)
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return _exhausted(error, said, details, num_points)
    if _refused_for_now(code, details):
        return TransientError(said)
    # Deadlines, resets, cancellations and whatever a proxy invents: the server may have done it.
    return UnknownOutcomeError(said)


def most_severe(errors: Iterable[RefractError]) -> RefractError:
    """Returns the error that decides, of at least one; of several pauses the longest."""

    def rank(error: RefractError) -> tuple[int, float]:
        pause = getattr(error, "retry_after_s", None) or 0.0
        return next(place for place, cls in enumerate(SEVERITY) if isinstance(error, cls)), -pause

    return min(errors, key=rank)


def _environment(code: grpc.StatusCode, details: str) -> str:
    """Returns what a person must mend; empty where nobody has to."""
    if UNTRUSTED in details:
        return "the server's certificate is not signed by store.ca_file, nor by the system's authorities"
    if code == grpc.StatusCode.INVALID_ARGUMENT and DIMENSION in details:
        # Our vectors were checked against the size the collection had when it was opened.
        return "the collection was replaced by one of another size"
    return ENVIRONMENT.get(code, "")


def _never_taken(code: grpc.StatusCode, details: str) -> bool:
    """Whether the request is wrong or too big in itself."""
    if code == grpc.StatusCode.INTERNAL:
        return UNREADABLE in details
    if code == grpc.StatusCode.OUT_OF_RANGE:
        return _any_in(TOO_BIG, details)
    return bool(code == grpc.StatusCode.INVALID_ARGUMENT)


def _refused_for_now(code: grpc.StatusCode, details: str) -> bool:
    """Whether the call was certainly not carried out, for a reason that passes."""
    if code == grpc.StatusCode.UNAVAILABLE:
        return _any_in((*NOT_SENT, *SHARD_AWAY), details)
    if code == grpc.StatusCode.INTERNAL:
        return not _any_in(CUT_OFF, details)
    return bool(code == grpc.StatusCode.FAILED_PRECONDITION)


def _exhausted(error: grpc.RpcError, said: str, details: str, num_points: int) -> RefractError:
    for name, value in error.trailing_metadata() or ():
        if name == RETRY_AFTER:
            with suppress(ValueError):
                return TransientError(said, retry_after_s=float(value))
    if _any_in(TOO_BIG, details):
        return _refused(said, num_points)
    # A quota (HTTP 507 by REST): writes pass again when somebody has made room.
    return TransientError(said)


def _refused(said: str, num_points: int) -> RefractError:
    """Returns the error of a request that can never pass: about its points, or about the call if it sends none."""
    return refused(num_points, Reason.REFUSED_BY_STORE, said) if num_points else EnvironmentFault(said)


def _any_in(signs: Iterable[str], text: str) -> bool:
    return any(sign in text for sign in signs)
