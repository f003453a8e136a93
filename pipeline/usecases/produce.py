"""Sends a file's records to a source topic."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pipeline.config.app import Config
from pipeline.context import Context
from pipeline.errors import ConfigError
from pipeline.interfaces import Progress
from pipeline.records.files.record_files import FileRecord, count_records, keys_of, read_records

_SLACK_S = 0.05
"""How late a record may be and still be caught up with."""

_STEP = 200
"""Records between two reports of progress."""


@dataclass(frozen=True, slots=True)
class ProduceRequest:
    """What to send, and how fast."""

    file: Path
    """CSV, JSON Lines or Parquet."""
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


def produce(context: Context, request: ProduceRequest, progress: Progress) -> ProduceReport:
    """Sends the records in order and returns when the brokers have them all.

    Raises:
        ConfigError: the file cannot be read, or the topic does not exist.
        RefractError: a row cannot be a record.
        TransientError, EnvironmentFault: see `pipeline.errors`.
    """
    config = context.config
    topic = config.topic_named(request.topic)
    total = min(count_records(request.file), request.limit or sys.maxsize)
    keys = keys_of(topic, config.source.topics[topic], request.key, request.row_number)
    records = islice(read_records(request.file, keys), request.limit)
    _ensure_topic(config, topic, request.create)
    began_s = time.monotonic()
    num_sent = send_records(config, topic, pace(records, request.rate), lambda sent: progress("sending", sent, total))
    return ProduceReport(topic, num_sent, time.monotonic() - began_s)


def pace(
    records: Iterable[FileRecord],
    rate: float | None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[FileRecord]:
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
    config: Config, topic: str, records: Iterable[FileRecord], on_sent: Callable[[int], None] = lambda _: None
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
