"""Sends the rows of files to a source topic as records."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.pipeline import Config
from pipeline.context import Context
from pipeline.errors import ConfigError, Reason, RecordError
from pipeline.interfaces import Progress
from pipeline.records.files.messages import Keys, Message, Messages, keys_of
from pipeline.records.files.reading import FileFault
from pipeline.usecases.running import Note

if TYPE_CHECKING:
    from pipeline.records.files.topic_files import TopicFiles

_SLACK_S = 0.05
"""How late a record may be and still be caught up with."""

_STEP = 200
"""Records between two reports of progress."""

_OVERHEAD_BYTES = 1_024
"""Of a message in a request, at most."""

_NAMED = 20
"""Rows that are named where they cannot be sent; the others are counted."""


@dataclass(frozen=True, slots=True)
class ProduceRequest:
    """What to send, and how fast."""

    file: str | Path
    """A file that `refract backfill` reads, a folder or glob of them."""
    topic: str | None = None
    """None for the only one."""
    key: str | None = None
    """Column or field of the message key; None for the topic's `key`."""
    row_number: str | None = None
    """Name under which each row gets its number."""
    rate: float | None = None
    """Records a second; None for as fast as possible."""
    limit: int | None = None
    """Only the first so many records."""
    create: int | None = None
    """Creates missing topics with so many partitions."""


@dataclass(frozen=True, slots=True)
class ProduceReport:
    """What was sent."""

    topic: str
    sent: int
    elapsed_s: float
    rejected: Mapping[str, int]
    """Reason -> rows that cannot be records, and were not sent."""
    failed: Mapping[str, str]
    """Part of a file -> why it cannot be read to its end."""
    left_out: str = ""
    """A sentence about the files of a folder that are not read."""

    @property
    def ok(self) -> bool:
        """Whether every row of every file was sent."""
        return not self.rejected and not self.failed


def _quiet(_text: str) -> None:
    """Tells nobody."""


def produce(context: Context, request: ProduceRequest, progress: Progress, note: Note = _quiet) -> ProduceReport:
    """Sends the records in order and returns when the brokers have them all.

    A row that cannot be a record is not sent, but counted, and `note` hears where it is; so is a file that cannot be
    read to its end.

    Raises:
        ConfigError: no file matches, its columns cannot make records, or the topic does not exist.
        TransientError, EnvironmentFault: see `pipeline.errors`.
    """
    from pipeline.records.files.listing import left_out_words  # pyarrow
    from pipeline.records.files.topic_files import TopicFiles  # pyarrow

    config = context.config
    topic = config.topic_named(request.topic)
    settings = config.source.topics[topic]
    if other := next((part for part in (settings.values_as, settings.keys_as) if not part.is_plain), None):
        raise ConfigError(f"source.topics.{topic}.{other.setting}: {other.encoding}: rows are sent as JSON only")
    keys = keys_of(topic, settings, request.key, request.row_number)
    files = TopicFiles([str(request.file)], settings, config.limits, keys, all_columns=True)
    if left_out := left_out_words(files.listing):
        note(left_out)
    total = min(files.count().total, request.limit or sys.maxsize)
    messages = FileMessages(files, keys, config.limits.max_depth, note)
    _ensure_topic(config, topic, request.create)
    began_s = time.monotonic()
    sent = pace(islice(messages, request.limit), request.rate)
    num_sent = send_records(config, topic, sent, lambda done: progress("sending", done, total))
    elapsed_s = time.monotonic() - began_s
    return ProduceReport(topic, num_sent, elapsed_s, dict(messages.rejected), messages.failed, left_out)


@dataclass
class FileMessages:
    """Iterates over the messages of files; names what cannot be sent, and counts it."""

    files: "TopicFiles"
    keys: Keys
    max_depth: int
    note: Note
    rejected: Counter[str] = field(default_factory=Counter)
    """Rows by reason."""
    failed: dict[str, str] = field(default_factory=dict)
    """Part of a file -> why it cannot be read to its end."""

    def __iter__(self) -> Iterator[Message]:
        from pipeline.sources.client.producer import MAX_REQUEST_BYTES  # Kafka

        messages = Messages(self.keys, self.max_depth)
        max_bytes = MAX_REQUEST_BYTES - _OVERHEAD_BYTES
        for number, file, row in self.files.rows(self._fail):
            try:
                message = messages.of(row, number)
                if len(message.key or b"") + len(message.value or b"") > max_bytes:
                    raise _longer_than(MAX_REQUEST_BYTES)
                yield message
            except RecordError as error:
                self.rejected[str(error.reason)] += 1
                if self.rejected.total() <= _NAMED:
                    self.note(f"not sent: {file}, {row.place}: {error}")

    def _fail(self, fault: FileFault) -> None:
        name, _, why = str(fault).partition(": ")
        self.failed[name] = why
        self.note(str(fault))


def _longer_than(request_bytes: int) -> RecordError:
    """Returns the error of a message that the client would not send."""
    return RecordError(Reason.RECORD_TOO_LARGE, f"longer than a request to the brokers, {request_bytes} bytes")


def pace(
    records: Iterable[Message],
    rate: float | None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Message]:
    """Yields at most `rate` records a second, without catching up in a burst after a pause of the caller."""
    if rate is None:
        yield from records
        return
    due_s = clock()
    for record in records:
        now_s = clock()
        if due_s > now_s:
            sleep(due_s - now_s)
        # A little slack keeps the average at the rate although every sleep runs over.
        due_s = max(due_s, now_s - _SLACK_S) + 1 / rate
        yield record


def send_records(
    config: Config, topic: str, records: Iterable[Message], on_sent: Callable[[int], None] = lambda _: None
) -> int:
    """Sends records to a topic and returns how many, once the brokers have them; `on_sent` gets the number so far."""
    from pipeline.sources.client.producer import RecordProducer  # Kafka

    num_sent = 0
    with RecordProducer(config.source) as producer:
        for record in records:
            producer.send(topic, record.key, record.value)
            num_sent += 1
            if num_sent % _STEP == 0:
                on_sent(num_sent)
        producer.flush()
        on_sent(num_sent)
    return num_sent


def _ensure_topic(config: Config, topic: str, partitions: int | None) -> None:
    """A producer would wait a minute for a topic that does not exist."""
    from pipeline.sources.client.admin import create_topics, open_admin, topic_exists  # Kafka

    if partitions is not None:
        create_topics(config.source, partitions)
    with open_admin(config.source, "looking for the topic") as admin:
        if not topic_exists(admin, topic):
            raise ConfigError(f"the cluster has no topic {topic!r}; --create N creates it with N partitions")
