"""A decoder for tests: one topic, a fixed clock, and records that differ from a plain good one."""

from typing import Any

import orjson
import pytest

from pipeline.config.pipeline import LimitsConfig
from pipeline.config.source import SourceConfig
from pipeline.errors import Reason, RecordError
from pipeline.records.decode import Decoders, RecordDecoder
from pipeline.records.record import Position, Record

NOW_MS = 1_790_000_000_000


def decoder(limits: dict[str, int] | None = None, **topic: Any) -> RecordDecoder:
    """A decoder; `topic` overrides the topic's configuration, None removes a key."""
    tree = {"key": "id", "text": "{text}", "payload": ["team"], "tasks": ["topic"], **topic}
    source = {
        "bootstrap_servers": ["b:1"],
        "group_id": "g",
        "topics": {"tickets": {name: value for name, value in tree.items() if value is not None}},
        "dead_letter_topic": "dead",
    }
    bounds = LimitsConfig.model_validate(limits or {})
    return Decoders(SourceConfig.model_validate(source), bounds, lambda: NOW_MS).of("tickets")


def decode(
    value: bytes | None,
    message_key: bytes | None = b"k",
    headers: list[tuple[str, bytes | None]] | None = None,
    timestamp_ms: int = NOW_MS,
    limits: dict[str, int] | None = None,
    **topic: Any,
) -> Record:
    """Decodes one message at tickets[2]@41."""
    position = Position("tickets", 2, 41, timestamp_ms)
    return decoder(limits, **topic).decode(message_key, value, position, headers or [])


def body(**fields: Any) -> bytes:
    """A good value, with these fields besides or instead."""
    return orjson.dumps({"id": "a", "text": "hello", **fields})


def reason_of(*arguments: Any, **options: Any) -> Reason:
    """Decodes like `decode` and returns why that is refused."""
    with pytest.raises(RecordError) as caught:
        decode(*arguments, **options)
    return caught.value.reason
