"""Files that cannot be what they should, given to a backfill: refused beforehand, or told by row and by file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.backfill.rows import FragmentFault, FragmentReader
from pipeline.backfill.selection import checked_inputs
from pipeline.errors import ConfigError, Reason
from pipeline.records.files.filesystems import open_filesystem
from tests.bad_input.case import MARKER_SECRET, MARKER_TEXT, Case, Place, leaks, verdict
from tests.unit.test_backfill import config_of

Write = Callable[[Path], object]
REFUSED = "refused, exit 2"
FAILED = "1 file failed, exit 1"
GOOD = {"id": ["a", "b"], "title": [MARKER_TEXT, "second"], "v": [1, 2]}


def table(**changes: Any) -> Write:
    """Writes good columns, with these besides or instead; None leaves one out."""
    columns = {name: values for name, values in (GOOD | changes).items() if values is not None}
    return lambda path: pq.write_table(pa.table(columns), path)


def filled(row: int, given: str, expected: str, *writes: Write, meanwhile: Write | None = None) -> Case:
    """Files a.parquet, b.parquet …, read as a backfill reads them; `meanwhile` happens to the first one's file."""

    def see(place: Place) -> str:
        for number, write in enumerate(writes):
            write(place.folder / f"{'abc'[number]}.parquet")
        config = config_of(place.folder, {"max_batch_records": 1})
        shown: list[str] = []
        letters: list[str] = []
        num_rows = num_failed = 0
        try:
            fragments = checked_inputs(config, "tickets", [str(place.folder / "*.parquet")], lambda *_: None).fragments
        except ConfigError as error:
            return verdict(REFUSED, [f"{marker} was shown" for marker in leaks(str(error))])
        for fragment in fragments:
            try:
                for batch in FragmentReader(config, "tickets").batches(fragment):
                    if meanwhile is not None:
                        meanwhile(place.folder / "a.parquet")
                    num_rows += sum(delivery.record is not None for delivery in batch)
                    letters += [str(delivery.error) for delivery in batch if delivery.error]
                    shown += [delivery.detail for delivery in batch]
            except FragmentFault as error:
                num_failed += 1
                shown.append(str(error))
        outcome = [f"{num_rows} accepted", *(f"dead letter: {letter}" for letter in letters)]
        if num_failed:
            outcome.append(f"{num_failed} file failed, exit 1")
        return verdict(", ".join(outcome), [f"{marker} was shown" for marker in leaks("".join(shown))])

    return Case(row, f"backfill: {given}", expected, see)


def _cut_short(path: Path) -> None:
    table()(path)
    path.write_bytes(path.read_bytes()[:-20])


def _addressed(uri: str) -> Case:
    def see(place: Place) -> str:  # noqa: ARG001 - every case is given one
        try:
            open_filesystem(uri)
        except ConfigError as error:
            return verdict(REFUSED, [f"{marker} was shown" for marker in leaks(str(error))])
        return "accepted"

    return Case(77, f"backfill: {uri.replace(MARKER_SECRET, 'secret')}", REFUSED, see)


class _Opaque(pa.ExtensionType):  # type: ignore[misc]  # pyarrow has no types
    """A type of somebody's own."""

    def __init__(self) -> None:
        super().__init__(pa.string(), "opaque")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, _storage: Any, _serialized: bytes) -> "_Opaque":
        return cls()


def _extension(path: Path) -> None:
    storage = pa.ExtensionArray.from_storage(_Opaque(), pa.array(GOOD["title"]))
    pa.register_extension_type(_Opaque())
    try:
        table(title=storage)(path)
    finally:
        pa.unregister_extension_type("opaque")


CASES = [
    filled(68, "no column of the text", REFUSED, table(title=None)),
    filled(68, "the key's column renamed", REFUSED, table(id=None, identifier=["a", "b"])),
    filled(69, "a dictionary column", "2 accepted", table(title=pa.array(GOOD["title"]).dictionary_encode())),
    filled(69, "a large_string column", "2 accepted", table(title=pa.array(GOOD["title"], pa.large_string()))),
    filled(69, "a binary column", "2 accepted", table(title=pa.array([b"one", b"two"]))),
    filled(69, "text as numbers", REFUSED, table(title=[1, 2])),
    filled(69, "keys as numbers, key_type string", REFUSED, table(id=[1, 2])),
    filled(70, "a null id", f"1 accepted, dead letter: {Reason.NO_KEY}", table(id=["a", None])),
    filled(
        71,
        "no rows",
        "0 accepted",
        table(id=pa.array([], pa.string()), title=pa.array([], pa.string()), v=pa.array([], pa.int64())),
    ),
    filled(71, "a glob that nothing matches", REFUSED),
    filled(72, "a file cut short beside a whole one", f"2 accepted, {FAILED}", _cut_short, table()),
    filled(72, "text called .parquet", f"0 accepted, {FAILED}", lambda path: path.write_text(MARKER_TEXT)),
    filled(74, "an extension type of somebody else", "2 accepted", _extension),
    filled(75, "a second file with another schema", REFUSED, table(), table(title=None, text=["x", "y"])),
    filled(
        76,
        "a file replaced while it is read",
        f"2 accepted, {FAILED}",
        table(),
        meanwhile=table(id=["c", "d"], extra=[1, 2]),
    ),
    _addressed(f"s3://user:{MARKER_SECRET}@bucket/a.parquet"),
    _addressed(f"gs://bucket/a.parquet?access_token={MARKER_SECRET}"),
    Case(
        73,
        "backfill: a row group of 120 MB",
        "memory stays flat",
        proven_by="tests/unit/test_backfill_output.py::test_a_row_group_larger_than_the_memory_for_it_is_read_in_batches",
    ),
    Case(
        70,
        "backfill: a key twice in a file and across files",
        "the newest stays",
        proven_by="tests/unit/test_backfill_carrier.py::test_of_a_key_that_is_there_twice_the_newest_stays_and_of_equals_one",
    ),
]
