"""What a replayed record carries, so that it is neither newer nor another record than the first time."""

import pytest

from pipeline.config.source import TopicConfig
from pipeline.records.record import Headers, Position
from pipeline.sources.letters.letter_reader import StoredLetter
from pipeline.sources.letters.replay import Original, origin_of, replay_headers

FROM = ("refract-replayed-from", b"2:17")


def original(value: bytes | None = b"{}", headers: Headers = (), generation: int = 0) -> Original:
    position = Position("tickets", 2, 17, 1_700_000_000_000)
    letter = StoredLetter(
        position, "invalid_json", "", "", "p", 1, b"k", value, tuple(headers), False, 2, generation=generation
    )
    return Original(letter, origin_of(letter), b"k", value, headers)


def topic(**settings: object) -> TopicConfig:
    return TopicConfig.model_validate({"text": "{text}", "tasks": ["one"], **settings})


@pytest.mark.parametrize(("generation", "version"), [(0, b"17"), (3, str((3 << 40) | 17).encode())])
def test_an_offset_that_is_the_version_is_kept_with_the_generation_it_was_read_in(
    generation: int, version: bytes
) -> None:
    found = replay_headers(original(headers=[("h", b"x")], generation=generation), topic())
    assert found == [("h", b"x"), FROM, ("refract-replayed-version", version)]


def test_a_version_field_needs_no_header() -> None:
    assert replay_headers(original(), topic(version="v")) == [FROM]


def test_a_timestamp_that_is_stored_is_carried() -> None:
    stamped = topic(version="v", payload_timestamp=True)
    assert replay_headers(original(), stamped) == [FROM, ("refract-replayed-timestamp", b"1700000000000")]


def test_a_delete_by_timestamp_carries_it_because_a_replay_is_stamped_anew() -> None:
    timed = topic(version="v", version_type="time")
    assert replay_headers(original(None), timed) == [FROM, ("refract-version", b"1700000000000")]
    assert replay_headers(original(), timed) == [FROM]
    carried = [("refract-version", b"5")]
    assert replay_headers(original(None, carried), timed) == [*carried, FROM]


def test_a_replay_that_was_refused_keeps_its_first_place_and_version() -> None:
    carried = [("refract-replayed-from", b"1:3"), ("refract-replayed-version", b"3")]
    assert replay_headers(original(headers=carried), topic()) == carried
    assert original(headers=carried).place == ("tickets", 1, 3)


@pytest.mark.parametrize("value", [b"", None, b"1", b"1:x", b":", b"\xff:1", b"-1:2"])
def test_an_origin_that_is_none_is_passed_over(value: bytes | None) -> None:
    assert original(headers=[("refract-replayed-from", value)]).place == ("tickets", 2, 17)


def test_null_headers_are_left_out() -> None:
    assert replay_headers(original(headers=[("a", None), ("b", b"")]), topic(version="v")) == [("b", b""), FROM]
