"""What was reported by people who run such pipelines, and is in no other table."""

from typing import Any

import orjson

from pipeline.errors import Reason
from pipeline.records.record import point_id
from tests.bad_input.case import MARKER_TEXT, Case, Place, verdict
from tests.bad_input.formats import ACCEPTED, HEADER, LAST, listed, read
from tests.bad_input.queries import INVALID, asked
from tests.bad_input.settings import refused
from tests.bad_input.stream import FIRST_OFFSET, PIPELINE, URGENCY, Stream, body, message
from tests.unit.fake_consumer import PLACE, assign

TICKETS = "source__topics__tickets__"
TIMED = {"version": "v", "version_type": "time"}


def _finer(place: Place) -> str:
    """Two times within a millisecond, the newer one later."""
    batch = [
        message(body(v=f"2026-01-01T00:00:00.{fraction}Z", text=text), FIRST_OFFSET + number)
        for number, (fraction, text) in enumerate((("000100", "older"), ("000900", "newer"), ("0009004", "same")))
    ]
    stream = Stream(place, [[assign, {PLACE: batch}]], topic=TIMED)
    stream.run(num_records=3)
    [point] = stream.store.retrieve(URGENCY.collection, [point_id(PIPELINE, "t", "s:a")])
    conflicts = stream.metrics.conflicts.labels("t")._value.get()
    return verdict(f"version {point.version % 10_000}, {conflicts:.0f} conflict counted", stream.problems())


def _never(place: Place) -> str:
    """A payload path that is in no record."""
    batch = [message(body(team="x"), FIRST_OFFSET + number) for number in range(1_200)]
    stream = Stream(place, [[assign, {PLACE: batch}]], topic={"payload": ["team", "teem"]})
    stream.run(num_records=len(batch))
    told = stream.logs.count("teem")
    return verdict(f"{stream.store.count(URGENCY.collection)} point, told {min(told, 1)} time", stream.problems())


def embeddings(given: str, expected: str, **fields: Any) -> Case:
    """A request of OpenAI's clients that differs from a good one in these fields."""
    sent = {"model": "urgency", "input": MARKER_TEXT, **fields}
    return asked(126, given, expected, lambda client: client.post("/v1/embeddings", json=sent))


def found(given: Any, expected: str, **topic: Any) -> Case:
    """A search by the key of a record that is not stored: it is looked for, and no more is wrong."""
    changes = {f"{TICKETS}{name}": value for name, value in topic.items()}
    sent = {"task": "urgency", "id": given}
    return asked(
        125,
        f"id: {given!r}{', ' if topic else ''}{', '.join(topic)}",
        expected,
        lambda client: client.post(
            "/v1/search", content=orjson.dumps(sent), headers={"content-type": "application/json"}
        ),
        **changes,
    )


def raw_query(given: str, expected: str, content: bytes) -> Case:
    """A body as it stands."""
    headers = {"content-type": "application/json"}
    return asked(127, given, expected, lambda client: client.post("/v1/search", content=content, headers=headers))


