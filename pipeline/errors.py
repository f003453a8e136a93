"""Every failure is one of seven classes, and each class has one action.

    RefractError
    ├── ConfigError            the configuration is wrong: exit 2, never retried
    ├── RecordError            record-permanent: this record can never be stored -> dead letter, offset finished
    ├── BatchShapeError        the batch is too big for something -> split in halves; one alone is a RecordError
    ├── TransientError         an outage -> back off with jitter and repeat, source paused but polled, no dead letter
    ├── UnknownOutcomeError    an answer was lost -> repeat the identical guarded operation
    ├── OwnershipError         the partition belongs to somebody else now -> drop its work, commit nothing
    └── EnvironmentFault       something a person must mend -> stop loudly, readiness red, offsets stay open

The seventh class, *stale*, is not an exception: a write that loses against a newer version did what it
should. The store counts it, and the offset is finished.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from enum import StrEnum


class Action(StrEnum):
    """What the worker does about a failure."""

    DEAD_LETTER = "dead_letter"
    SPLIT = "split"
    RETRY = "retry"
    DROP = "drop"
    STOP = "stop"


class Reason(StrEnum):
    """The closed list of reasons a dead letter can carry, in its `refract.reason` header."""

    NO_KEY = "no_key"
    INVALID_KEY = "invalid_key"
    KEY_TOO_LARGE = "key_too_large"
    INVALID_HEADER = "invalid_header"
    EMPTY_VALUE = "empty_value"
    INVALID_JSON = "invalid_json"
    NOT_AN_OBJECT = "not_an_object"
    DUPLICATE_FIELD = "duplicate_field"
    TOO_DEEP = "too_deep"
    WRONG_FORMAT = "wrong_format"
    UNKNOWN_SCHEMA = "unknown_schema"
    UNUSABLE_SCHEMA = "unusable_schema"
    INVALID_AVRO = "invalid_avro"
    INVALID_PROTOBUF = "invalid_protobuf"
    RECORD_TOO_LARGE = "record_too_large"
    INVALID_ROW = "invalid_row"
    TEXT_MISSING = "text_missing"
    TEXT_NOT_A_STRING = "text_not_a_string"
    TEXT_EMPTY = "text_empty"
    TEXT_TOO_LARGE = "text_too_large"
    INVALID_TEXT = "invalid_text"
    VERSION_MISSING = "version_missing"
    INVALID_VERSION = "invalid_version"
    VERSION_IN_FUTURE = "version_in_future"
    INVALID_PAYLOAD = "invalid_payload"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    SCHEMA_VERSION = "schema_version"
    UNKNOWN_TASK = "unknown_task"
    TOO_LARGE_FOR_MODEL = "too_large_for_model"
    INVALID_EMBEDDING = "invalid_embedding"
    REFUSED_BY_STORE = "refused_by_store"
    CRASHES_WORKER = "crashes_worker"
    FAILS_IN_MODEL = "fails_in_model"


class RefractError(Exception):
    """Base of everything this package raises on purpose.

    Messages name keys, fields, sizes and places, never a record's text or a secret.
    """


class ConfigError(RefractError):
    """The configuration, or what it points at, cannot work. The CLI exits with 2."""


class RecordError(RefractError):
    """This one record can never be stored, whatever is repeated."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["RecordError"], tuple[Reason, str]]:
        # Travels between processes with its reason; the default would rebuild it from its message.
        return type(self), (self.reason, self.detail)


class BatchShapeError(RefractError):
    """The batch is larger than a component takes; half of it may pass."""


class TransientError(RefractError):
    """A component is away or overloaded and will be back.

    `retry_after_s` is what the component asked for, None when it said nothing.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnknownOutcomeError(TransientError):
    """The operation may or may not have been applied; only its identical repetition is safe."""


class DiedError(UnknownOutcomeError):
    """The process that worked on the call died; what it worked on may be why."""


class OwnershipError(RefractError):
    """The partition was revoked or lost while its work was in flight."""


class EnvironmentFault(RefractError):  # noqa: N818 - the word of the error table; "EnvironmentError" is a built-in
    """Nothing the pipeline repeats will help: credentials, a dropped collection, another model's vectors."""


class UnexpectedFault(EnvironmentFault):
    """A component failed in a way that nobody foresaw, at work on a call; what it worked on may be why."""


ACTIONS: dict[type[RefractError], Action] = {
    RecordError: Action.DEAD_LETTER,
    BatchShapeError: Action.SPLIT,
    TransientError: Action.RETRY,
    UnknownOutcomeError: Action.RETRY,
    DiedError: Action.RETRY,
    OwnershipError: Action.DROP,
    EnvironmentFault: Action.STOP,
}
"""The one table of error classes. An exception outside it is a bug: it stops the worker, and nothing is committed."""


def action_for(error: BaseException) -> Action:
    """Returns the action of the error's nearest class in `ACTIONS`; anything unknown stops the worker."""
    return next((ACTIONS[cls] for cls in type(error).__mro__ if cls in ACTIONS), Action.STOP)


def nearest(name: str, valid: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the closest valid name, or an empty string when no name is close."""
    close = get_close_matches(name, list(valid), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""
