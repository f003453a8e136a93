"""Odd files of every format: given to backfill, produce, verify --input and plan, which must make the same of them."""

import bz2
import gzip
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.backfill.inputs import list_inputs
from pipeline.errors import ConfigError, Reason
from tests.bad_input.case import MARKER_TEXT, Case, Place, leaks, verdict
from tests.unit.file_verbs import agreed, config_of, outcomes, rejects

Write = Callable[[Path], object]
HEADER = b"id,text,v\n"
LAST = b"9,last,9\n"
ACCEPTED = "accepted"


def read(row: int, given: str, expected: str, name: str, write: bytes | Write, **topic: Any) -> Case:
    """A file, read by every verb; the rest of `topic` changes the topic's configuration."""

    def see(place: Place) -> str:
        path = place.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(write, bytes):
            path.write_bytes(write)
        else:
            write(path)
        config = config_of(**({"version": "v", "payload": ["x"]} | topic))
        found = agreed(outcomes(path, config))
        shown = "".join(rejects(path, config))
        return verdict(told(found), [f"{marker} was shown" for marker in leaks(shown)])

    return Case(row, f"every verb: {given}", expected, see)


def told(found: Sequence[Any]) -> str:
    """What became of the rows, in order, as words."""
    return ", ".join(each if isinstance(each, str) else "deleted" if each[2] is None else ACCEPTED for each in found)


def listed(row: int, given: str, expected: str, files: Sequence[str], named: str) -> Case:
    """Some names in a folder, and the input that is given."""

    def see(place: Place) -> str:
        for name in files:
            path = place.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(HEADER + LAST)
        try:
            found = list_inputs([f"{place.folder}/{named}"])
        except ConfigError:
            return "refused, exit 2"
        names = [str(Path(part.uri).relative_to(place.folder)) for part in found.parts]
        return f"{', '.join(names)}{'; told what is left out' if found.left_out else ''}"

    return Case(row, f"{given}: {named}", expected, see)


def column(values: Any) -> Write:
    """Parquet with a column x beside good ones."""

    def write(path: Path) -> None:
        numbers = range(len(values))
        columns = {"id": [str(n) for n in numbers], "text": [MARKER_TEXT] * len(values), "v": list(numbers)}
        pq.write_table(pa.table({**columns, "x": values}), path)

    return write


def days(*numbers: int) -> Any:
    """Dates by their days since 1970."""
    return pa.array(numbers, pa.int32()).cast(pa.date32())


MARKED = MARKER_TEXT.encode()
NINE = f"{ACCEPTED}, {Reason.INVALID_ROW}, {ACCEPTED}"
DELETED = {"delete_when": {"field": "deleted", "equals": True}}
LONG = {"limits": {"max_record_bytes": 1_048_576}}

