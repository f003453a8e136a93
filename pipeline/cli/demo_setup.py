"""What the demo needs before the app starts: a broker, topics, an empty store and a configuration that names them."""

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import yaml

from pipeline.cli.output import print_note
from pipeline.config.app import Config
from pipeline.config.load import load_config, read_tree
from pipeline.errors import ConfigError
from pipeline.records.files.record_files import FileRecord, Keys, count_records, keys_of, read_records

WORK = Path("var/demo")
OWN_DATA_GROUP = "refract-demo-own"


@dataclass(frozen=True, slots=True)
class Demo:
    """A demo that is ready to start."""

    path: Path
    """The configuration as it runs, for `refract search` and its like."""
    config: Config
    topic: str
    data: Path
    keys: Keys
    is_demo_data: bool
    num_records: int
    newest: dict[str, tuple[int, bool]] = field(default_factory=dict)
    """Key -> newest version and whether it is a delete: what the store must hold at the end. Demo data only."""

    def send(self, rate: float | None, stop: threading.Event) -> None:
        """Sends every record of the file. Raises like RecordProducer."""
        from pipeline.sources.client.producer import RecordProducer

        with RecordProducer(self.config.source) as producer:
            for record in self._paced(rate, stop):
                producer.send(self.topic, record.key, record.value)
            producer.flush()

    def _paced(self, rate: float | None, stop: threading.Event) -> Iterator[FileRecord]:
        began_s = time.monotonic()
        for number, record in enumerate(read_records(self.data, self.keys)):
            if stop.is_set():
                return
            if rate is not None:
                time.sleep(max(0.0, began_s + number / rate - time.monotonic()))
            yield record


def prepare(
    config: Path,
    data: Path | None,
    text: str | None,
    key: str | None,
    bootstrap_servers: str | None,
    closing: ExitStack,
) -> Demo:
    """Starts a broker unless one is named, creates the topics and writes the demo's configuration.

    Raises ConfigError for a file that cannot be used.
    """
    if not config.is_file():
        raise ConfigError(f"{config}: there is no such file here; run this in the checkout, or name it with --config")
    if (data is None) != (text is None):
        raise ConfigError('--data and --text go together, for example: --data my.csv --text "{title} {body}"')
    _empty_store()
    tree = read_tree(config)
    topic = next(iter(tree["source"]["topics"]))
    settings = tree["source"]["topics"].pop(topic)
    if data is not None:
        settings = _own_settings(settings, text or "", key)
    if bootstrap_servers:
        # Somebody's cluster: topics and a group nobody else uses, new for every run.
        topic = f"refract-demo-{int(time.time())}"
        tree["source"] |= {
            "bootstrap_servers": bootstrap_servers.split(","),
            "group_id": topic,
            "dead_letter_topic": f"{topic}.dead-letters",
        }
    else:
        from pipeline.sources.mock_broker import API_VERSION, MockBroker

        print_note("starting a broker in memory (BOOTSTRAP_SERVERS=host:port uses a real one)")
        broker = closing.enter_context(MockBroker())
        tree["source"] |= {"bootstrap_servers": [broker.bootstrap_servers], "api_version": list(API_VERSION)}
        broker.create_topics([topic, tree["source"]["dead_letter_topic"]])
    tree["source"]["topics"] = {topic: settings}
    tree["store"] = {"type": "edge", "path": str(WORK / "store")}
    tree.setdefault("api", {})["port"] = _free_port(tree.get("api", {}).get("port", 8000))
    path = WORK / "demo.yaml"
    path.write_text(
        "# Written by `refract demo`; use it while the demo runs.\n" + yaml.safe_dump(tree, sort_keys=False)
    )
    return _demo(path, topic, data, key, create=bootstrap_servers is not None)


def _demo(path: Path, topic: str, data: Path | None, key: str | None, *, create: bool) -> Demo:
    config = load_config(path)
    if create:
        from pipeline.sources.client.admin import create_topics

        create_topics(config.source, 4)
    file = data or _demo_data()
    settings = config.source.topics[topic]
    row_number = settings.key if data is not None and key is None else None
    keys = keys_of(topic, settings, key, row_number)
    newest = _newest(file) if data is None else {}
    return Demo(path, config, topic, file, keys, data is None, count_records(file), newest)


def _own_settings(settings: dict[str, Any], text: str, key: str | None) -> dict[str, Any]:
    """How rows of somebody's file are read: no versions of their own, and the embedded fields shown beside hits."""
    import re

    fields = list(dict.fromkeys(re.findall(r"\{([^{}]+)\}", text)))
    return {"key": key or "row_number", "text": text, "payload": fields, "tasks": settings["tasks"]}


def _demo_data() -> Path:
    import pipeline.demo

    return Path(str(pipeline.demo.__file__)).with_name("tickets.jsonl")


def _newest(path: Path) -> dict[str, tuple[int, bool]]:
    newest: dict[str, tuple[int, bool]] = {}
    for line in path.read_bytes().splitlines():
        row = orjson.loads(line)
        if "_raw" in row:
            continue
        version = (int(row["updated_at"]), row["status"] == "deleted")
        newest[row["id"]] = max(newest.get(row["id"], version), version)
    return newest


def _empty_store() -> None:
    """Every demo starts empty: the broker in memory has forgotten the last one too."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)


def _free_port(wanted: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
            print_note(f"port {wanted} is taken; the API uses {probe.getsockname()[1]}")
        return int(probe.getsockname()[1])
