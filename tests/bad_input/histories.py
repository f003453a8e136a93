"""What only several messages, or a failing broker, can show: which version wins, what stops the worker."""

from collections.abc import Mapping
from time import sleep
from typing import Any

import kafka.errors as kafka_errors
import numpy as np
import orjson
from qdrant_client import grpc as qdrant

from pipeline.config.store import EdgeStoreConfig
from pipeline.errors import Reason, RecordError
from pipeline.interfaces import PointStore
from pipeline.live.breaker import WINDOW_RECORDS
from pipeline.records.batches import PointBatch
from pipeline.records.record import Record, point_id
from pipeline.sources.letters.dead_letters import KafkaDeadLetters
from pipeline.stores.edge import EdgeStore
from pipeline.stores.points import checked
from pipeline.stores.wire import WireChunk, upsert_head
from tests.bad_input.case import MARKER_TEXT, Case, Place, verdict
from tests.bad_input.stream import FIRST_OFFSET, PIPELINE, URGENCY, Stream, body, good, message, stops_with
from tests.fakes import FakeStore, vector
from tests.unit.compressed import CODECS, MIB, compressed, fetched, give_back_client
from tests.unit.decoding import decode
from tests.unit.fake_consumer import PLACE, assign

VERSIONED: Mapping[str, Any] = {
    "version": "v",
    "version_type": "integer",
    "delete_when": {"field": "gone", "equals": True},
}
Step = tuple[int, str | None]
"""A version of the key `a`, and its text; None deletes."""

CORRUPT = kafka_errors.CorruptRecordError("batch at offset 12 failed crc check")


def settle(_consumer: object) -> None:
    """A poll that takes long enough for what came before it to be stored."""
    sleep(0.05)


def history(row: int, given: str, expected: str, *polls: list[Step]) -> Case:
    """Sends versions of one key, some per poll, into the embedded store; tells what stands there in the end."""

    def see(place: Place) -> str:
        store = EdgeStore(EdgeStoreConfig(type="edge", path=place.folder / "store"), PIPELINE)
        try:
            return _after(place, store, polls)
        finally:
            store.close()

    return Case(row, given, expected, see)


def _after(place: Place, store: PointStore, polls: tuple[list[Step], ...]) -> str:
    offset = FIRST_OFFSET
    script: list[Any] = [assign]
    for poll in polls:
        batch = []
        for version, text in poll:
            fields = {"v": version, **({"gone": True} if text is None else {"text": text})}
            batch.append(message(body(**fields), offset))
            offset += 1
        script += [{PLACE: batch}, {}]
    script.append({PLACE: [message(good(1, VERSIONED), offset)]})
    stream = Stream(place, [script], topic=VERSIONED, store=store)
    stream.run(num_records=offset - FIRST_OFFSET + 1)
    problems = stream.problems()
    if store.count(URGENCY.collection) == 0:
        problems.append("the good record is not there")
    found = store.retrieve(URGENCY.collection, [point_id(PIPELINE, "t", "s:a")], with_vectors=True)
    if not found:
        return verdict("nothing", problems)
    [point] = found
    if point.deleted:
        return verdict(f"deleted at {point.version}", problems)
    texts = [text for poll in polls for _, text in poll if text is not None]
    kept = [text for text in texts if point.vector is not None and np.allclose(point.vector, vector("urgency", text))]
    return verdict(f"{kept[0] if kept else '?'} at {point.version}", problems)


def broken(row: int, given: str, error: Exception, *, times: int = 1) -> Case:
    """The client fails with this error, so many times for as many consumers."""

    def see(place: Place) -> str:
        first = message(good(1, {}), FIRST_OFFSET)
        scripts: list[list[Any]] = [
            [assign, {PLACE: [first]}, settle, error],
            *([assign, error] for _ in range(times - 1)),
        ]
        return _stops_behind_the_first(Stream(place, scripts))

    return Case(row, given, "worker stops: EnvironmentFault", see)


def bomb(codec: str) -> Case:
    """The client's own reader takes two batches of this codec apart, and the second is too large for it."""

    def see(place: Place) -> str:
        give_back_client(place.patch)
        first, second = (
            compressed(codec, FIRST_OFFSET, good(1, {})),
            compressed(codec, FIRST_OFFSET + 1, bytes(8 * MIB)),
        )
        reads = (fetched(first, offset=FIRST_OFFSET), settle, fetched(second, offset=FIRST_OFFSET + 1))
        stream = Stream(place, [[assign, *reads]])
        stream.config = stream.config.model_copy(update={"max_inflated_batch_bytes": MIB})
        seen = _stops_behind_the_first(stream)
        return verdict(seen, ["the consumer was rebuilt"] if len(stream.group.consumers) > 1 else [])

    given = f"a batch of {codec} that holds 8 MiB of zeros, where 1 MiB is the bound"
    return Case(59, given, "worker stops: EnvironmentFault", see)