CASES = [
    Case(
        121,
        "two topics of one task with equal keys",
        "two points, unless both name one key space",
        proven_by="tests/unit/test_refractor.py::"
        "test_equal_keys_of_two_topics_are_two_records_unless_both_name_one_key_space",
    ),
    Case(122, "times within a millisecond", "version 900, 1 conflict counted", _finer),
    read(
        122,
        "times within a millisecond, and of more than microseconds",
        ", ".join([ACCEPTED] * 3),
        "a.csv",
        b"id,text,v\n1,a,2026-01-01T00:00:00.000100Z\n2,b,2026-01-01T00:00:00.000900Z\n"
        b"3,c,2026-01-01T00:00:00.000900999Z\n",
        version_type="time",
    ),
    Case(
        63,
        "a partition that ends in transaction markers",
        "no lag, committed to its end",
        proven_by="tests/unit/test_kafka_source.py::"
        "test_a_partition_that_ends_in_transaction_markers_does_not_lag_and_is_committed_to_its_end",
    ),
    Case(
        123,
        "modules.json names 1_Pooling, the folder is absent",
        "refused at start",
        proven_by="tests/unit/engine/test_engine_checks.py::test_a_module_that_is_named_and_not_there_is_refused",
    ),
    Case(
        124,
        "positions that begin behind the padding, and a text longer than what is left",
        "cut to what the model takes",
        proven_by="tests/unit/engine/test_engine_checks.py::"
        "test_positions_that_begin_behind_the_padding_are_never_exceeded",
    ),
    Case(
        124,
        "a text at which the model fails",
        f"dead letter: {Reason.FAILS_IN_MODEL}",
        proven_by="tests/unit/test_crashes.py::"
        "test_a_text_at_which_the_model_fails_is_dead_lettered_and_the_others_are_stored",
    ),
    Case(
        105,
        "a SCRAM user called svc,app=1",
        "logged in",
        proven_by="tests/unit/test_topic_memory.py::test_a_user_name_is_escaped_where_the_mechanism_asks_for_it",
    ),
    found("T-1", "200"),
    found("absent", "404 unknown_record"),
    found(17, "404 unknown_record", key_type="integer"),
    found(2**63, "404 unknown_record", key_type="integer"),
    found("00ff", "404 unknown_record", binary_key=True, key=None, version=None, version_type=None),
    found("", "404 unknown_record"),
    found(1.5, INVALID),
    found(True, INVALID),
    found(["a"], INVALID),
    Case(
        125,
        "integer and binary keys that are stored",
        "found, and numbers stay numbers",
        proven_by="tests/unit/test_searcher.py::"
        "test_integer_key_is_found_as_number_and_as_text_and_stays_a_number_in_hits",
    ),
    embeddings("encoding_format: null", "200", encoding_format=None),
    embeddings("encoding_format: base64", "200", encoding_format="base64"),
    embeddings("encoding_format: hex", INVALID, encoding_format="hex"),
    embeddings("2,048 inputs", "200", input=["a"] * 2_048),
    embeddings("2,049 inputs", INVALID, input=["a"] * 2_049),
    embeddings("no input", INVALID, input=[]),
    embeddings("token ids as input", INVALID, input=[1, 2]),
    embeddings("an empty text among others", "400 empty_text", input=["a", ""]),
    raw_query("a lone surrogate as the id", "400 invalid_text", b'{"task": "urgency", "id": "\\ud800"}'),
    raw_query(
        "a lone surrogate in a filter", INVALID, b'{"task": "urgency", "text": "a", "filter": {"issue": "\\ud800"}}'
    ),
    raw_query(
        "a lone surrogate among a filter's values",
        INVALID,
        b'{"task": "urgency", "text": "a", "filter": {"issue": ["a", "\\udfff"]}}',
    ),
    raw_query(
        "a lone surrogate as a filter's field",
        "400 unknown_filter",
        b'{"task": "urgency", "text": "a", "filter": {"\\ud800": 1}}',
    ),
    raw_query("a limit of 5,000 digits", INVALID, b'{"task": "urgency", "text": "a", "limit": ' + b"9" * 5_000 + b"}"),
    raw_query("an id of 4,000 digits", "404 unknown_record", b'{"task": "urgency", "id": ' + b"9" * 4_000 + b"}"),
    raw_query("a name twice", "200", b'{"task": "urgency", "text": "a", "text": "b"}'),
    raw_query("a NUL in the text", "200", b'{"task": "urgency", "text": "a\\u0000b"}'),
    raw_query("a byte order mark", "200", b'\xef\xbb\xbf{"task": "urgency", "text": "a"}'),
    Case(
        128,
        "headers of dead letters with digits that are none, or thousands of them",
        "not a number, and no other letter is lost",
        proven_by="tests/unit/test_fuzz.py::test_inputs_that_were_found_or_thought_of_do_no_harm",
    ),
    *(
        refused(129, "expected http://host:port", store={"type": "qdrant", "url": url})
        for url in ("http://[q", "http://q:99999", "http://q:grpc", "http://:6334", "http://q:0")
    ),
    *(
        refused(129, "expected host:port", source__bootstrap_servers=[broker])
        for broker in ("b:0", "b:99999", "b:kafka")
    ),
    refused(129, "names no field", **{f"{TICKETS}text": "{messages..body}"}),
    refused(129, "names no field", **{f"{TICKETS}text": "{ title }"}),
    refused(129, "the store cannot name it", **{f"{TICKETS}payload": {"": "title"}}),
    refused(129, "the store cannot name it", **{f"{TICKETS}payload": {'a"b': "title"}}),
    refused(129, "the store cannot name it", **{f"{TICKETS}payload": [r"a\\b"]}),
    refused(129, "the store cannot name it", **{f"{TICKETS}payload_headers": ["a\\b"]}),
    refused(129, "a whole number", **{f"{TICKETS}schema_version": {"field": "v", "max": "three"}}),
    refused(129, "beyond 1.8e308", limits__max_dead_letter_share=10**400),
    Case(118, "a payload path that no record of 1,200 has", "1 point, told 1 time", _never),
    listed(116, "compressed JSON Lines in a folder", "a.jsonl.gz, b.csv.bz2", ["a.jsonl.gz", "b.csv.bz2"], ""),
    read(
        14, "JSON Lines with a byte order mark", ACCEPTED, "a.jsonl", b'\xef\xbb\xbf{"id": "1", "text": "a", "v": 1}\n'
    ),
    read(14, "JSON with a byte order mark", ACCEPTED, "a.json", b'\xef\xbb\xbf[{"id": "1", "text": "a", "v": 1}]'),
    read(14, "CSV with a byte order mark", ACCEPTED, "T.CSV", b"\xef\xbb\xbf" + HEADER + LAST),
]
