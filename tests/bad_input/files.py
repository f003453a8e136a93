"""Files that cannot be what they should: given to the reader of `refract produce`, which puts rows on the topic."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.pipeline import LimitsConfig
from pipeline.config.source import TopicConfig
from pipeline.errors import ConfigError, Reason, RefractError
from pipeline.records.files.messages import Keys, Message
from pipeline.records.files.topic_files import TopicFiles
from pipeline.usecases.produce import FileMessages
from tests.bad_input.case import MARKER_SECRET, MARKER_TEXT, Case, Place, leaks, verdict
from tests.bad_input.stream import FIRST_OFFSET, URGENCY, Stream, everything_logged, good, message
from tests.unit.fake_consumer import PLACE, assign

TOPIC = TopicConfig.model_validate({"key": "id", "text": "{text}", "payload": ["team"], "tasks": ["urgency"]})
LIMITS = LimitsConfig()
ROWS = {"id": ["a", "b"], "text": [MARKER_TEXT, "second"]}
FAILED = "1 file failed, exit 1"
TEXTS = pa.array(ROWS["text"])


def produced(row: int, given: str, expected: str, write: Callable[[Path], object], name: str = "a.parquet") -> Case:
    """A file, read as `refract produce` reads it, its records sent through the pipeline."""

    def see(place: Place) -> str:
        path = place.folder / name
        write(path)
        notes: list[str] = []
        with everything_logged() as logged:
            try:
                files = TopicFiles([str(path)], TOPIC, LIMITS, Keys("id"), all_columns=True)
                found = FileMessages(files, Keys("id"), LIMITS.max_depth, notes.append)
                messages = list(found)
            except RefractError as error:
                word = "refused, exit 2" if isinstance(error, ConfigError) else "refused, exit 1"
                return verdict(word, [f"{marker} was shown" for marker in leaks(str(error) + logged())])
        outcome = [_through(place, messages), *(f"not sent: {reason}" for reason in found.rejected)]
        if found.failed:
            outcome.append(f"{len(found.failed)} file failed, exit 1")
        return verdict(", ".join(outcome), [f"{marker} was shown" for marker in leaks("".join(notes) + logged())])

    return Case(row, given, expected, see)


def _through(place: Place, messages: Sequence[Message]) -> str:
    batch = [message(sent.value, FIRST_OFFSET + n, sent.key) for n, sent in enumerate(messages)]
    batch.append(message(good(1, {}), FIRST_OFFSET + len(batch)))
    stream = Stream(place, [[assign, {PLACE: batch}]])
    stream.run(num_records=len(batch))
    letters = [str(letter.reason) for letter in stream.letters.letters]
    outcome = f"{stream.store.count(URGENCY.collection) - 1} accepted"
    return verdict(", dead letter: ".join([outcome, *letters]), stream.problems())


def table(**columns: Any) -> Callable[[Path], None]:
    """Writes columns as Parquet."""
    return lambda path: pq.write_table(pa.table(columns), path)


def _truncated(path: Path) -> None:
    table(**ROWS)(path)
    path.write_bytes(path.read_bytes()[:-20])


def _damaged(path: Path) -> None:
    """The footer is whole; the pages are not."""
    pq.write_table(pa.table({"id": [str(n) for n in range(5_000)], "text": ["x"] * 5_000}), path, compression="zstd")
    content = bytearray(path.read_bytes())
    content[200 : len(content) // 2] = b"\xa5" * (len(content) // 2 - 200)
    path.write_bytes(content)


class _Pickled(pa.ExtensionType):  # type: ignore[misc]  # pyarrow has no types
    """An extension type with metadata that a careless reader would unpickle."""

    def __init__(self) -> None:
        super().__init__(pa.string(), "py_extension_type")

    def __arrow_ext_serialize__(self) -> bytes:
        return b"cos\nsystem\n(S'touch unpickled'\ntR."

    @classmethod
    def __arrow_ext_deserialize__(cls, _storage: Any, _serialized: bytes) -> "_Pickled":
        return cls()


def _extension(path: Path) -> None:
    storage = pa.array([MARKER_TEXT, "second"])
    pq.write_table(pa.table({"id": ["a", "b"], "text": pa.ExtensionArray.from_storage(_Pickled(), storage)}), path)


def _link(path: Path) -> None:
    elsewhere = path.with_name("elsewhere.parquet")
    table(**ROWS)(elsewhere)
    path.symlink_to(elsewhere)


def _remote(place: Place) -> str:  # noqa: ARG001 - every case is given one
    try:
        TopicFiles([f"s3://user:{MARKER_SECRET}@bucket/a.parquet"], TOPIC, LIMITS, Keys("id"))
    except ConfigError as error:
        return verdict("refused, exit 2", [f"{marker} was shown" for marker in leaks(str(error))])
    return "accepted"


CASES = [
    produced(68, "no column id", "refused, exit 2", table(identifier=["a"], text=["x"])),
    produced(68, "no column text", "refused, exit 2", table(id=["a"])),
    produced(69, "string columns", "2 accepted", table(**ROWS)),
    produced(
        69, "a dictionary column", "2 accepted", table(id=ROWS["id"], text=pa.array(ROWS["text"]).dictionary_encode())
    ),
    produced(
        69, "a large_string column", "2 accepted", table(id=ROWS["id"], text=pa.array(ROWS["text"], pa.large_string()))
    ),
    produced(69, "a binary column", "2 accepted", table(id=ROWS["id"], text=pa.array([b"one", b"two"], pa.binary()))),
    produced(70, "a null id", f"1 accepted, dead letter: {Reason.NO_KEY}", table(id=["a", None], text=["x", "y"])),
    produced(70, "an id twice", "1 accepted", table(id=["a", "a"], text=["x", "y"])),
    produced(71, "no rows", "0 accepted", table(id=pa.array([], pa.string()), text=pa.array([], pa.string()))),
    produced(71, "an empty JSON Lines file", "0 accepted", lambda path: path.write_bytes(b""), "a.jsonl"),
    produced(71, "no such file", "refused, exit 2", lambda _path: None),
    produced(72, "a file cut short", f"0 accepted, {FAILED}", _truncated),
    produced(72, "a file with damaged pages", f"0 accepted, {FAILED}", _damaged),
    produced(72, "text called .parquet", f"0 accepted, {FAILED}", lambda path: path.write_text(MARKER_TEXT)),
    produced(
        72,
        "a broken line of JSON",
        f"1 accepted, not sent: {Reason.INVALID_JSON}",
        lambda path: path.write_bytes(orjson.dumps({"id": "a", "text": "x"}) + b"\n{" + MARKER_TEXT.encode()),
        "a.jsonl",
    ),
    produced(74, "a pickled extension type", "2 accepted", _extension),
    Case(77, "s3://user:secret@bucket/a.parquet", "refused, exit 2", _remote),
    produced(77, "a link to a file elsewhere: whoever types the command may read it", "2 accepted", _link),
]