def _stops_behind_the_first(stream: Stream) -> str:
    seen = stops_with(stream, num_records=2)
    return seen if stream.store.count(URGENCY.collection) == 1 else f"{seen}; the record before it is not there"


def _repaired(place: Place) -> str:
    """One damaged batch, whole when it is fetched again."""
    script = [
        [assign, {PLACE: [message(good(1, {}), FIRST_OFFSET)]}, settle, CORRUPT],
        [assign, {PLACE: [message(good(2, {}), FIRST_OFFSET + 1)]}],
    ]
    stream = Stream(place, script)
    stream.run(num_records=2)
    return verdict(f"{stream.store.count(URGENCY.collection)} accepted", stream.problems())


def _gap(place: Place) -> str:
    offsets = (FIRST_OFFSET, FIRST_OFFSET + 3, FIRST_OFFSET + 9)
    script = [assign, {PLACE: [message(good(offset, {}), offset) for offset in offsets]}]
    stream = Stream(place, [script])
    stream.run(num_records=10)
    return verdict(f"{stream.store.count(URGENCY.collection)} accepted", stream.problems())


def _all_bad(place: Place) -> str:
    bad = [message(b"{", FIRST_OFFSET + number) for number in range(WINDOW_RECORDS)]
    return stops_with(Stream(place, [[assign, {PLACE: bad}]]), num_records=len(bad) + 1)


def _truncated(place: Place) -> str:
    text = MARKER_TEXT * 1_000
    stream = Stream(place, [[assign, {PLACE: [message(body(text=text), FIRST_OFFSET)]}]])
    stream.run(num_records=1)
    counted = stream.metrics.truncated_records.labels("t", "urgency")._value.get()
    seen = f"{stream.store.count(URGENCY.collection)} accepted, {counted:.0f} counted as truncated"
    return verdict(seen, stream.problems())


def _stale(place: Place) -> str:
    """An old version behind a stored newer one is finished, and counted."""
    batch = [message(body(v=version, text=f"{version}"), FIRST_OFFSET + n) for n, version in enumerate((7, 6))]
    stream = Stream(place, [[assign, {PLACE: batch[:1]}, {}, {PLACE: batch[1:]}]], topic=VERSIONED)
    stream.run(num_records=2)
    counted = stream.metrics.stale.labels("t", "urgency")._value.get()
    return verdict(f"finished, {counted:.0f} counted as stale", stream.problems())


def _not_finite(place: Place) -> str:
    return _refused_by_the_model(place, "nan_texts")


def _deadly(place: Place) -> str:
    return _refused_by_the_model(place, "deadly_texts")


def _refused_by_the_model(place: Place, kind: str) -> str:
    """A text that the fake embedder treats as of this kind, between two good ones."""
    values = [good(1, {}), body(), good(2, {})]
    stream = Stream(place, [[assign, {PLACE: [message(value, FIRST_OFFSET + n) for n, value in enumerate(values)]}]])
    setattr(stream.embedder, kind, {MARKER_TEXT})
    stream.run(num_records=3)
    problems = stream.problems()
    if stream.store.count(URGENCY.collection) != 2:
        problems.append("the good records are not there")
    return verdict(f"dead letter: {stream.letters.letters[0].reason}", problems)


def _two_partitions(place: Place) -> str:
    """The newer version lies in the other partition and comes first."""
    newer = message(body(v=9, text="newer"), FIRST_OFFSET)._replace(partition=1)
    older = message(body(v=8, text="older"), FIRST_OFFSET)
    store = FakeStore()
    for first in (newer, older):
        # Two members of the group, one after the other: each holds one of the partitions.
        stream = Stream(place, [[assign, {PLACE: [first._replace(partition=0)]}]], topic=VERSIONED, store=store)
        stream.run(num_records=1)
        if problems := stream.problems():
            return verdict("", problems)
    [point] = store.retrieve(URGENCY.collection, [point_id(PIPELINE, "t", "s:a")])
    return f"version {point.version}"


def _conflict(place: Place) -> str:
    batch = [message(body(v=7, text=text), FIRST_OFFSET + n) for n, text in enumerate(("first", "second", "first"))]
    stream = Stream(place, [[assign, {PLACE: batch}]], topic=VERSIONED)
    stream.run(num_records=3)
    counted = stream.metrics.conflicts.labels("t")._value.get()
    return verdict(f"{counted:.0f} counted as a conflict", stream.problems())


def _scattered(place: Place) -> str:
    """Each poll brings the key from both partitions."""
    offsets = range(FIRST_OFFSET, FIRST_OFFSET + 4)
    batch = [message(body(v=offset), offset)._replace(partition=offset % 2) for offset in offsets]
    stream = Stream(place, [[assign, {PLACE: batch[:2]}, settle, {PLACE: batch[2:]}]], topic=VERSIONED)
    stream.run(num_records=4)
    counted = stream.logs.count("One key comes from two partitions")
    named = "partitions" in stream.logs and "[0, 1]" in stream.logs
    return verdict(f"{counted} warning, naming partitions 0 and 1: {named}", stream.problems())


