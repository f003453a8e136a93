"""Logs: JSON lines, nothing while all is well, and never a secret or a record's text."""

import logging
import os
import re
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

import structlog

_SENSITIVE = re.compile(
    r"password|secret|token$|api_?key|authorization|^(text|value|payload|prompt|query|key)$", re.IGNORECASE
)
"""Field names whose values are never written, whoever passes them."""

REDACTED = "**********"


def redact(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ARG001 - structlog's signature
    """A structlog processor: hides the values of fields with telling names."""
    for name in event:
        if _SENSITIVE.search(name):
            event[name] = REDACTED
    return event


class _Lines(structlog.PrintLogger):
    """A line that cannot be written, to a full disk or a closed pipe, is lost; the caller goes on."""

    def msg(self, message: str) -> None:
        """Writes a line."""
        with suppress(OSError):
            super().msg(message)

    log = debug = info = warn = warning = error = err = critical = exception = fatal = failure = msg


def configure_logs() -> None:
    """Sets JSON lines on stderr, from INFO up unless REFRACT_LOG_LEVEL names another level."""
    level = logging.getLevelNamesMapping().get(os.environ.get("REFRACT_LOG_LEVEL", "INFO").upper(), logging.INFO)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact,
            structlog.processors.JSONRenderer(ensure_ascii=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # Looked up at each use: Ray and tests put another stream in its place.
        logger_factory=lambda *_: _Lines(sys.stderr),
    )
    # The Kafka client narrates every reconnection; what matters of it comes out as our own errors.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
