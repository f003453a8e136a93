"""The formats of a record's value: what turns its bytes into fields, by the name in `TopicConfig.format`.

A new format is one function here. Keys, versions, text and payload are read from the fields by
`pipeline.records.decode`, the same way for every format.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pipeline.config.pipeline import LimitsConfig
from pipeline.config.source import SourceConfig, TopicConfig
from pipeline.records.strict_json import parse_object

Parser = Callable[[bytes], dict[str, Any]]
"""Turns a value into fields, which hold only what JSON can hold.

Raises RecordError; a parser that asks a schema registry raises TransientError when the registry does not answer.
"""


def _json(_source: SourceConfig, _topic: TopicConfig, limits: LimitsConfig) -> Parser:
    return partial(parse_object, max_depth=limits.max_depth)


FORMATS: Mapping[str, Callable[[SourceConfig, TopicConfig, LimitsConfig], Parser]] = {"json": _json}
"""Name -> what makes the parser of a topic. The source is where a format would find its registry."""
