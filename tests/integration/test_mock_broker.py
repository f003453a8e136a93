"""The demo's broker in this process: enough of Kafka for a group of one member."""

from collections.abc import Iterator

import pytest

from pipeline.config.source import SourceConfig
from pipeline.errors import Reason
from pipeline.records.record import DeadLetter, Position
from pipeline.sources.client.admin import committed_lag, inspect_cluster
from pipeline.sources.letters.dead_letters import KafkaDeadLetters
from pipeline.sources.letters.letter_reader import read_dead_letters
from pipeline.sources.mock_broker import API_VERSION, MockBroker
from tests.integration.members import Member, positions, produce, source_config, texts, wait_until


@pytest.fixture
def config() -> Iterator[SourceConfig]:
    with MockBroker() as broker:
        broker.create_topics(["tickets", "tickets-dead"])
        yield source_config(broker.bootstrap_servers, "tickets", api_version=list(API_VERSION))


def test_a_member_reads_everything_from_the_mock_and_the_next_goes_on_behind_it(config: SourceConfig) -> None:
    """One at a time: see MockBroker on groups of several."""
    produce(config, "tickets", texts(0, 200))
    with Member(config, 0) as first:
        wait_until(lambda: len(first.deliveries) == 200)
        wait_until(lambda: not any(lag.lag for lag in committed_lag(config).values()))
    produce(config, "tickets", [*texts(200, 400), (b"k1", None)])
    with Member(config, 1) as second:
        wait_until(lambda: len(second.deliveries) == 201)
        wait_until(lambda: not any(lag.lag for lag in committed_lag(config).values()))
    assert len({*positions(first.deliveries), *positions(second.deliveries)}) == 401
    assert (first.failure, second.failure) == (None, None)


def test_the_mock_answers_check_and_keeps_dead_letters(config: SourceConfig) -> None:
    assert inspect_cluster(config)["topics"] == {"tickets": 4}
    letters = KafkaDeadLetters(config, "tickets")
    letters.send([DeadLetter(Position("tickets", 0, 5, 1), Reason.NO_KEY, None, b"v")])
    letters.close()
    assert [letter.reason for letter in read_dead_letters(config)] == ["no_key"]
