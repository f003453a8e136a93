"""What a backfill is asked to read: the topic and tasks meant, and the fragments of the inputs."""

from collections.abc import Iterable, Sequence

from pipeline.backfill.inputs import Inputs, list_inputs
from pipeline.backfill.kafka_ranges import SCHEME, topic_of
from pipeline.backfill.rows import check_topic
from pipeline.config.pipeline import Config
from pipeline.errors import ConfigError, nearest
from pipeline.interfaces import Progress
from pipeline.records.files.schema import check_columns


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


def checked_inputs(config: Config, topic: str, inputs: Sequence[str], step: Progress) -> Inputs:
    """Returns what the inputs name; raises ConfigError for what cannot work, before anything is written."""
    found = list_inputs(inputs, config, lambda done: step("listing files", done, 0))
    if found.parts:
        settings = config.source.topics[topic]
        check_topic(topic, settings)
        check_columns(found.parts, settings)
    return found


def warnings(config: Config, topic: str, inputs: Inputs) -> list[str]:
    """Returns what a user should know before rows of files are written."""
    texts = [inputs.left_out] if inputs.left_out else []
    if inputs.parts and config.source.topics[topic].version is None:
        texts.append(f"Topic {topic!r} has no `version` field: a row loses against every live record of its key.")
    return texts


def unresolved_words(paths: Sequence[str], num_rows: int) -> str:
    """Returns a warning about paths that no row had."""
    named = ", ".join(repr(path) for path in paths)
    return f"In none of {num_rows:,} rows: {named}. Are these paths of the topic's configuration spelt right?"
