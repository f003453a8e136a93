"""What a format's reader is made for: a topic's values, or its Kafka keys."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.config.formats import PartFormat
from pipeline.config.pipeline import LimitsConfig
from pipeline.records.record import Headers
from pipeline.records.schemas.framing import VALUE_HEADER
from pipeline.records.schemas.registry import SchemaRegistry
from pipeline.records.schemas.wanted import Wanted

Parser = Callable[[bytes, Headers], Any]
"""Turns a value or a key into what JSON can hold, as far as the topic reads it; values are always objects.

Thread-safe. Raises RecordError; TransientError while a registry that it must ask does not answer, EnvironmentFault
where that refuses the credentials.
"""


@dataclass(frozen=True, slots=True)
class Part:
    """What is read, and by which settings."""

    settings: PartFormat
    header: str
    """Header that may hold the schema's id."""
    wanted: Wanted
    limits: LimitsConfig
    registry: SchemaRegistry | None
    """None where no topic asks one."""

    @property
    def is_value(self) -> bool:
        """Whether values are read, not Kafka keys."""
        return self.header == VALUE_HEADER
