"""What the demo needs before the app starts: a broker, topics, an empty store and a configuration that names them."""

import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain, takewhile
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import orjson
import yaml

import pipeline.demo
from pipeline.config.load import load_config, read_tree
from pipeline.config.pipeline import Config
from pipeline.config.source import PLACEHOLDER
from pipeline.errors import ConfigError
from pipeline.records.files.messages import Keys, keys_of
from pipeline.records.values import MICROS_PER_MS
from pipeline.usecases.produce import FileMessages, pace, send_records
from pipeline.usecases.running import Note

if TYPE_CHECKING:
    from pipeline.records.files.topic_files import TopicFiles

WORK = Path("var/demo")


@dataclass(frozen=True, slots=True)
class DemoRequest:
    """What to show."""

    config: Path = Path("configs/demo.yaml")
    """The pipeline."""
    data: str | None = None
    """A file that `refract backfill` reads; None for the demo's tickets."""
    text: str | None = None
    """What to embed of the rows of `data`, as "{title} {body}"."""
    key: str | None = None
    """Column that identifies a row of `data`; None for the row's number."""
    bootstrap_servers: str | None = None
    """A real Kafka, as host:port by comma; None for a broker in memory."""


@dataclass(frozen=True, slots=True)
class Demo:
    """A demo that is ready to start."""

    path: Path
    """The configuration as it runs, for `refract search` and other verbs."""
    config: Config
    topic: str
    files: "TopicFiles"
    keys: Keys
    num_rows: int
    """Or about so many, where the file is large."""
    note: Note
    newest: Mapping[str, tuple[int, bool]] = field(default_factory=dict)
    """Key -> newest version and whether it is a delete: what the store must hold at the end. Demo data only."""

    @property
    def tasks(self) -> list[str]:
        """The tasks of the demo's topic."""
        return self.config.source.topics[self.topic].tasks

    def send(self, rate: float | None, stop: Event) -> int:
        """Sends the file's records, at most `rate` a second, until `stop` is set. Raises like `send_records`.

        Returns how many. Rows that cannot be records are named.
        """
        messages = FileMessages(self.files, self.keys, self.config.limits.max_depth, self.note)
        return send_records(self.config, self.topic, takewhile(lambda _: not stop.is_set(), pace(messages, rate)))


def prepare(request: DemoRequest, closing: ExitStack, note: Note) -> Demo:
    """Starts a broker unless one is named, creates the topics and writes the demo's configuration.

    The broker ends with `closing`. Raises ConfigError for a file that cannot be used.
    """
    config, data = request.config, request.data
    if not config.is_file():
        raise ConfigError(f"{config}: there is no such file here; run this in the checkout, or name it with --config")
    if (data is None) != (request.text is None):
        raise ConfigError('--data and --text go together, for example: --data my.csv --text "{title} {body}"')
    _empty_store()
    tree = read_tree(config)
    topic, settings = next(iter(tree["source"]["topics"].items()))
    if request.text is not None:
        settings = _own_settings(settings, request)
    if request.bootstrap_servers:
        # Somebody's cluster: topics and a group nobody else uses, new for every run.
        topic = f"refract-demo-{int(time.time())}"
        tree["source"] |= {
            "bootstrap_servers": request.bootstrap_servers.split(","),
            "group_id": topic,
            "dead_letter_topic": f"{topic}.dead-letters",
        }
    else:
        note("starting a broker in memory (BOOTSTRAP_SERVERS=host:port uses a real one)")
        tree["source"] |= _start_broker([topic, tree["source"]["dead_letter_topic"]], closing)
    tree["source"]["topics"] = {topic: settings}
    tree["store"] = {"type": "edge", "path": str(WORK / "store")}
    tree.setdefault("api", {})["port"] = _free_port(tree.get("api", {}).get("port", 8000), note)
    path = WORK / "demo.yaml"
    path.write_text(
        "# Written by `refract demo`; use it while the demo runs.\n" + yaml.safe_dump(tree, sort_keys=False)
    )
    return _demo(path, request, note)


def _demo(path: Path, request: DemoRequest, note: Note) -> Demo:
    config = load_config(path)
    if request.bootstrap_servers:
        from pipeline.sources.client.admin import create_topics  # Kafka

        create_topics(config.source, 4)
    [(topic, settings)] = config.source.topics.items()
    from pipeline.records.files.topic_files import TopicFiles  # pyarrow

    tickets = _tickets()
    row_number = settings.key_paths[0] if request.data is not None and request.key is None else None
    keys = keys_of(topic, settings, request.key, row_number)
    names = [request.data] if request.data else [str(path) for path in tickets]
    files = TopicFiles(names, settings, config.limits, keys, all_columns=True)
    newest = _newest(tickets) if request.data is None else {}
    return Demo(path, config, topic, files, keys, files.count().total, note, newest)


def _start_broker(topics: list[str], closing: ExitStack) -> dict[str, Any]:
    """Returns the settings of a source in a broker in memory."""
    from pipeline.sources.mock_broker import API_VERSION, MockBroker  # Kafka

    broker = closing.enter_context(MockBroker())
    broker.create_topics(topics)
    return {"bootstrap_servers": [broker.bootstrap_servers], "api_version": list(API_VERSION)}


def _own_settings(settings: Mapping[str, Any], request: DemoRequest) -> dict[str, Any]:
    """Returns how rows of somebody's own file are read: without versions, the embedded fields shown beside hits."""
    text, key = request.text or "", request.key or "row_number"
    fields = list(dict.fromkeys(path.removesuffix("?") for path in PLACEHOLDER.findall(text)))
    own = {"key": key, "text": text, "payload": fields, "tasks": settings["tasks"]}
    if request.key and request.data:
        from pipeline.records.files.topic_files import first_value  # pyarrow

        if type(first_value(request.data, request.key)) is int:
            own["key_type"] = "integer"
    return own


def _tickets() -> list[Path]:
    """The stream, and tickets written after it, so that every tone and wish occurs often enough to be measured."""
    folder = Path(str(pipeline.demo.__file__)).parent
    return [folder / "tickets.jsonl", folder / "tickets_extra.jsonl"]


def _newest(paths: Sequence[Path]) -> dict[str, tuple[int, bool]]:
    newest: dict[str, tuple[int, bool]] = {}
    for line in chain.from_iterable(path.read_bytes().splitlines() for path in paths):
        row = orjson.loads(line)
        if "_raw" in row:
            continue
        version = (int(row["updated_at"]) * MICROS_PER_MS, row["status"] == "deleted")
        newest[row["id"]] = max(newest.get(row["id"], version), version)
    return newest


def _empty_store() -> None:
    """Every demo starts empty: the broker in memory has forgotten the last one too."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)


def _free_port(wanted: int, note: Note) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
            note(f"port {wanted} is taken; the API uses {probe.getsockname()[1]}")
        return int(probe.getsockname()[1])
