"""The group's memory of its topics, and the tokens it connects with."""

from typing import Any

import httpx
import kafka.errors as kafka_errors
import pytest
from kafka import OffsetAndMetadata, TopicPartition

from pipeline.config.security import SecurityConfig
from pipeline.config.source import SourceConfig
from pipeline.records.record import Witness
from pipeline.sources.client.connection import client_settings
from pipeline.sources.client.oauth import ClientCredentials
from pipeline.sources.group.memory import REFRESH_S, RETRY_S, TopicMemory
from pipeline.sources.group.positions import Mark

PLACE = TopicPartition("dead", 0)
FIRST, SECOND = Mark("id-1", 4, 4, 0), Mark("id-2", 2, 2, 1)


class FakeConsumer:
    def __init__(self) -> None:
        self.pages: dict[TopicPartition, Any] = {}
        self.failure: Exception | None = None
        self.num_writes = 0

    def committed(self, place: TopicPartition, **_options: Any) -> Any:
        if self.failure is not None:
            raise self.failure
        return self.pages.get(place)

    def partitions_for_topic(self, _topic: str) -> set[int]:
        return {0}

    def commit(self, offsets: dict[TopicPartition, Any], timeout_ms: int) -> None:
        assert timeout_ms
        self.num_writes += 1
        if self.failure is not None:
            raise self.failure
        self._take(offsets)

    def commit_async(self, offsets: dict[TopicPartition, Any], callback: Any) -> None:
        self.num_writes += 1
        if self.failure is None:
            self._take(offsets)
        callback(offsets, self.failure)

    def _take(self, offsets: dict[TopicPartition, Any]) -> None:
        assert all(len(offset.metadata.encode()) <= 4_096 for offset in offsets.values()), "as brokers ask for"
        self.pages |= offsets


class Bench:
    def __init__(self) -> None:
        self.now = 0.0
        self.consumer = FakeConsumer()
        self.memory = self.open()

    def open(self) -> TopicMemory:
        tree = {
            "bootstrap_servers": ["b:1"],
            "group_id": "g",
            "topics": {"t": {"key": "id", "text": "{x}", "tasks": ["a"]}},
            "dead_letter_topic": "dead",
        }
        return TopicMemory(self.consumer, SourceConfig.model_validate(tree), lambda: self.now)


def test_marks_are_kept_beside_those_of_other_topics() -> None:
    bench = Bench()
    bench.memory.load()
    bench.memory.save({"t": FIRST})
    other = bench.open()
    assert other.load() == {"t": FIRST}
    other.save({"u": SECOND})
    assert bench.open().load() == {"t": FIRST, "u": SECOND}


def test_what_is_known_already_is_not_written_again_before_it_is_old() -> None:
    bench = Bench()
    bench.memory.save({"t": FIRST})
    bench.memory.save({"t": FIRST})
    bench.memory.refresh()
    assert bench.consumer.num_writes == 1
    bench.now += REFRESH_S + 1
    bench.memory.refresh()
    bench.memory.refresh()
    assert bench.consumer.num_writes == 2


def test_a_refused_write_stops_nothing_and_is_repeated_soon() -> None:
    bench = Bench()
    bench.consumer.failure = kafka_errors.RebalanceInProgressError()
    bench.memory.save({"t": FIRST})
    for _ in range(2):
        bench.now += RETRY_S + 1
        bench.memory.refresh()
    assert bench.consumer.num_writes == 3
    bench.consumer.failure = None
    bench.now += RETRY_S + 1
    bench.memory.refresh()
    assert bench.open().load() == {"t": FIRST}


def test_a_dead_letter_topic_that_may_not_be_read_is_no_memory_and_no_fault() -> None:
    bench = Bench()
    bench.consumer.failure = kafka_errors.TopicAuthorizationFailedError({"dead"})
    assert bench.memory.load() == {}


@pytest.mark.parametrize("num_topics", [35, 40, 400])
def test_any_number_of_topics_is_remembered(num_topics: int) -> None:
    bench = Bench()
    marks = {
        f"a-topic-of-many-{number}": Mark(f"aUeMbUrjTTmNVPH5xW{number:04}", 48, 48, 3) for number in range(num_topics)
    }
    bench.memory.save(marks)
    assert bench.open().load() == marks
    assert bench.consumer.num_writes == 1