def _largest(place: Place) -> str:
    """A record as large as a topic takes by default: its dead letter has to fit there too."""
    value = body(text={}, filler="x" * 1_000_000)
    stream = Stream(place, [[assign, {PLACE: [message(value, FIRST_OFFSET)]}]])
    stream.run(num_records=1)
    [letter] = stream.letters.letters
    written = KafkaDeadLetters(stream.config, PIPELINE)._message(letter, None)
    shortened = orjson.dumps(dict(written["headers"])["refract.shortened"].decode()) == b'"true"'
    fits = len(written["value"]) < 100_000
    return verdict(f"dead letter: {letter.reason}, shortened {shortened}, fits {fits}", stream.problems())


def _deepest(_place: Place) -> str:
    """The deepest payload the decoder takes, whatever `max_depth`: a server must be able to read it."""
    counts = []
    for opening, closing in ((b"[", b"]"), (b'{"n":', b"}")):
        for depth in range(60, 0, -1):
            value = b'{"id":"a","text":"x","team":' + opening * depth + b"1" + closing * depth + b"}"
            record = decoded(value)
            if record is not None:
                request = qdrant.UpsertPoints.FromString(_on_the_wire(record))
                counts.append(f"{depth} levels, {len(request.points)} point")
                break
    return "; ".join(counts)


def decoded(value: bytes) -> Record | None:
    """The record with the deepest `max_depth`, or None."""
    try:
        return decode(value, limits={"max_depth": 500})
    except RecordError:
        return None


def _on_the_wire(record: Record) -> bytes:
    vectors = np.ones((1, 4), np.float32)
    ids = np.frombuffer(point_id(PIPELINE, "t", record.key), np.uint8).reshape(1, 16)
    batch = PointBatch(ids, np.ones(1, np.int64), np.zeros(1, np.bool_), [record.payload], {"c": vectors})
    return WireChunk(checked(batch), slice(0, 1)).upsert(upsert_head("c", strong=False), vectors)


CASES = [
    Case(24, "a text of 15,000 tokens, the model takes 1,000", "1 accepted, 1 counted as truncated", _truncated),
    history(36, "version 7 twice, the same text", "same at 7", [(7, "same")], [(7, "same")]),
    history(37, "version 7 twice, in two polls, different texts", "first at 7", [(7, "first")], [(7, "second")]),
    history(37, "version 7 twice in one poll, different texts", "first at 7", [(7, "first"), (7, "second")]),
    Case(37, "version 7 twice in one poll, other texts: what the metrics say", "1 counted as a conflict", _conflict),
    history(38, "version 7, later 6", "new at 7", [(7, "new")], [(6, "old")]),
    Case(38, "version 7, later 6: what the metrics say", "finished, 1 counted as stale", _stale),
    history(39, "versions 7 and 8 in one poll", "new at 8", [(7, "old"), (8, "new")]),
    history(39, "versions 8 and 7 in one poll", "new at 8", [(8, "new"), (7, "old")]),
    history(40, "deleted at 9, later an upsert of 8", "deleted at 9", [(7, "x")], [(9, None)], [(8, "late")]),
    history(40, "deleted at 9 and an upsert of 8 in one poll", "deleted at 9", [(9, None), (8, "late")]),
    history(41, "a delete of a key nobody stored, later an older upsert", "deleted at 5", [(5, None)], [(4, "late")]),
    history(42, "deleted at 9, later an upsert of 10", "back at 10", [(9, None)], [(10, "back")]),
    Case(45, "one key in two partitions, the older version later", "version 9", _two_partitions),
    Case(45, "one key in two partitions in one poll, twice", "1 warning, naming partitions 0 and 1: True", _scattered),
    Case(50, "the deepest payload, as a server gets it", "23 levels, 1 point; 23 levels, 1 point", _deepest),
    Case(54, "an embedding of NaN from the model", f"dead letter: {Reason.INVALID_EMBEDDING}", _not_finite),
    broken(57, "a batch with a wrong checksum, however often it is fetched", CORRUPT, times=9),
    Case(57, "a batch with a wrong checksum, whole when fetched again", "2 accepted", _repaired),
    broken(58, "a batch in a codec the client has not", kafka_errors.UnsupportedCodecError("zstd")),
    *map(bomb, CODECS),
    Case(
        60,
        "a bad record of 1 MB",
        f"dead letter: {Reason.TEXT_NOT_A_STRING}, shortened True, fits True",
        _largest,
    ),
    Case(63, "offsets 10, 13 and 19", "3 accepted", _gap),
    Case(64, "a text that kills the embedder's process", f"dead letter: {Reason.CRASHES_WORKER}", _deadly),
    Case(65, "1,000 records, all of them bad", "worker stops: EnvironmentFault", _all_bad),
    history(67, "a dead letter of version 6 sent again after 7", "new at 7", [(7, "new")], [(6, "replayed")]),
    broken(89, "a second member with the same group_instance_id", kafka_errors.FencedInstanceIdError()),
]
