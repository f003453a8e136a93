"""The whole table: what each of the 134 rows is about, and every case of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.bad_input import (
    files,
    formats,
    fragments,
    histories,
    messages,
    queries,
    reported,
    schemas,
    settings,
    texts,
    typed,
)
from tests.bad_input.case import Case, Place

TITLES = {
    title[0]: title[1]
    for title in enumerate(
        """null value with a key
null value without a key
empty value
key from a field
empty key
key that is not UTF-8
invalid JSON
truncated JSON
JSON that is no object
duplicate JSON keys
NaN and Infinity in JSON
deep nesting
integer of 10,000 digits
byte order mark
UTF-16
lone surrogate
NUL in a text
text missing
text null
text not a string
text empty or blank
text of 1 MB, of 20 MB
word of a million characters
text beyond the model's tokens
special tokens as text
placeholders as text
right-to-left, emoji, combining marks
control characters
version missing
version as a string
version negative
version not a whole number
version a truth value
version of 2^53 and more
version in the far future
same version, same content
same version, other content
older version
two versions in one batch
delete, then an older upsert
delete of an unknown key
upsert after a delete
keys that look equal
key of 1 MB
one key in two partitions
unknown task
task name that is none
reserved payload names
payload too large
payload numbers and depth
odd times
unknown fields
newer schema version
precomputed or impossible vector
odd headers
odd timestamps
corrupt batch
missing codec
decompression bomb
record of the largest size
Avro or Protobuf on a JSON topic
schema registry unknown or away
gaps in offsets
record that crashes the process
nothing but bad records
pickle as value
replay of an old dead letter
column missing or renamed
column types
null or duplicate ids
no rows, no files
truncated or foreign file
huge row group
pickled extension type
schema differs per file
file replaced while read
path outside, credentials in a URL
unknown key in the configuration
Kafka settings that lose records
group protocol of KIP-848
time-outs that contradict each other
mixed assignors
two tasks in one collection
collection of another model
Qdrant too old
API key over http
secret written in the file
variables and TLS files
duplicate group instance id
numbers out of range or of another type
model with code or pickles
model revision not pinned
template without its text
YAML tricks
topic patterns
dead-letter topic equals source
Ray address without a token
more GPUs than there are
odd bodies
odd limits
unknown task in a query
odd filters
query without a finite vector
URL in a query
wrong credentials
client gone
too many clients
injection by task name or path
store away
collection being switched
deleted points
broken rows of CSV
cells of CSV that mean a number or a truth value
compressed files
JSON arrays
names of files and folders
values of Arrow types
dots in the names of fields
payload values of another type
filters of another type
equal keys of two topics
times within a millisecond
a part of a model missing
texts at which a model fails
keys in a query
what OpenAI's clients send
odd characters and numbers in a query
numbers that are none in headers
addresses and names that cannot be meant
schema ids that are missing, unknown or of another kind
Avro that is damaged
schemas and values that are hostile
Protobuf that is damaged
Kafka keys whose schema changes""".splitlines(),
        start=1,
    )
}
"""Row -> what it is about."""


@dataclass(frozen=True)
class Result:
    """A case and what was seen; `passed` is None where nothing was tried."""

    case: Case
    seen: str
    passed: bool | None


def cases() -> list[Case]:
    """Every case, by row."""
    found = [
        *messages.CASES,
        *histories.CASES,
        *texts.CASES,
        *files.CASES,
        *fragments.CASES,
        *formats.CASES,
        *settings.CASES,
        *queries.CASES,
        *typed.CASES,
        *reported.CASES,
        *schemas.CASES,
    ]
    return sorted(found, key=lambda case: case.row)


def try_case(case: Case, folder: Path) -> str:
    """Returns what came of a case that this suite can try itself."""
    assert case.see is not None
    with pytest.MonkeyPatch.context() as patch:
        return case.see(Place(folder, patch))


def results() -> Iterator[Result]:
    """Tries every case, in order; those proven elsewhere are left for their own tests."""
    for case in cases():
        if case.see is None:
            yield Result(case, f"see {case.proven_by}", None)
            continue
        with TemporaryDirectory() as folder:
            try:
                seen = try_case(case, Path(folder))
            except Exception as error:  # noqa: BLE001 - a case that fails is a line of the table
                seen = f"{type(error).__name__}: {str(error)[:200]}"
        yield Result(case, seen, seen == case.expected)
