"""Typed payload fields: how they are written in the file, what fits a type, and what becomes of what does not."""

from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.binding import ModelIdentity, bind_tasks
from pipeline.config.payload_fields import TYPES
from pipeline.config.pipeline import LimitsConfig
from pipeline.config.source import TopicConfig
from pipeline.errors import ConfigError, Reason, RecordError
from pipeline.records.payload import PayloadReader
from pipeline.records.record import Position
from tests.config_trees import parsed

HERE = Position("tickets", 0, 7, -1)


def topic(payload: Any, **settings: Any) -> TopicConfig:
    return TopicConfig(key="id", text="{body}", tasks=["urgency"], payload=payload, **settings)


def read(payload: Any, record: dict[str, Any], **settings: Any) -> tuple[dict[str, Any], list[str]]:
    return PayloadReader(topic(payload, **settings), LimitsConfig()).read(record, (), HERE)


def test_every_way_of_writing_a_field() -> None:
    fields = topic(
        {
            "short": "deep.path",
            "priority": "integer",
            "tags": "keyword[]",
            "created_at": {"path": "created", "type": "datetime"},
            "org": {"path": "org_id", "type": "keyword", "tenant": True},
            "body": {"path": "text"},
            "note": {"type": "text", "on_disk": True},
        }
    ).payload
    assert {name: (field.path, field.type, field.tenant, field.on_disk) for name, field in fields.items()} == {
        "short": ("deep.path", None, False, False),
        "priority": ("priority", "integer", False, False),
        "tags": ("tags", "keyword[]", False, False),
        "created_at": ("created", "datetime", False, False),
        "org": ("org_id", "keyword", True, False),
        "body": ("text", None, False, False),
        "note": ("note", "text", False, True),
    }
    assert topic(["a", "b.c"]).payload_fields == {"a": "a", "b.c": "b.c"}


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({"a": "string[]"}, "'string\\[\\]' is not a type"),
        ({"a": {"type": "int"}}, "keyword"),
        ({"a": {"type": "integer", "tenant": True}}, "tenant needs type keyword or uuid"),
        ({"a": {"tenant": True}}, "tenant needs type keyword or uuid"),
        ({"a": {"typ": "integer"}}, "typ"),
        ({"a": 1}, "a"),
        ([1], "payload"),
    ],
)
def test_a_field_that_cannot_be_meant_is_refused(payload: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        topic(payload)


BAD = object()
UUID_TEXT = "6f7a1c9e-2f0b-5a43-9a55-7be6a2f5c0de"


@pytest.mark.parametrize(
    ("type_name", "value", "stored"),
    [
        *(("keyword", value, value) for value in ("x", "")),
        *(("keyword", value, stored) for value, stored in ((7, "7"), (True, "true"), (1.5, BAD), ({}, BAD))),
        ("text", "some words", "some words"),
        ("uuid", UUID_TEXT.upper(), UUID_TEXT),
        ("uuid", UUID_TEXT.replace("-", ""), UUID_TEXT),
        *(("uuid", value, BAD) for value in ("x", "{" + UUID_TEXT + "}", 7)),
        *(("integer", value, 5) for value in (5, "5", 5.0)),
        *(("integer", value, BAD) for value in ("5.0", "05", 5.5, True, 2**63, "9" * 19, 2.0**60, [5])),
        ("integer", -(2**63), -(2**63)),
        *(("float", value, 5.0) for value in (5, "5", 5.0, "5e0", "5.00")),
        *(("float", value, BAD) for value in (2**53 + 1, "1e999", "nan", True, "five")),
        *(("bool", value, True) for value in (True, "true", "True", 1)),
        *(("bool", value, False) for value in (False, "false", "FALSE", 0)),
        *(("bool", value, BAD) for value in ("yes", 2, 1.0, [True])),
        *(
            ("datetime", value, value)
            for value in ("2026-01-31T08:00:00Z", "2026-01-31 08:00:00.5+01:00", "2026-01-31")
        ),
        *(("datetime", value, BAD) for value in ("2026-01-31T08:00:00", "2026-02-30", 1767225600000, "soon")),
        ("keyword[]", ["a", 1], ["a", "1"]),
        ("keyword[]", "a", ["a"]),
        ("integer[]", ["1", 2], [1, 2]),
        ("integer[]", ["1", "x"], BAD),
        ("keyword[]", [None], BAD),
        ("keyword", ["a"], BAD),
    ],
)
def test_a_value_is_converted_where_nothing_is_lost(type_name: str, value: Any, stored: Any) -> None:
    payload, dropped = read({"field": type_name, "other": "other"}, {"field": value, "other": 1})
    if stored is BAD:
        assert (payload, dropped) == ({"other": 1}, ["field"])
        with pytest.raises(RecordError, match=f"does not fit type {type_name.rstrip('[]')}") as caught:
            read({"field": type_name}, {"field": value}, on_bad_payload="dead_letter")
        assert caught.value.reason is Reason.INVALID_PAYLOAD
    else:
        assert (payload, dropped) == ({"field": stored, "other": 1}, [])
        assert type(payload["field"]) is type(stored)


@pytest.mark.parametrize("type_name", TYPES)
def test_null_fits_every_type_and_an_absent_field_is_not_stored(type_name: str) -> None:
    assert read({"field": type_name}, {"field": None}, on_bad_payload="dead_letter") == ({"field": None}, [])
    assert read({"field": type_name}, {}, on_bad_payload="dead_letter") == ({}, [])


def test_topics_that_share_a_task_store_a_field_of_one_name_with_one_type() -> None:
    other = {"key": "id", "text": "{body}", "tasks": ["urgency"]}
    topics = {"a": {**other, "payload": {"size": "integer"}}, "b": {**other, "payload": {"size": "keyword"}}}
    with pytest.raises(ConfigError, match=r"topics\.b\.payload\.size: topic 'a' stores a field of this name"):
        parsed(source__topics=topics)
    apart = {**topics, "b": {**topics["b"], "tasks": ["technical_issue"]}}
    config = parsed(source__topics=apart)
    assert [config.payload_of(task)["size"].type for task in ("urgency", "technical_issue")] == ["integer", "keyword"]
    [bound, _] = bind_tasks(config, {"null": ModelIdentity(8, {})}).values()
    assert bound.payload == config.payload_of(bound.name)
    assert hash(bound)
