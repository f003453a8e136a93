"""What every verb that reads files makes of one: the same rows, or there is a fault."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.backfill.rows import FragmentFault, FragmentReader
from pipeline.backfill.sample import measure_size, take_sample
from pipeline.backfill.selection import checked_inputs
from pipeline.compare.file_range import FileRange
from pipeline.config.pipeline import Config
from pipeline.errors import ConfigError, Reason, RecordError
from pipeline.records.decode import Decoders
from pipeline.records.files.messages import keys_of
from pipeline.records.files.reading import FileFault
from pipeline.records.files.topic_files import TopicFiles
from pipeline.records.record import Position, Record
from pipeline.usecases.produce import FileMessages

Outcome = Any
"""Of a row: what is stored of it, or the reason why nothing is; last "failed" where the file has no readable end."""

REFUSED = ["refused"]


def config_of(**topic: Any) -> Config:
    """A pipeline of one topic, `tickets`; None removes a key."""
    settings = {"key": "id", "text": "{text?}", "generation": 1, "on_empty_text": "delete", "tasks": ["one"]} | topic
    limits = settings.pop("limits", {})
    return Config.model_validate(
        {
            "pipeline": "files",
            "source": {
                "bootstrap_servers": ["localhost:9092"],
                "group_id": "g",
                "dead_letter_topic": "dead",
                "topics": {"tickets": {name: value for name, value in settings.items() if value is not None}},
            },
            "models": {"null": {"model": "null:8"}},
            "tasks": {"one": {"model": "null", "instruction": "first"}},
            "store": {"type": "edge", "path": "unused"},
            "limits": limits,
        }
    )


def outcomes(path: Path, config: Config) -> dict[str, list[Outcome]]:
    """Returns by verb what becomes of each row of a file. `plan` has no order, see `agreed`."""
    verbs = {"backfill": _backfilled, "produce": _produced, "verify": _compared, "plan": _planned}
    if config.source.topics["tickets"].version is None:
        del verbs["verify"]  # needs versions of the rows' own
    found: dict[str, list[Outcome]] = {}
    for name, read in verbs.items():
        try:
            found[name] = list(read(str(path), config))
        except ConfigError:
            found[name] = REFUSED
    return found


def rejects(path: Path, config: Config) -> list[str]:
    """Returns what a backfill says of the rows and files that it cannot read."""
    found: list[str] = []
    reader = FragmentReader(config, "tickets")
    try:
        for fragment in checked_inputs(config, "tickets", [str(path)], lambda *_: None).fragments:
            found += [delivery.detail for batch in reader.batches(fragment) for delivery in batch]
    except (ConfigError, FragmentFault) as error:
        found.append(str(error))
    return found


def agreed(found: Mapping[str, Sequence[Outcome]]) -> list[Outcome]:
    """Returns what all verbs say; fails where one says something else."""
    first = list(found["backfill"])
    for verb, others in found.items():
        if verb == "plan":
            assert Counter(map(str, others)) == Counter(map(str, first)), (verb, others, first)
        else:
            assert list(others) == first, (verb, others, first)
    return first


def _seen(record: Record, *, versioned: bool) -> Outcome:
    payload = {name: value for name, value in record.payload.items() if not name.startswith("_")}
    return record.key, record.version if versioned else None, record.text, payload


def _backfilled(path: str, config: Config) -> Iterator[Outcome]:
    versioned = config.source.topics["tickets"].version is not None
    reader = FragmentReader(config, "tickets")
    for fragment in checked_inputs(config, "tickets", [path], lambda *_: None).fragments:
        try:
            for batch in reader.batches(fragment):
                for delivery in batch:
                    record = delivery.record
                    yield _seen(record, versioned=versioned) if record is not None else str(delivery.error)
        except FragmentFault:
            yield "failed"


def _produced(path: str, config: Config) -> Iterator[Outcome]:
    """Sends the rows, and decodes what was sent as the pipeline does; a row that is not sent is in its place."""
    settings = config.source.topics["tickets"]
    keys = keys_of("tickets", settings)
    files = TopicFiles([path], settings, config.limits, keys, all_columns=True)
    decoder = Decoders(config.source, config.limits).of("tickets")
    rejected: list[str] = []

    def note(text: str) -> None:
        rejected.append(
            next(word for word in text.split(": ") if word in set(Reason)) if "not sent" in text else "failed"
        )

    for message in FileMessages(files, keys, config.limits.max_depth, note):
        yield from rejected
        rejected.clear()
        try:
            record = decoder.decode(message.key, message.value, Position("tickets", 0, 7, -1), ())
        except RecordError as error:
            yield str(error.reason)
        else:
            yield _seen(record, versioned=settings.version is not None)
    yield from rejected


def _compared(path: str, config: Config) -> Iterator[Outcome]:
    try:
        for found in FileRange([path], "tickets", keys_of("tickets", config.source.topics["tickets"]), config).read():
            yield _seen(found.record, versioned=True) if found.record is not None else str(found.error)
    except FileFault:
        yield "failed"


def _planned(path: str, config: Config) -> Iterator[Outcome]:
    fragments = checked_inputs(config, "tickets", [path], lambda *_: None).fragments
    parts = list(zip(fragments, measure_size(fragments).rows, strict=True))
    sample = take_sample(parts, "tickets", config, 1_000_000, lambda *_: None)
    versioned = config.source.topics["tickets"].version is not None
    yield from (_seen(record, versioned=versioned) for record in sample.records)
    for reason, count in sample.bad.items():
        yield from [reason] * count
    yield from ["failed"] * len(sample.faults)
