"""What a comparison reads: the sources of a request, and which others may hold records of the same tasks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.compare.findings import TaskFindings
from pipeline.compare.joined import JoinedRange, Reading, SomeFiles
from pipeline.config.pipeline import Config
from pipeline.context import Context
from pipeline.errors import ConfigError, EnvironmentFault
from pipeline.records.decode import Decoders
from pipeline.records.record import file_source

if TYPE_CHECKING:
    from pipeline.compare.file_range import FileRange

KAFKA = "kafka://"


@dataclass(frozen=True, slots=True)
class CompareRequest:
    """What to compare the store with, and how closely."""

    inputs: str | Path | Sequence[str | Path] = ()
    """Files that `refract backfill` reads, folders or globs of them, and `kafka://TOPIC`; empty: the source topics, and
    every file that the backfill's ledger names."""
    topic: str | None = None
    """The topic that the files stand for; None for the only one."""
    key: str | None = None
    """Column or field of the files' key; None for the topic's `key`."""
    row_number: str | None = None
    """Name under which each row of the files gets its number."""
    sample: int | None = 100
    """Vectors per task to compute again and compare; None for all."""
    wait_s: float = 30.0
    """How long to wait, for all tasks together, for records that the running pipeline has not finished. Nothing is
    waited for where none is running."""
    examples: int = 20
    """Points of each kind, and lost records, that the report names."""

    @property
    def names(self) -> list[str]:
        """The inputs as texts."""
        given = [self.inputs] if isinstance(self.inputs, str | Path) else self.inputs
        return [str(one) for one in given]


@dataclass(frozen=True, slots=True)
class HistoryFile:
    """A file that the ledger names, and the tasks it was backfilled for."""

    uri: str
    topic: str | None
    tasks: frozenset[str]


@dataclass(slots=True)
class Sources:
    """The sources of a comparison."""

    config: Config
    topics: Sequence[str]
    """Those whose Kafka records are read."""
    files: list[SomeFiles]
    history: Sequence[HistoryFile]
    """All that the ledger names for the tasks of now."""
    names: list[str]
    unread: dict[str, str] = field(default_factory=dict)
    """Files of the history that were wanted and cannot be read, and why."""

    def open(self) -> JoinedRange:
        """Returns the range. Raises like `TopicRange`, ConfigError where there is nothing to compare with."""
        topics = None
        if self.topics:
            from pipeline.sources.ranges import TopicRange  # Kafka

            topics = TopicRange(self.config.source, Decoders(self.config.source, self.config.limits), self.topics)
        return JoinedRange(topics, self.files)

    def readings(self, joined: JoinedRange) -> Iterator[tuple[str, Reading]]:
        """Yields the tasks that some of the sources are for, each with what counts for it."""
        for name in self.config.tasks:
            topics = self._topics_of(name)
            if set(topics) & set(self.topics) or any(name in some.tasks for some in self.files):
                yield name, joined.of(name, topics)

    def not_compared(self, found: TaskFindings) -> dict[str, int]:
        """Returns what may hold records of a task and was not compared, with the live points that name it."""
        task, named = found.task.name, found.elsewhere.copy()
        compared = {source for some in self.files if task in some.tasks for source in some.rows.sources}
        topics = [topic for topic in self._topics_of(task) if topic not in self.topics]
        files = [file.uri for file in self.history if task in file.tasks and file_source(file.uri) not in compared]
        return {
            **{f"{KAFKA}{topic}": named.pop(topic, 0) for topic in topics},
            **{uri: named.pop(file_source(uri).rstrip("#"), 0) for uri in files},
            **dict(named.most_common()),
        }

    def _topics_of(self, task: str) -> list[str]:
        return [name for name, topic in self.config.source.topics.items() if task in topic.tasks]


def sources_of(context: Context, request: CompareRequest) -> Sources:
    """Returns the sources that a request means.

    Raises ConfigError where the request does not fit the configuration or its files cannot be used, EnvironmentFault
    where they, or the ledger, cannot be read.
    """
    config, history = context.config, list(_history(context))
    files = [name for name in request.names if not name.startswith(KAFKA)]
    if not files and (request.topic or request.key or request.row_number):
        raise ConfigError("--topic, --key and --row-number say how to read the files of --input; name some")
    if not request.names:
        topics = list(config.source.topics)
        sources = Sources(config, topics, [], history, [f"{KAFKA}{topic}" for topic in topics])
        _add_history(sources)
        return sources
    topics = [_topic_of(config, name) for name in request.names if name.startswith(KAFKA)]
    sources = Sources(config, list(dict.fromkeys(topics)), [], history, request.names)
    if files:
        topic = config.topic_named(request.topic)
        rows = _file_range(config, topic, files, (request.key, request.row_number))
        sources.files.append(SomeFiles(rows, config.source.topics[topic].tasks))
    return sources


def _history(context: Context) -> Iterator[HistoryFile]:
    from pipeline.backfill.ledger import read_files  # pyarrow
    from pipeline.usecases.backfill import ledger_folder

    names = {task.fingerprint: name for name, task in context.tasks.items()}
    for file, fingerprints in read_files(ledger_folder(context.config, None)).items():
        if tasks := frozenset(names[one] for one in fingerprints if one in names):
            yield HistoryFile(file.uri, file.topic, tasks)


def _add_history(sources: Sources) -> None:
    """Adds the files of the ledger, those of one topic and the same tasks together."""
    config = sources.config
    together: dict[tuple[str, frozenset[str]], list[str]] = {}
    for file in sources.history:
        topic, why = _usable(config, file)
        if topic is None:
            sources.unread[file.uri] = why
        else:
            together.setdefault((topic, file.tasks), []).append(file.uri)
    first = -1
    for (topic, tasks), uris in together.items():
        rows = _file_range(config, topic, uris, (None, None), first)
        first -= len(rows.partitions)
        sources.files.append(SomeFiles(rows, tasks & set(config.source.topics[topic].tasks)))
        sources.names += uris


def _usable(config: Config, file: HistoryFile) -> tuple[str | None, str]:
    """Returns the topic of a file that can be read; else None, and why not."""
    from pipeline.records.files.listing import list_files  # pyarrow

    try:
        topic = config.topic_named(file.topic)
        list_files([file.uri])
    except (ConfigError, EnvironmentFault) as error:
        return None, str(error)
    return topic, ""


def _file_range(
    config: Config, topic: str, inputs: Sequence[str], keys: tuple[str | None, str | None], first: int = -1
) -> "FileRange":
    from pipeline.compare.file_range import FileRange  # pyarrow
    from pipeline.records.files.messages import keys_of

    return FileRange(inputs, topic, keys_of(topic, config.source.topics[topic], *keys), config, first)


def _topic_of(config: Config, given: str) -> str:
    """Returns the topic of a `kafka://TOPIC`. Raises ConfigError for anything more, or another topic."""
    name = given.removeprefix(KAFKA)
    if "?" in name or "/" in name:
        raise ConfigError(f"--input {given}: a comparison takes all that a topic retains; expected kafka://TOPIC")
    return config.topic_named(name, "--input")
