"""What `check` and the configuration say about formats before anything is read."""

import builtins
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.advice import file_faults
from pipeline.config.load import SECRETS
from pipeline.errors import ConfigError
from pipeline.usecases.check import CheckReport, FaultKind
from pipeline.usecases.check_formats import check_formats
from tests.config_trees import parsed
from tests.registry import Registry
from tests.unit.formats.messages import decoder
from tests.unit.formats.test_avro import schema_of
from tests.unit.formats.test_protobuf import registered_as_text

TOPIC: dict[str, Any] = {"key": "id", "text": "{text}", "tasks": ["urgency"]}


def checked(registry: Registry | None, *, offline: bool = False, **topic: Any) -> CheckReport:
    settings = {name: value for name, value in {**TOPIC, **topic}.items() if value is not None}
    changes: dict[str, Any] = {"source__topics": {"tickets": settings}}
    if registry is not None:
        changes["source__schema_registry"] = {"url": registry.url}
    report = CheckReport("p")
    check_formats(parsed(**changes), report, offline=offline)
    return report


def messages(report: CheckReport) -> list[str]:
    return [fault.message for fault in report.faults]


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        ({"format": "avr"}, "expected one of json, json_schema, avro, protobuf, string. Did you mean 'avro'?"),
        ({"format": "avro"}, "topics.t.format: avro needs schemas: set schema_registry.url, or topics.t.schema_file"),
        ({"kafka_key": "protobuf"}, "topics.t.kafka_key: protobuf needs schemas"),
        ({"schema_file": "x.avsc"}, "schema_file needs format: avro or protobuf, found format: json"),
        ({"key_schema_file": "x.avsc"}, "key_schema_file needs kafka_key: avro or protobuf, found no kafka_key"),
        ({"format": "avro", "schema_file": "x", "message": "m"}, "message names a message of schema_file"),
        ({"format": "string"}, "the value is one text, named value, so there is no field 'text'"),
        ({"format": "string", "text": "{value}"}, "there is no field 'id'"),
        ({"key": []}, "several fields that are one key are a list of paths"),
        ({"key": ["a", "a"]}, "names a field twice"),
        ({"key": ["a", "b."]}, "a field path is names joined by single dots"),
        ({"key": ["a", "b"], "key_type": ["string"]}, "as many as `key` has fields"),
        ({"key": "a", "key_type": ["string", "integer"]}, "as many as `key` has fields"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused_with_what_is_missing(topic: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parsed(source__topics={"t": {**TOPIC, **topic}})
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"username": "u"}, "username and password go together"),
        ({"username": "u", "password": "p", "bearer_token": "t"}, "two ways to log in"),
        ({"cert_file": "x"}, "cert_file and key_file go together"),
        ({"url": "http://u:p@registry"}, "without user or password"),
    ],
)
def test_a_registry_is_described_completely_and_without_secrets_in_its_address(
    settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        parsed(source__schema_registry={"url": "http://registry", **settings})
    assert said in str(refused.value)


def test_secrets_of_the_registry_stand_in_no_file_and_in_no_dump() -> None:
    config = parsed(source__schema_registry={"url": "http://r", "username": "u", "password": "hunter2"})
    assert "hunter2" not in repr(config) + config.model_dump_json()
    assert {f"source.schema_registry.{name}" for name in ("password", "bearer_token", "key_password")} <= set(SECRETS)


def test_certificate_files_of_the_registry_are_looked_at(tmp_path: Path) -> None:
    section = {"url": "https://r", "ca_file": str(tmp_path / "a.pem"), "cert_file": "b.pem", "key_file": "c.key"}
    found = file_faults(parsed(source__schema_registry=section))
    assert [line.split(":")[0] for line in found] == [
        "source.schema_registry.ca_file",
        "source.schema_registry.cert_file, key_file",
    ]


def test_paths_are_compared_with_the_newest_schema_of_the_topics_subject(registry: Registry) -> None:
    registry.register("tickets-value", json.dumps(schema_of()))
    registry.register("tickets-value", json.dumps(schema_of(("title", ["null", "string"]), ("at", "long"))))
    report = checked(registry, format="avro", text="{titel}\n{text}", version="when", payload={"x": "at.y", "at": "at"})
    assert [(fault.kind, fault.message) for fault in report.faults] == [
        (
            FaultKind.CONFIG,
            (
                "source.topics.tickets: version: the newest schema of tickets-value has no field 'when'. "
                "Fields: at, id, text, title"
            ),
        ),
        (
            FaultKind.CONFIG,
            (
                "source.topics.tickets: text: the newest schema of tickets-value has no field 'titel'. "
                "Did you mean 'title'? Fields: at, id, text, title"
            ),
        ),
    ]
    assert report.advice == ["payload: the newest schema of tickets-value has no field 'at.y'."]
    assert checked(registry, format="avro", version="at").ok


def test_paths_lead_through_records_lists_maps_and_unions(registry: Registry) -> None:
    note = {"type": "record", "name": "Note", "fields": [{"name": "body", "type": "string"}]}
    schema = schema_of(
        ("notes", {"type": "array", "items": note}),
        ("by", {"type": "map", "values": "Note"}),
        ("one", ["null", "Note"]),
    )
    registry.register("tickets-value", json.dumps(schema))
    good = "{notes.0.body} {by.anybody.body} {one.body}"
    assert checked(registry, format="avro", text=good).ok
    for path in ("notes.0.bdy", "by.anybody.bdy", "one.bdy"):
        [fault] = messages(checked(registry, format="avro", text=f"{{{path}}}"))
        assert f"has no field {path!r}. Did you mean 'body'?" in fault


def test_paths_of_a_message_are_checked_too(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "t.proto"
    path.write_text(
        'syntax = "proto3"; import "google/protobuf/struct.proto"; message T { string id = 1; string text = 2;'
        " repeated T parts = 3; map<string, T> by = 4; google.protobuf.Struct open = 5; }"
    )
    by_file: dict[str, Any] = {"format": "protobuf", "schema_file": str(path)}
    assert checked(None, text="{parts.0.text} {by.x.text} {open.any.thing} {by.x} {parts.1}", **by_file).ok
    [fault] = messages(checked(None, text="{parts.0.txt}", **by_file))
    assert "t.proto has no field 'parts.0.txt'. Did you mean 'text'?" in fault
    [fault] = messages(checked(None, text="{text.x}", **by_file))
    assert "has no field 'text.x'" in fault
    registered_as_text(registry)  # a file of many messages says nothing before a record is seen
    assert checked(registry, format="protobuf", text="{absent}").ok


def test_a_registry_that_is_away_is_unreachable_and_a_subject_that_is_not_there_is_advice(registry: Registry) -> None:
    [advice] = checked(registry, format="avro").advice
    assert "the registry has no subject tickets-value" in advice
    registry.away = (503, {})
    [fault] = checked(registry, format="avro").faults
    assert (fault.kind, "answers 503" in fault.message) == (FaultKind.UNREACHABLE, True)
    registry.asked.clear()
    report = checked(registry, format="avro", offline=True)
    assert (report.ok, report.skipped, registry.asked) == (True, ["schema registry (--offline)"], [])


def test_a_schema_that_cannot_be_used_is_a_fault(registry: Registry, tmp_path: Path) -> None:
    registry.register("tickets-value", "{")
    [fault] = messages(checked(registry, format="avro"))
    assert fault == "source.topics.tickets: the newest schema of tickets-value: the schema is not JSON"
    [fault] = messages(checked(None, format="avro", schema_file=str(tmp_path / "absent.avsc")))
    assert "absent.avsc cannot be read" in fault


@pytest.mark.parametrize(("encoding", "package"), [("avro", "fastavro"), ("protobuf", "grpc_tools")])
def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, registry: Registry, encoding: str, package: str
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name in {package, f"pipeline.records.schemas.{encoding}"}:
            raise ModuleNotFoundError(name=package)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=rf"format: {encoding} needs the package {package}: .*refract\[{encoding}\]"):
        decoder(registry, format=encoding)


def test_rows_of_files_are_sent_as_json_only(registry: Registry) -> None:
    from pipeline.usecases.produce import ProduceRequest, produce  # noqa: PLC0415 - beside its only use

    class Opened:
        config = parsed(
            source__schema_registry={"url": registry.url}, source__topics={"tickets": {**TOPIC, "kafka_key": "avro"}}
        )

    opened: Any = Opened()
    with pytest.raises(ConfigError, match=r"source.topics.tickets.kafka_key: avro: rows are sent as JSON only"):
        produce(opened, ProduceRequest("rows.csv"), lambda *_: None)
