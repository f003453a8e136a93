"""Which values of a record a topic reads: only those are turned into what JSON can hold."""

from collections.abc import Iterable, Mapping

from pipeline.config.paths import split_path
from pipeline.config.source import TopicConfig
from pipeline.records.meaning import Expected, expected_by

Wanted = frozenset[tuple[tuple[str, ...], Expected | None]]
"""Paths from some place of a record, and what a decimal there means. The empty path is the place itself."""

NOTHING: Wanted = frozenset()
EVERYTHING: Wanted = frozenset({((), None)})


def wanted_of_values(topic: TopicConfig) -> Wanted:
    """Returns what a topic reads of its records' values."""
    return _wanted([*topic.watched_paths, *topic.key_paths, *filter(None, (topic.version,))], expected_by(topic))


def wanted_of_keys(topic: TopicConfig) -> Wanted:
    """Returns what a topic reads of Kafka keys: all, where no path says what of them is the key."""
    return _wanted(topic.key_paths, expected_by(topic)) if topic.key_paths else EVERYTHING


def _wanted(paths: Iterable[str], expected: Mapping[str, Expected]) -> Wanted:
    names = [split_path(path) for path in paths]
    return frozenset((path, expected.get(".".join(path))) for path in names)


def within(wanted: Wanted, name: str) -> Wanted:
    """Returns what is wanted of a field."""
    return frozenset((path[1:], expected) for path, expected in wanted if not path or path[0] == name)


def within_any(wanted: Wanted) -> Wanted:
    """Returns what is wanted of the items of a list, or of the values of a map: some of them may be read."""
    return frozenset((path[1:], expected) for path, expected in wanted)


def is_read(wanted: Wanted) -> bool:
    """Whether the value at the place itself is read."""
    return any(not path for path, _ in wanted)


def expected_at(wanted: Wanted) -> Expected | None:
    """Returns what a decimal at the place itself means."""
    return next((expected for path, expected in wanted if not path and expected is not None), None)
