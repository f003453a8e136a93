"""Kafka messages through the real source, decoder, refractor and worker, with a good record on every side."""

import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any

import orjson
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from pipeline.config.pipeline import LimitsConfig
from pipeline.config.source import SourceConfig
from pipeline.errors import EnvironmentFault, RecordError
from pipeline.interfaces import PointStore, Source
from pipeline.live.durability import Durability
from pipeline.live.observer import IngestObserver
from pipeline.live.refractor import Refractor
from pipeline.live.retry import Retrier
from pipeline.live.routes import Ports, Routes
from pipeline.live.worker import Loop, StreamWorker
from pipeline.metrics import IngestMetrics
from pipeline.records.decode import Decoders
from pipeline.records.record import Headers, PointIds, Position, Record, point_id
from pipeline.sources.group.kafka_source import KafkaSource
from pipeline.sources.group.member import GroupMember
from pipeline.sources.letters.dead_letters import KafkaDeadLetters
from tests.bad_input.case import MARKER_SECRET, MARKER_TEXT, Place, leaks, verdict
from tests.fakes import FakeDeadLetters, FakeEmbedder, FakeStore, FakeTokenizer, task, vector
from tests.unit.decoding import NOW_MS
from tests.unit.fake_consumer import PLACE, Group, Message, assign

URGENCY = task("urgency")
PIPELINE = "support"
PLANTED: Headers = (("authorization", f"Bearer {MARKER_SECRET}".encode()),)
FIRST_OFFSET = 10
TIMEOUT_S = 20.0


def body(**fields: Any) -> bytes:
    """A value that is good but for these fields, with both markers in it."""
    return orjson.dumps({"id": "a", "text": MARKER_TEXT, "password": MARKER_SECRET, **fields})


def message(value: bytes | None, offset: int, key: bytes | None = b"k", headers: Headers = (), **more: Any) -> Any:
    """A message as the consumer hands it over."""
    return Message("t", 0, offset, **{"timestamp": NOW_MS, **more}, key=key, value=value, headers=tuple(headers))  # type: ignore[arg-type]


def good(number: int, settings: Mapping[str, Any]) -> bytes:
    """A value that a topic of these settings takes."""
    identifier = number if settings.get("key_type") == "integer" else f"good-{number}"
    return orjson.dumps({"id": identifier, "text": f"good record {number}", "v": NOW_MS - 1_000})


class Stream:
    """A worker over scripted polls, run in a thread until everything is finished."""

    def __init__(
        self,
        place: Place,
        script: Sequence[Any],
        *,
        topic: Mapping[str, Any] | None = None,
        limits: Mapping[str, Any] | None = None,
        store: PointStore | None = None,
        source: Mapping[str, Any] | None = None,
    ) -> None:
        place.patch.setattr("pipeline.live.worker.POLL_TIMEOUT_S", 0.1)
        place.patch.setattr("pipeline.live.worker.TAKE_TIMEOUT_S", 0.01)
        place.patch.setattr("pipeline.live.retry.FIRST_WAIT_S", 0.001)
        given = {"key": "id", "text": "{text}", "payload": ["team"], "tasks": ["urgency"], **(topic or {})}
        self.settings = {name: value for name, value in given.items() if value is not None}
        self.group = Group(*[list(step) for step in script])
        self.limits = LimitsConfig.model_validate(dict(limits or {}))
        self.config = SourceConfig.model_validate(
            {
                "bootstrap_servers": ["b:1"],
                "group_id": "g",
                "topics": {"t": self.settings},
                "dead_letter_topic": "dead",
                **(source or {}),
            }
        )
        self._decoders = Decoders(self.config, self.limits, lambda: NOW_MS)
        self.store = store or FakeStore()
        self.letters = FakeDeadLetters()
        self.embedder = FakeEmbedder()
        self.metrics = IngestMetrics(CollectorRegistry())
        self.fault: BaseException | None = None
        self.logs = ""
        self._stop = Event()
        self._worker = self._make_worker()

    def run(self, num_records: int) -> None:
        """Returns when so many records are committed, or the worker has stopped by itself."""
        thread = Thread(target=self._run)
        with everything_logged() as logged:
            thread.start()
            deadline = monotonic() + TIMEOUT_S
            while thread.is_alive() and self._committed() < FIRST_OFFSET + num_records and monotonic() < deadline:
                sleep(0.001)
            self._worker.stop()
            thread.join(TIMEOUT_S)
            self.logs = logged()

    def decoder_says(self, bad: Any) -> Record | RecordError:
        """What the decoder makes of a message, to compare with what arrived."""
        decoder = self._decoders.of("t")
        try:
            return decoder.decode(bad.key, bad.value, Position("t", 0, bad.offset, bad.timestamp), bad.headers)
        except RecordError as error:
            return error

    def problems(self) -> list[str]:
        """Whatever is wrong besides the outcome: a worker that stopped, a marker where people look."""
        found = [f"the worker stopped: {type(self.fault).__name__}"] if self.fault is not None else []
        shown = self.logs + str(self.fault or "") + "".join(letter.detail for letter in self.letters.letters)
        return found + [f"{marker} was logged" for marker in leaks(shown)]

    def _committed(self) -> int:
        kept = self.group.committed.get(PLACE)
        return kept.offset if kept is not None else 0

    def _run(self) -> None:
        try:
            self._worker.run()
        except BaseException as error:  # noqa: BLE001 - told by `problems`
            self.fault = error

    def _make_worker(self) -> StreamWorker:
        tracker = self.group.tracker

        def open_source() -> Source:
            member = GroupMember(self.config, make_consumer=self.group._make_consumer)
            return KafkaSource(member, self._decoders, tracker, clock=lambda: self.group.now)

        observer = IngestObserver(self.metrics)
        ports = Ports(self.embedder, self.store, self.letters, Retrier(self._stop, lambda _: None), observer)
        routes = Routes(PointIds(PIPELINE, {"t": "t"}), {"t": [URGENCY]}, {"m": FakeTokenizer()})
        durability = Durability(self.store, [URGENCY], tracker, lambda _: None)
        refractor = Refractor(routes, ports, tracker)
        return StreamWorker(open_source, refractor, durability, observer, Loop(self.limits, 0.001, self._stop))