CASES = [
    *(
        read(112, given, NINE, "a.csv", HEADER + b"1,a,1\n" + bad + b"\n" + LAST)
        for given, bad in (
            ("a row with a field less", b"2," + MARKED),
            ("a row with a field more", b"2," + MARKED + b",2,more"),
            ("a row in latin-1", b"2," + MARKED + b"\xe9,2"),
            ("a quote that is never closed", b'2,"' + MARKED + b",2"),
            ("text behind a closing quote", b'2,"' + MARKED + b'"x,2'),
        )
    ),
    read(
        112,
        "a field of 3 MB",
        f"{Reason.RECORD_TOO_LARGE}, {ACCEPTED}",
        "a.csv",
        HEADER + b"1," + b"x" * 3_000_000 + b",1\n" + LAST,
        **LONG,
    ),
    read(
        112,
        "a quoted CRLF in every place of the reader's blocks",
        ", ".join([ACCEPTED] * 9_000),
        "a.csv",
        HEADER
        + b'1,"first\r\nsecond line of a text that repeats and repeats and repeats and repeats it",1\r\n' * 9_000
        + b"",
    ),
    read(112, "a header in UTF-16", "failed", "a.csv", "id,text,v\n1,a,1\n".encode("utf-16")),
    read(112, "semicolons instead of commas", "refused", "a.csv", b"id;text;v\n1;a;1\n"),
    *(
        read(
            113,
            f"a version of {cell!r}, version_type integer",
            expected,
            "a.csv",
            HEADER + f"1,a,{cell}\n".encode(),
            version_type="integer",
        )
        for cell, expected in (
            ("--5", str(Reason.INVALID_VERSION)),
            ("\u00b2", str(Reason.INVALID_VERSION)),
            ("007", ACCEPTED),
            ("", str(Reason.VERSION_MISSING)),
        )
    ),
    *(
        read(
            113,
            f"a key of {cell}, key_type integer",
            expected,
            "a.csv",
            HEADER + f"{cell},a,1\n".encode(),
            key_type="integer",
        )
        for cell, expected in (
            ("1234567890123456789", ACCEPTED),
            ("9223372036854775808", ACCEPTED),
            ("18446744073709551616", str(Reason.INVALID_KEY)),
            ("--5", str(Reason.INVALID_KEY)),
        )
    ),
    read(
        113,
        "deleted true, FALSE and maybe",
        f"deleted, {ACCEPTED}, {Reason.INVALID_ROW}",
        "a.csv",
        b"id,text,v,deleted\n1,a,1,true\n2,b,2,FALSE\n3,c,3,maybe\n",
        **DELETED,
    ),
    read(113, "a folder deleted=true", "deleted", "deleted=true/a.csv", HEADER + LAST, **DELETED),
    read(
        113,
        "a column of 0 and 1, deleted when true",
        "refused",
        "a.parquet",
        column(pa.array([0, 1], pa.int8())),
        delete_when={"field": "x", "equals": True},
    ),
    *(
        read(114, f"{name}", ACCEPTED, name, compress(HEADER + LAST))
        for name, compress in (("a.csv.gz", gzip.compress), ("A.CSV.BZ2", bz2.compress))
    ),
    read(
        114,
        "gzip cut short",
        f"{ACCEPTED}, failed",
        "a.jsonl.gz",
        gzip.compress(b'{"id": "1", "text": "a", "v": 1}\n' + b" " * 3_000_000)[:-20],
    ),
    read(114, "text called .csv.zst", "failed", "a.csv.zst", MARKED),
    *(read(114, "no bytes", "failed", name, b"") for name in ("a.csv.gz", "a.json.zst", "a.parquet.bz2")),
    read(
        115,
        "a value whose string is not closed",
        f"{ACCEPTED}, {Reason.INVALID_JSON}, {ACCEPTED}",
        "a.json",
        b'[\n{"id": "1", "text": "a", "v": 1},\n{"id": "' + MARKED + b',\n{"id": "3", "text": "c", "v": 3}\n]',
    ),
    read(
        115,
        "values that are not objects",
        f"{Reason.NOT_AN_OBJECT}, {Reason.NOT_AN_OBJECT}",
        "a.json",
        b'[1, "' + MARKED + b'"]',
    ),
    read(
        115,
        "cut short",
        f"{ACCEPTED}, {Reason.INVALID_JSON}, failed",
        "a.json",
        b'[{"id": "1", "text": "a", "v": 1}, {"id": "' + MARKED,
    ),
    read(
        115,
        "objects one after another",
        f"{ACCEPTED}, {ACCEPTED}",
        "a.json",
        b'{"id": "1", "text": "a", "v": 1}\n{"id": "2", "text": "b", "v": 2}',
    ),
    listed(116, "a name like a glob", "data[1].csv", ["data[1].csv", "data1.csv"], "data[1].csv"),
    listed(116, "upper case", "T.CSV", ["T.CSV"], "T.CSV"),
    listed(116, "other files in a folder", "a.csv; told what is left out", ["a.csv", "notes.txt"], ""),
    listed(116, "no file that is read in a folder", "refused, exit 2", ["notes.txt"], ""),
    read(116, "the folder of a null partition", ACCEPTED, "x=__HIVE_DEFAULT_PARTITION__/a.csv", HEADER + LAST),
    read(117, "a date of the year 10000", NINE, "a.parquet", column(days(0, 2_932_897, 0))),
    read(117, "bytes that are not UTF-8", NINE, "a.parquet", column([b"a", b"\xff", b"b"])),
    read(
        117,
        "a string_view column",
        f"{ACCEPTED}, {ACCEPTED}",
        "a.parquet",
        column(pa.array(["a", None]).cast(pa.string_view())),
    ),
    *(
        read(
            117, f"nested {kind}", f"{ACCEPTED}, {ACCEPTED}", "a.parquet", column(pa.array([[1], None], pa.list_(kind)))
        )
        for kind in (pa.timestamp("ns"), pa.timestamp("us", "Z"), pa.time64("ns"), pa.duration("ns"))
    ),
    read(
        117,
        "a key twice in a map",
        f"{Reason.DUPLICATE_FIELD}, {ACCEPTED}",
        "a.parquet",
        column(pa.array([[("a", 1), ("a", 2)], []], pa.map_(pa.string(), pa.int64()))),
    ),
    read(
        118,
        "a field with a dot in its name",
        ACCEPTED,
        "a.jsonl",
        b'{"id": "1", "v": 1, "service.name": "a"}',
        text="{service.name}",
    ),
    read(118, "the same, quoted", ACCEPTED, "a.csv", b"id,v,service.name\n1,1,a\n", text='{"service.name"}'),
]
