"""What every section of the configuration shares: strictness, and the rules for names, paths and secrets."""

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

_NAME = r"^[A-Za-z][A-Za-z0-9_-]{0,62}$"
_TOPIC_NAME = r"^[A-Za-z0-9._-]{1,249}$"
_QUOTED_NAME = r'"(?:[^"\\]|\\.)+"'
_FIELD_PATH = rf"^(?:{_QUOTED_NAME}|(?:\\.|[^.\s])(?:\\.|[^.])*)(?:\.(?:{_QUOTED_NAME}|(?:\\.|[^.])+))*$"
_URL = r"^https?://[^@\s]+$"
_BROKER = r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$"

_MAX_PORT = 65_535

Name = Annotated[str, StringConstraints(pattern=_NAME)]
"""Names of pipelines, tasks, models and collections: safe in a URL, a file name and a metric label."""

TopicName = Annotated[str, StringConstraints(pattern=_TOPIC_NAME)]
"""Kafka's own rule for topic names."""

FieldPath = Annotated[str, StringConstraints(pattern=_FIELD_PATH, max_length=256)]
"""Where a value is inside a record: `id`, `customer.name`, or `"service.name"` for a name with a dot of its own."""

_FIELD_PATHS: TypeAdapter[str] = TypeAdapter(FieldPath)


def is_field_path(text: str) -> bool:
    """Whether a part of another text is a path as `FieldPath` has it."""
    try:
        _FIELD_PATHS.validate_python(text)
    except ValidationError:
        return False
    return True


FilePath = Annotated[Path, Field(strict=False)]


def _without_line_break(secret: SecretStr) -> SecretStr:
    if secret.get_secret_value().rstrip("\r\n") != secret.get_secret_value():
        raise ValueError("the secret ends in a line break, as a file that an editor wrote does: set it without")
    return secret


Secret = Annotated[SecretStr, Field(min_length=1), AfterValidator(_without_line_break)]
"""Shown as `**********` everywhere. An empty one is refused: an empty variable must not switch a check off."""


def _with_host_and_port(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_address = bool(parts.hostname) and parts.port != 0
    except ValueError:  # half a bracket, a port that is not a number or beyond 65535
        is_address = False
    if not is_address:
        raise ValueError(PATTERN_MEANINGS[_URL])
    return url


def _with_port(broker: str) -> str:
    if not 0 < int(broker.rpartition(":")[2]) <= _MAX_PORT:
        raise ValueError(PATTERN_MEANINGS[_BROKER])
    return broker


Url = Annotated[str, StringConstraints(pattern=_URL), AfterValidator(_with_host_and_port)]
"""An http(s) address without user or password, which would end up in logs."""

Broker = Annotated[str, StringConstraints(pattern=_BROKER), AfterValidator(_with_port)]
"""`host:port` of a Kafka broker."""

FIELD_PATH_MEANING = (
    "a field path is names joined by single dots, for example customer.name; a name with a dot of its own is quoted: "
    '"service.name"'
)

PATTERN_MEANINGS = {
    _NAME: "a name begins with a letter and holds up to 63 letters, digits, _ and -",
    _TOPIC_NAME: "a topic name holds up to 249 letters, digits, dots, _ and -. Patterns are not supported, because a "
    "pattern could match the dead-letter topic: name every topic",
    _FIELD_PATH: FIELD_PATH_MEANING,
    _URL: "expected http://host:port or https://host:port, without user or password",
    _BROKER: "expected host:port, for example kafka-1.example.org:9092",
}
"""What a pattern asks for, in words, for messages."""


class Section(BaseModel):
    """A part of the file: frozen, unknown keys refused, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True, allow_inf_nan=False)
