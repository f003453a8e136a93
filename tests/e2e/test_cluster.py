"""A Ray cluster that is already there: joined by `refract run --address`, and deployed on by `serve deploy`."""

import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

import httpx
import psutil
import pytest

from pipeline.stores.open import open_store
from tests.broker import Broker, free_port
from tests.e2e.harness import (
    PATIENCE_S,
    ROOT,
    AppUnderTest,
    CommandApp,
    committed,
    end,
    environment,
    journal_of,
    replicas,
    start_python,
    wait_until,
    write_config,
)
from tests.e2e.oracle import Journal

pytestmark = [pytest.mark.e2e, pytest.mark.kafka, pytest.mark.ray]


@dataclass(frozen=True, slots=True)
class Cluster:
    """A head node of its own, on ports nobody else uses."""

    address: str
    dashboard: str
    process: subprocess.Popen[bytes]
    environ: Mapping[str, str]
    """What lets a client in."""

    def serve(self, *arguments: str) -> str:
        """Runs Ray's own `serve` command against the cluster."""
        done = subprocess.run(  # noqa: S603 - Ray's command
            [str(Path(sys.executable).with_name("serve")), *arguments, "--address", self.dashboard],
            cwd=ROOT,
            env=environment(**self.environ),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def has_app(self) -> bool:
        return bool(replicas(self.process.pid, ""))


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[Cluster]:
    # Ray's sockets lie below this directory, and their paths may have 107 characters.
    scratch = Path(tempfile.mkdtemp(prefix="refract-ray-"))
    port, dashboard = free_port(), free_port()
    options = {
        "port": port,
        "dashboard-port": dashboard,
        "dashboard-agent-listen-port": free_port(),
        "ray-client-server-port": free_port(),
        "num-cpus": 2,
        "object-store-memory": 1 << 28,
        "temp-dir": scratch,
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    token = secrets.token_hex(32)
    environ = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    command = ["-m", "ray.scripts.scripts", "start", "--head", "--block", *arguments]
    process = start_python(*command, log=folder / "cluster.log", **environ)
    url = f"http://127.0.0.1:{dashboard}"

    def answers() -> bool:
        assert process.poll() is None, (folder / "cluster.log").read_text()
        try:
            path = f"{url}/api/serve/applications/"
            return httpx.get(path, headers={"authorization": f"Bearer {token}"}, trust_env=False).is_success
        except httpx.TransportError:
            return False

    try:
        wait_until(answers, "the cluster answers")
        yield Cluster(f"127.0.0.1:{port}", url, process, environ)
    finally:
        end(process, grace_s=0)
        rmtree(scratch, ignore_errors=True)


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
    store = open_store(journal.config.store, journal.config.pipeline, ())
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
