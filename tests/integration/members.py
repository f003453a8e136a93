"""Members of a consumer group for tests: a source and a tracker in a loop, in this process or in one of its own."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self

from pipeline.config.pipeline import LimitsConfig
from pipeline.config.source import SourceConfig
from pipeline.errors import TransientError
from pipeline.live.offsets import OffsetTracker
from pipeline.records.decode import Decoders
from pipeline.records.record import Delivery, Partition
from pipeline.sources.client.producer import RecordProducer
from pipeline.sources.group.kafka_source import KafkaSource
from pipeline.sources.group.member import GroupMember

POLL_S = 0.05


def source_config(bootstrap_servers: str, topic: str, group: str | None = None, **changes: Any) -> SourceConfig:
    """A configuration with short time-outs. `topic_changes` go into the topic's section, the rest into the source's."""
    topic_changes = changes.pop("topic_changes", {})
    tree = {
        "bootstrap_servers": [bootstrap_servers],
        "group_id": group or f"group-of-{topic}",
        "topics": {topic: {"key": "id", "text": "{text}", "tasks": ["topic"], **topic_changes}},
        "dead_letter_topic": f"{topic}-dead",
        "session_timeout_ms": 3_000,
        "heartbeat_interval_ms": 300,
        **changes,
    }
    return SourceConfig.model_validate(tree)


def produce(config: SourceConfig, topic: str, records: Iterable[tuple[bytes | None, bytes | None]]) -> None:
    """Writes records and waits for them."""
    with RecordProducer(config) as producer:
        for key, value in records:
            producer.send(topic, key, value)
        producer.flush()


def texts(first: int, last: int) -> list[tuple[bytes, bytes]]:
    """Records `first` to `last - 1`: key k<i>, text t<i>."""
    return [(f"k{i}".encode(), json.dumps({"id": f"k{i}", "text": f"t{i}"}).encode()) for i in range(first, last)]


def wait_until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Returns when the condition holds; fails the test when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {timeout_s} s")
        time.sleep(0.02)


class Reader:
    """A source driven by hand, with its tracker."""

    def __init__(self, config: SourceConfig, instance: int = 0, **options: Any) -> None:
        self.tracker = OffsetTracker()
        self.source = KafkaSource(
            GroupMember(config, str(instance), **options), Decoders(config, LimitsConfig()), self.tracker
        )

    def read(self, count: int, timeout_s: float = 20.0) -> list[Delivery]:
        """Polls until `count` deliveries have come."""
        found: list[Delivery] = []

        def enough() -> bool:
            found.extend(self.source.poll(POLL_S))
            return len(found) >= count

        wait_until(enough, timeout_s)
        return found

    def poll_for(self, seconds: float) -> list[Delivery]:
        """Polls for a time and returns what came."""
        found: list[Delivery] = []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found += self.source.poll(POLL_S)
        return found

    def finish(self, deliveries: Iterable[Delivery]) -> None:
        """Stored and flushed at once."""
        self.tracker.finish(delivery.receipt for delivery in deliveries)
        self.tracker.secure(self.tracker.advance())

    def commit(self, seconds: float = 0.4) -> list[Delivery]:
        """Commits and polls until the answer must have come."""
        self.source.commit()
        return self.poll_for(seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.source.close()


class Member(Thread):
    """A worker loop in a thread: everything that comes is finished at once, unless `hold` says otherwise."""

    def __init__(self, config: SourceConfig, instance: int, hold: Callable[[Delivery], bool] = lambda _: False) -> None:
        super().__init__(daemon=True)
        self.reader = Reader(config, instance)
        self.deliveries: list[Delivery] = []
        self.failure: BaseException | None = None
        self._hold = hold
        self._stop_asked = Event()
        self.start()

    def run(self) -> None:
        try:
            while not self._stop_asked.is_set():
                try:
                    arrived = self.reader.source.poll(POLL_S)
                except TransientError:
                    time.sleep(POLL_S)
                    continue
                self.deliveries += arrived
                self.reader.finish(delivery for delivery in arrived if not self._hold(delivery))
                self.reader.source.commit()
        except BaseException as error:  # noqa: BLE001 - the test asks for it
            self.failure = error
        finally:
            self.reader.source.close()

    @property
    def held(self) -> frozenset[Partition]:
        return self.reader.tracker.held()

    def stop(self) -> None:
        self._stop_asked.set()
        self.join(20)
        assert not self.is_alive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()


def positions(deliveries: Iterable[Delivery]) -> list[tuple[int, int]]:
    """Partition and offset of each delivery."""
    return [(delivery.position.partition, delivery.position.offset) for delivery in deliveries]


def run_process(tree: Mapping[str, Any], journal: Path) -> None:
    """A member in this process that finishes and commits everything and writes what it sees, until it is killed."""
    reader = Reader(SourceConfig.model_validate(tree), instance=int(tree["client_id"].rsplit("-", 1)[1]))
    with journal.open("a", buffering=1) as lines:
        while True:
            arrived = reader.source.poll(POLL_S)
            reader.finish(arrived)
            reader.source.commit()
            held = sorted(partition.number for partition in reader.tracker.held())
            lines.write(json.dumps({"at": time.time(), "held": held, "read": positions(arrived)}) + "\n")


if __name__ == "__main__":
    run_process(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