def outcome_of(place: Place, bad: Any, *, topic: Mapping[str, Any], limits: Mapping[str, Any]) -> str:
    """Sends good, bad, good in one poll and a good one later; tells what became of the bad one, and of the rest."""
    settings = {"key": "id", **topic}
    good_ones = [
        message(good(number, settings), offset, key=str(number).encode())
        for number, offset in ((101, FIRST_OFFSET), (102, FIRST_OFFSET + 2), (103, FIRST_OFFSET + 3))
    ]
    script = [[assign, {PLACE: [good_ones[0], bad, good_ones[1]]}, {PLACE: [good_ones[2]]}]]
    stream = Stream(place, script, topic=topic, limits=limits)
    stream.run(num_records=4)
    problems = stream.problems()
    arrived = [_stored(stream, record) for record in map(stream.decoder_says, good_ones)]
    if arrived != ["accepted"] * 3:
        problems.append(f"of the good records around it {arrived}")
    letters = [letter for letter in stream.letters.letters if letter.position.offset == bad.offset]
    if letters:
        written = KafkaDeadLetters(stream.config, PIPELINE)._message(letters[0], None)
        if len(written["value"]) > stream.limits.max_record_bytes or len(letters) > 1:
            problems.append("the dead letter is not one that a broker takes")
        return verdict(f"dead letter: {letters[0].reason}", problems)
    return verdict(_stored(stream, stream.decoder_says(bad)), problems)


def _stored(stream: Stream, record: Record | RecordError) -> str:
    if isinstance(record, RecordError):
        return "nowhere"
    found = stream.store.retrieve(URGENCY.collection, [point_id(PIPELINE, "t", record.key)], with_vectors=True)
    if not found or found[0].version != record.version:
        return "nowhere"
    if found[0].deleted:
        return "delete"
    rows = found[0].vector
    assert rows is not None
    same = bool((rows == vector("urgency", (record.text or "")[: FakeTokenizer().max_length])).all())
    return "accepted" if same else "accepted with the vector of another text"


def stops_with(stream: Stream, num_records: int) -> str:
    """Runs a stream that must end; tells its fault's class, without which it went on."""
    stream.run(num_records)
    stopped = isinstance(stream.fault, EnvironmentFault)
    shown = stream.logs + str(stream.fault or "")
    return verdict(
        "worker stops: EnvironmentFault" if stopped else f"worker: {stream.fault!r}",
        [f"{marker} was logged" for marker in leaks(shown)],
    )


@contextmanager
def everything_logged() -> Iterator[Callable[[], str]]:
    """Catches structlog before anything is hidden, and Python's own logging at every level; yields what reads it."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with capture_logs() as events:
            yield lambda: written.getvalue() + str(events)
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
