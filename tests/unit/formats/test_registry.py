"""The registry: what its answers mean, how one logs in, what is kept, and how an outage is told from a bad id."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.config.formats import SchemaRegistryConfig
from pipeline.errors import EnvironmentFault, Reason, RecordError, TransientError
from pipeline.records.schemas.registry import (
    ASK_AGAIN_S,
    MAX_REFERENCES,
    MAX_SCHEMA_BYTES,
    MAX_SCHEMAS,
    REST_S,
    Schema,
    SchemaRegistry,
    with_references,
)
from tests.certificates import key_and_certificate
from tests.registry import Registry, serve_registry

NOT_FOUND = {"error_code": 40403, "message": "Schema not found"}


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def asking(url: str, clock: Clock | None = None, **settings: Any) -> SchemaRegistry:
    return SchemaRegistry(SchemaRegistryConfig.model_validate({"url": url, **settings}), clock or Clock())


def test_a_schema_is_returned_with_its_type_and_references_and_kept(registry: Registry) -> None:
    uses = [{"name": "b.proto", "subject": "b", "version": 1}]
    registry.register("a", "text", "PROTOBUF", uses)
    registry.register("a", '"long"')
    client = asking(registry.url + "/")
    first = client.schema(1)
    assert (first.kind, first.text, first.references[0].subject) == ("PROTOBUF", "text", "b")
    assert client.schema(registry.guid(2)).text == client.version("a", 2).text == '"long"'
    asked = len(registry.asked)
    assert (client.schema(1), client.version("a", 2).kind) == (first, "AVRO")
    assert len(registry.asked) == asked


def test_the_type_of_a_schema_without_one_is_avro(registry: Registry) -> None:
    registry.answers = [(200, {"schema": '"long"'})]
    assert asking(registry.url).schema(1) == Schema("AVRO", '"long"')


def test_a_subject_is_one_step_of_the_path_whatever_it_is_called(registry: Registry) -> None:
    registry.register(":.staging:a/b c", '"long"')
    assert asking(registry.url).version(":.staging:a/b c", 1).text == '"long"'
    assert registry.asked == ["/subjects/%3A.staging%3Aa%2Fb%20c/versions/1?deleted=true"]


@pytest.mark.parametrize(
    "answer",
    [
        (500, NOT_FOUND),
        (503, b"<html>away</html>"),
        (502, b""),
        (408, b""),
        (404, b"<html>no such host</html>"),
        (404, {"message": "no route"}),
        (403, b"<html>blocked</html>"),
        (200, b"<html>sign in</html>"),
        (200, {"subject": "a"}),
        (302, b""),
        (429, {"error_code": 42901}),
    ],
)
def test_whatever_is_not_a_registrys_own_word_is_an_outage(registry: Registry, answer: tuple[int, Any]) -> None:
    registry.answers = [answer]
    with pytest.raises(TransientError, match=f"the schema registry {registry.url} answers") as outage:
        asking(registry.url).schema(1)
    assert outage.value.retry_after_s == (7.0 if answer[0] == 429 else None)


def test_a_registry_that_is_not_there_is_an_outage() -> None:
    with pytest.raises(TransientError, match="does not answer"):
        asking("http://127.0.0.1:1").schema(1)


def test_after_an_outage_nothing_is_asked_for_a_while(registry: Registry, clock: Clock) -> None:
    registry.register("a", '"long"')
    registry.answers = [(500, {})]
    client = asking(registry.url, clock)
    for _ in range(3):
        with pytest.raises(TransientError, match="answers 500"):
            client.schema(1)
    assert len(registry.asked) == 1
    clock.now_s = REST_S
    assert client.schema(1).text == '"long"'


def test_what_is_known_is_read_while_the_registry_is_away(registry: Registry) -> None:
    registry.register("a", '"long"')
    client = asking(registry.url)
    client.schema(1)
    registry.away = (500, {})
    assert client.schema(1).text == '"long"'


@pytest.mark.parametrize("answer", [(404, NOT_FOUND), (404, {"error_code": 404}), (403, {"error_code": 40301})])
def test_an_id_that_the_registry_does_not_know_or_show_costs_its_record(
    registry: Registry, answer: tuple[int, Any]
) -> None:
    registry.answers = [answer]
    with pytest.raises(RecordError) as refused:
        asking(registry.url).schema(7)
    assert refused.value.reason is Reason.UNKNOWN_SCHEMA
    assert "the schema id 7" in refused.value.detail


def test_an_unknown_id_is_asked_for_again_after_a_while(registry: Registry, clock: Clock) -> None:
    client = asking(registry.url, clock)
    for _ in range(3):
        with pytest.raises(RecordError):
            client.schema(1)
    assert len(registry.asked) == 1
    registry.register("a", '"long"')
    clock.now_s = ASK_AGAIN_S
    assert client.schema(1).text == '"long"'


def test_refused_credentials_call_a_person(registry: Registry) -> None:
    registry.answers = [(401, {"error_code": 40101})]
    with pytest.raises(EnvironmentFault, match=r"refuses the credentials \(401\)"):
        asking(registry.url).schema(1)


@pytest.mark.parametrize(
    ("settings", "sent"),
    [
        ({}, None),
        ({"username": "u", "password": "p:é"}, "Basic dTpwOsOp"),
        ({"bearer_token": "abc"}, "Bearer abc"),
    ],
)
def test_how_one_logs_in(registry: Registry, settings: dict[str, Any], sent: str | None) -> None:
    registry.register("a", '"long"')
    asking(registry.url, **settings).schema(1)
    assert registry.seen[-1].get("Authorization") == sent


def test_an_answer_that_is_too_large_costs_its_records_and_no_memory(registry: Registry) -> None:
    registry.register("a", "x" * 2 * MAX_SCHEMA_BYTES)
    with pytest.raises(RecordError) as refused:
        asking(registry.url).schema(1)
    assert refused.value.reason is Reason.UNUSABLE_SCHEMA


def test_certificates_are_verified_and_its_own_one_is_believed(tmp_path: Path) -> None:
    key, certificate = key_and_certificate(tmp_path, "localhost")
    with serve_registry((key, certificate)) as registry:
        registry.register("a", '"long"')
        with pytest.raises(TransientError, match="does not answer"):
            asking(registry.url).schema(1)
        url = registry.url.replace("127.0.0.1", "localhost")
        assert asking(url, ca_file=certificate).schema(1).text == '"long"'


def test_certificate_files_that_cannot_be_used_call_a_person(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match=r"source.schema_registry: its certificate files"):
        asking("https://localhost:1", ca_file=str(tmp_path / "absent.pem")).schema(1)


def test_what_is_kept_is_bounded() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"schema": request.url.path})

    config = SchemaRegistryConfig.model_validate({"url": "http://registry"})
    client = SchemaRegistry(config, Clock(), httpx.MockTransport(answer))
    for number in range(MAX_SCHEMAS + 10):
        assert client.schema(number).text == f"/schemas/ids/{number}"
    assert len(client._known) == 10


def test_references_are_found_with_those_of_their_own_first(registry: Registry) -> None:
    registry.register("c", '"long"')
    registry.register("b", '"int"', references=[{"name": "C", "subject": "c", "version": 1}])
    registry.register("a", '"x"', references=[{"name": "B", "subject": "b", "version": 1}])
    client = asking(registry.url)
    assert list(with_references(client, client.schema(3))) == ["C", "B"]


@pytest.mark.parametrize("rounds", [1, MAX_REFERENCES + 2])
def test_references_in_circles_and_without_end_are_refused(registry: Registry, rounds: int) -> None:
    for number in range(rounds):
        uses = [{"name": f"N{(number + 1) % rounds}", "subject": str((number + 1) % rounds), "version": 1}]
        registry.register(str(number), f'"{number}"', references=uses)
    client = asking(registry.url)
    with pytest.raises(RecordError) as refused:
        with_references(client, client.schema(1))
    assert refused.value.reason is Reason.UNUSABLE_SCHEMA


def test_references_without_a_version_are_refused(registry: Registry) -> None:
    registry.answers = [(200, {"schema": '"long"', "references": [{"name": "x"}]})]
    with pytest.raises(RecordError) as refused:
        asking(registry.url).schema(1)
    assert refused.value.reason is Reason.UNUSABLE_SCHEMA
