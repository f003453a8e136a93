"""What a coordinator may answer to a commit, from librdkafka's mock cluster: rows 12 and 13."""

from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from pipeline.config.source import SourceConfig
from pipeline.sources.mock_broker import API_VERSION
from tests.e2e.harness import NUM_PARTITIONS, wait_until
from tests.faults.harness import Ground, Rig
from tests.faults.mock_cluster import OFFSET_COMMIT, MockCluster, mock_cluster
from tests.faults.proxy import Proxy
from tests.faults.results import fault_run
from tests.qdrant_server.process import QdrantServer

pytestmark = [pytest.mark.faults]

UNKNOWN_MEMBER, ILLEGAL_GENERATION, REBALANCE_IN_PROGRESS = 25, 22, 27
LOADING, NOT_AVAILABLE, NOT_COORDINATOR = 14, 15, 16
NUM_TIMES = 3


class MockGround(Ground):
    """A mock cluster in place of the broker; it cannot be reached through a proxy, for it names its own ports."""

    def __init__(self, folder: Path, cluster: MockCluster) -> None:
        self.folder = folder
        self.broker = self.kafka = cluster
        self.server = QdrantServer(folder / "qdrant")
        self.qdrant = Proxy(0)

    def __enter__(self) -> Self:
        self.server.start()
        self.qdrant.target = self.server.port
        self.qdrant.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.qdrant.stop()
        self.server.stop()

    def create_topics(self, source: SourceConfig) -> None:
        for topic in source.topics:
            self.broker.create_topic(topic, NUM_PARTITIONS)
        self.broker.create_topic(source.dead_letter_topic, 1)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with (
        mock_cluster(3) as cluster,
        MockGround(tmp_path, cluster) as ground,
        Rig(ground, "mocked", source__api_version=list(API_VERSION)) as made,
    ):
        yield made


def test_coordinator_moves(rig: Rig) -> None:
    group = rig.config.source.group_id
    with fault_run(12) as run, rig.worker() as member:
        member.wait_ready()
        for broker in (2, 3, 1):
            rig.send(900)
            rig.wait_midstream()
            rig.ground.broker.move_coordinator(group, broker)
            rig.ground.broker.fail(OFFSET_COMMIT, [LOADING, NOT_AVAILABLE, NOT_COORDINATOR])
            run.healed()
            rig.wait_progress(run)
            rig.check(run)
        assert member.process.poll() is None
        wait_until(lambda: "NotCoordinatorError" in member.output(), "a commit was refused")


@pytest.mark.parametrize(
    "error", [ILLEGAL_GENERATION, UNKNOWN_MEMBER, REBALANCE_IN_PROGRESS, NOT_COORDINATOR, NOT_AVAILABLE]
)
def test_commit_is_refused(rig: Rig, error: int) -> None:
    with fault_run(13, seed=error) as run, rig.worker() as member:
        member.wait_ready()
        rig.send(600)
        rig.wait_midstream()
        rig.ground.broker.fail(OFFSET_COMMIT, [error] * NUM_TIMES)
        run.healed()
        rig.wait_progress(run)
        rig.check(run)
        assert member.process.poll() is None
        assert "commit" in member.output(), "the refusal was seen"