def test_a_commit_with_a_witness_in_many_collections_stays_within_what_brokers_take() -> None:
    collections = frozenset(f"{number:08x}" for number in range(2_000))
    assert len(Mark("aUeMbUrjTTmNVPH5xW1234", 48, 48, 3).dump(Witness(b"x" * 16, 2**53 - 1, collections))) <= 4_096


@pytest.mark.parametrize("metadata", ["", "x", "[]", '{"t": 1}', '{"t": "{}"}', None])
def test_foreign_metadata_is_no_memory(metadata: str | None) -> None:
    bench = Bench()
    bench.consumer.pages[PLACE] = OffsetAndMetadata(0, metadata, -1)
    assert bench.memory.load() == {}


class Endpoint:
    """Answers in the place of httpx.post."""

    def __init__(self, answer: httpx.Response | Exception) -> None:
        self.answer = answer
        self.forms: list[dict[str, str]] = []

    def __call__(self, url: str, *, data: dict[str, str], **_options: Any) -> httpx.Response:
        self.forms.append(data)
        if isinstance(self.answer, Exception):
            raise self.answer
        self.answer.request = httpx.Request("POST", url)
        return self.answer


def credentials(
    monkeypatch: pytest.MonkeyPatch, answer: httpx.Response | Exception
) -> tuple[ClientCredentials, Endpoint]:
    endpoint = Endpoint(answer)
    monkeypatch.setattr("pipeline.sources.client.oauth.httpx.post", endpoint)
    tree = {
        "protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "OAUTHBEARER",
        "oauth_token_url": "http://127.0.0.1/token",
        "oauth_client_id": "client",
        "oauth_client_secret": "secret",
        "oauth_scope": "kafka",
    }
    return ClientCredentials(SecurityConfig.model_validate(tree)), endpoint


def test_a_token_is_fetched_once_while_it_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    provider, endpoint = credentials(monkeypatch, httpx.Response(200, json={"access_token": "abc", "expires_in": 600}))
    now = 1_000.0
    monkeypatch.setattr("pipeline.sources.client.oauth.time.monotonic", lambda: now)
    assert [provider.token(), provider.token()] == ["abc", "abc"]
    assert endpoint.forms == [{"grant_type": "client_credentials", "scope": "kafka"}]
    now += 580
    provider.token()
    assert len(endpoint.forms) == 2


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (httpx.Response(403), kafka_errors.SaslAuthenticationFailedError),
        (httpx.Response(502), kafka_errors.KafkaConnectionError),
        (httpx.Response(200, text="<html>"), kafka_errors.SaslAuthenticationFailedError),
        (httpx.Response(200, json={"token": "abc"}), kafka_errors.SaslAuthenticationFailedError),
        (httpx.Response(200, json=["abc"]), kafka_errors.SaslAuthenticationFailedError),
        (
            httpx.Response(200, json={"access_token": "abc", "expires_in": "soon"}),
            kafka_errors.SaslAuthenticationFailedError,
        ),
        (httpx.ConnectError("refused"), kafka_errors.KafkaConnectionError),
    ],
)
def test_an_endpoint_without_a_token_is_an_authentication_failure_and_one_that_is_away_an_outage(
    monkeypatch: pytest.MonkeyPatch, answer: httpx.Response | Exception, error: type[Exception]
) -> None:
    provider, _ = credentials(monkeypatch, answer)
    with pytest.raises(error) as caught:
        provider.token()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("mechanism", "sent"),
    [("SCRAM-SHA-256", "svc=2Capp=3D1"), ("SCRAM-SHA-512", "svc=2Capp=3D1"), ("PLAIN", "svc,app=1")],
)
def test_a_user_name_is_escaped_where_the_mechanism_asks_for_it(mechanism: str, sent: str) -> None:
    tree = {
        "bootstrap_servers": ["b:1"],
        "group_id": "g",
        "topics": {"t": {"key": "id", "text": "{x}", "tasks": ["a"]}},
        "dead_letter_topic": "dead",
        "security": {
            "protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": mechanism,
            "username": "svc,app=1",
            "password": "p",
        },
    }
    assert client_settings(SourceConfig.model_validate(tree), "x")["sasl_plain_username"] == sent
