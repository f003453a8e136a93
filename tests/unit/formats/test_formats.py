"""The seam of formats: a topic's `format` names what turns its values into fields."""

from typing import Any

import pytest

from pipeline.config.pipeline import LimitsConfig
from pipeline.config.source import SourceConfig
from pipeline.errors import Reason, RecordError
from pipeline.records.decode import Decoders
from pipeline.records.formats import FORMATS
from pipeline.records.record import Position
from pipeline.records.schemas.part import Part
from tests.unit.decoding import body, decode


def source(*topics: str) -> SourceConfig:
    topic = {"key": "id", "text": "{text}", "tasks": ["a"]}
    return SourceConfig.model_validate(
        {
            "bootstrap_servers": ["b:1"],
            "group_id": "g",
            "topics": dict.fromkeys(topics, topic),
            "dead_letter_topic": "dead",
        }
    )


def test_another_format_needs_its_parser_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(part: Part) -> Any:
        return lambda value, headers: {
            "id": value.decode(),
            "text": f"{part.settings.setting} {headers[0][1].decode()}",
        }

    monkeypatch.setitem(FORMATS, "json", make)
    record = decode(b"T-1", headers=[("h", b"x")])
    assert (record.key, record.text) == ("s:T-1", "format x")


def test_each_topic_has_one_decoder_and_an_unknown_one_has_none() -> None:
    decoders = Decoders(source("t", "u"), LimitsConfig())
    assert decoders.of("t") is decoders.of("t") is not decoders.of("u")
    with pytest.raises(KeyError):
        decoders.of("v")


def test_depth_is_bounded_by_the_limits_of_the_configuration() -> None:
    limits = LimitsConfig.model_validate({"max_depth": 4})
    with pytest.raises(RecordError) as refused:
        Decoders(source("t"), limits).of("t").decode(None, body(a=[[[[1]]]]), Position("t", 0, 1, -1), ())
    assert refused.value.reason is Reason.TOO_DEEP
