"""What a backfill is asked to read: the topic and tasks meant, and the fragments of the inputs."""

from collections.abc import Iterable, Sequence

from pipeline.backfill.fragments import Fragment, list_fragments
from pipeline.backfill.kafka_ranges import SCHEME, topic_of
from pipeline.backfill.rows import check_columns, check_topic
from pipeline.config.app import Config
from pipeline.errors import ConfigError, nearest
from pipeline.interfaces import Progress


def chosen_topic(config: Config, name: str | None, inputs: Iterable[str]) -> str:
    """Returns the topic whose rules the inputs follow: the named one, that of a Kafka range, or the only one.

    Raises ConfigError.
    """
    named = {topic_of(given) for given in inputs if given.startswith(SCHEME)}
    if name is not None:
        named.add(name)
    if len(named) > 1:
        raise ConfigError(f"one run follows one topic's rules; these are several: {', '.join(sorted(named))}")
    return config.topic_named(named.pop() if named else None)


def chosen_tasks(config: Config, topic: str, wanted: Sequence[str] | None) -> list[str]:
    """Returns the wanted tasks of a topic, each once; all of them for None. Raises ConfigError."""
    known = config.source.topics[topic].tasks
    chosen = known if wanted is None else wanted
    for name in chosen:
        if name not in known:
            raise ConfigError(f"--tasks: topic {topic!r} has no task {name!r}.{nearest(name, known)}")
    return list(dict.fromkeys(chosen))


def checked_fragments(config: Config, topic: str, inputs: Sequence[str], step: Progress) -> list[Fragment]:
    """Returns the fragments of the inputs; raises ConfigError for what cannot work, before anything is written."""
    fragments = list_fragments(inputs, config, lambda done: step("listing files", done, 0))
    if _has_files(fragments):
        settings = config.source.topics[topic]
        check_topic(topic, settings)
        check_columns(fragments, settings)
    return fragments


def warnings(config: Config, topic: str, fragments: Iterable[Fragment]) -> list[str]:
    """Returns what a user should know before rows of files are written."""
    if config.source.topics[topic].version is not None or not _has_files(fragments):
        return []
    return [f"Topic {topic!r} has no `version` field: a row loses against every live record of its key."]


def _has_files(fragments: Iterable[Fragment]) -> bool:
    return any(not fragment.is_kafka for fragment in fragments)
