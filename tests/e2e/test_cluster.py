"""A Ray cluster that is already there: joined by `refract run --address`, and deployed on by `serve deploy`."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.stores.open import open_store
from tests.broker import Broker
from tests.e2e.cluster import Cluster, head_node
from tests.e2e.harness import (
    PATIENCE_S,
    ROOT,
    AppUnderTest,
    CommandApp,
    committed,
    journal_of,
    replicas,
    wait_until,
    write_config,
)
from tests.e2e.oracle import Journal

pytestmark = [pytest.mark.e2e, pytest.mark.kafka, pytest.mark.ray]


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[Cluster]:
    with head_node(folder) as running:
        yield running


@pytest.fixture(scope="module")
def path(folder: Path, broker: Broker) -> Path:
    return write_config(folder, broker, "cluster")


@pytest.fixture(scope="module")
def journal(path: Path) -> Iterator[Journal]:
    with journal_of(path) as made:
        yield made


def check_stopped(journal: Journal, broker: Broker) -> None:
    """The promise, read from the store's directory once the app has let it go."""
    assert committed(broker, journal.config) == journal.ends
    store = open_store(journal.config.store, journal.config.pipeline)
    try:
        assert journal.store_differences(store) == []
    finally:
        store.close()


@pytest.mark.parametrize("version", [1, 2], ids=["joins", "joins again where Serve already runs"])
def test_run_joins_a_cluster_and_leaves_it_running(
    cluster: Cluster, path: Path, journal: Journal, broker: Broker, version: int
) -> None:
    with CommandApp(path, broker, journal, "--address", cluster.address, **cluster.environ) as app:
        for number in range(300):
            journal.ticket(f"J-{number}", version)
        app.wait_finished()
        assert len(replicas(cluster.process.pid, "Ingestor")) == 1
        assert app.terminate() == 0, app.output()
    wait_until(lambda: not cluster.has_app(), "the app's processes have ended")
    assert cluster.process.poll() is None
    check_stopped(journal, broker)


def test_serve_deploy_ingests_and_answers(
    cluster: Cluster, path: Path, journal: Journal, broker: Broker, folder: Path
) -> None:
    made = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "pipeline.cli", "serve-config", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    deployed = folder / "serve.yaml"
    deployed.write_text(made.stdout)
    cluster.serve("deploy", str(deployed))
    app = AppUnderTest(path, broker, journal)
    app.pid = cluster.process.pid
    try:
        app.wait_ready()
        for number in range(300):
            journal.ticket(f"D-{number}", 1)
        journal.ticket("D-7", 2, deleted=True)
        app.wait_finished()
        text = journal.expected("urgency", "D-8").text
        hits = app.http.post("/v1/search", json={"task": "urgency", "text": text, "limit": 1}).json()["hits"]
        assert [hit["key"] for hit in hits] == ["D-8"]
        assert "RUNNING" in cluster.serve("status")
    finally:
        app.http.close()
        family = app.processes("")
        cluster.serve("shutdown", "--yes")
    _, alive = psutil.wait_procs(family, timeout=PATIENCE_S)
    assert not alive
    check_stopped(journal, broker)
