"""`refract produce`: sends a file as records to a source topic."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.options import AsJson, ConfigFile
from pipeline.cli.output import print_json, print_note
from pipeline.config.app import Config
from pipeline.errors import ConfigError
from pipeline.records.files.record_files import FileRecord, count_records, keys_of, read_records

_LINE_S = 5.0
"""Between two progress lines where no terminal shows a bar."""

_SLACK_S = 0.05
"""How late a record may be and still be caught up with."""

_STEP = 200
"""Records between two looks at the clock."""


def produce(
    config: ConfigFile,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, JSON Lines or Parquet.", show_default=False)],
    *,
    topic: Annotated[
        str | None,
        typer.Option("--topic", help="Source topic; needed when the file names several.", show_default=False),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--key", help="Column or field of the Kafka message key.", show_default="the topic's `key`"),
    ] = None,
    row_number: Annotated[
        str | None,
        typer.Option("--row-number", help="Adds the row's number under this name.", show_default=False),
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", min=0.001, help="Records per second.", show_default="unbounded")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Only the first so many records.", show_default=False)
    ] = None,
    create: Annotated[
        int | None,
        typer.Option("--create", min=1, help="Creates missing topics with so many partitions.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send a file's records to a source topic, in order, and wait until the brokers have them.

    CSV and Parquet rows become JSON objects. A JSON line is sent as it stands; the line
    {"_raw": TEXT, "_key": KEY} sends TEXT literally, and null as a tombstone.
    """
    from pipeline.config.load import load_config

    loaded = load_config(config)
    name = loaded.topic_named(topic)
    total = min(count_records(file), limit or sys.maxsize)
    records = islice(read_records(file, keys_of(name, loaded.source.topics[name], key, row_number)), limit)
    _ensure_topic(loaded, name, create)
    started_s = time.monotonic()
    num_sent = _send(loaded, name, pace(records, rate), total)
    elapsed_s = time.monotonic() - started_s
    if as_json:
        print_json({"topic": name, "sent": num_sent, "elapsed_s": round(elapsed_s, 3)})
    else:
        typer.echo(f"sent {num_sent:,} records to {name} in {elapsed_s:.1f} s ({num_sent / elapsed_s:,.0f}/s)")


def pace(
    records: Iterable[FileRecord],
    rate: float | None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[FileRecord]:
    """Yields records no faster than `rate` a second, without catching up in a burst after a pause of the caller."""
    if rate is None:
        yield from records
        return
    due_s = clock()
    for record in records:
        now_s = clock()
        if due_s > now_s:
            sleep(due_s - now_s)
        # A little slack lets the average keep the rate although every sleep runs over.
        due_s = max(due_s, now_s - _SLACK_S) + 1 / rate
        yield record


def _ensure_topic(config: Config, topic: str, partitions: int | None) -> None:
    """A producer would wait a minute for a topic that does not exist."""
    from pipeline.sources.client.admin import create_topics, open_admin, topic_exists

    if partitions is not None:
        create_topics(config.source, partitions)
    with open_admin(config.source, "looking for the topic") as admin:
        if not topic_exists(admin, topic):
            raise ConfigError(f"the cluster has no topic {topic!r}; --create N creates it with N partitions")


def _send(config: Config, topic: str, records: Iterator[FileRecord], total: int) -> int:
    from pipeline.sources.client.producer import RecordProducer

    num_sent = 0
    with RecordProducer(config.source) as producer, _progress(total) as advance:
        for record in records:
            producer.send(topic, record.key, record.value)
            num_sent += 1
            if num_sent % _STEP == 0:
                advance(num_sent)
        producer.flush()
        advance(num_sent)
    return num_sent


def _progress(total: int) -> AbstractContextManager[Callable[[int], Any]]:
    """Shows how many records were sent: a bar on a terminal, now and then a line elsewhere."""
    if sys.stderr.isatty():
        return _bar(total)
    next_line_s = time.monotonic() + _LINE_S

    def line(num_sent: int) -> None:
        nonlocal next_line_s
        if time.monotonic() >= next_line_s:
            next_line_s = time.monotonic() + _LINE_S
            print_note(f"{num_sent:,} of {total:,} records")

    return nullcontext(line)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], Any]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("sending"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total)
        yield lambda num_sent: bar.update(task, completed=num_sent)
