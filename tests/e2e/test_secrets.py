"""Planted secrets of every kind, and every place a running app shows something: none of them is anywhere.

Each place is also asked for what it should show, so that an empty answer proves nothing.
"""

import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import orjson
import psutil
import pytest
from ray import cloudpickle

from actors.app import build_app
from pipeline.cli.exits import ExitCode
from pipeline.config.load import ConfigTree, load_config
from pipeline.sources.client.admin import create_topics
from pipeline.sources.client.producer import RecordProducer
from tests.broker import Broker, free_port
from tests.e2e.cluster import Cluster, head_node
from tests.e2e.harness import PATIENCE_S, ROOT, CommandApp, environment, replicas, wait_until, write_config
from tests.qdrant_server.process import QdrantServer

pytestmark = [pytest.mark.e2e, pytest.mark.kafka, pytest.mark.ray]

USER = "reader"
SECRETS = {
    name: f"planted-{name.lower()}-{secrets.token_hex(8)}" for name in ("KAFKA_SECRET", "STORE_SECRET", "API_SECRET")
}
STATE_API = ("actors", "tasks", "workers", "jobs", "nodes", "runtime_envs", "placement_groups")
OPEN, GUARDED = ("/healthz", "/readyz", "/openapi.json", "/docs"), ("/v1/status", "/v1/tasks", "/metrics")


@dataclass(frozen=True, slots=True)
class Secured:
    """An app whose broker, store and API all want a secret, and the text of every place it shows something."""

    app: CommandApp
    cluster: Cluster
    path: Path

    def run(self, *arguments: str, **environ: str) -> str:
        """Runs a verb; returns what it printed, on both streams, and its exit code."""
        done = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "pipeline.cli", *arguments],
            cwd=ROOT,
            env=environment(**{**SECRETS, **environ}),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return f"{done.stdout}\n{done.stderr}\nexit code {done.returncode}"


@pytest.fixture(scope="module")
def locked_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Broker, int]]:
    """A broker with a listener that wants a password, and its port."""
    broker, port = Broker(tmp_path_factory.mktemp("secrets-kafka")), free_port()
    listeners = f"PLAINTEXT://127.0.0.1:{broker.port},SASL_PLAINTEXT://127.0.0.1:{port}"
    broker.set_properties(
        {
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{broker.controller_port}",
            "advertised.listeners": listeners,
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_plaintext.plain.sasl.jaas.config": "org.apache.kafka.common.security.plain."
            f'PlainLoginModule required user_{USER}="{SECRETS["KAFKA_SECRET"]}";',
        }
    )
    with broker:
        yield broker, port


@pytest.fixture(scope="module")
def secured(folder: Path, locked_broker: tuple[Broker, int]) -> Iterator[Secured]:
    broker, port = locked_broker
    server = QdrantServer(folder / "server", "--api-key", SECRETS["STORE_SECRET"]).start()
    security = {
        "protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "username": USER,
        "password": "${KAFKA_SECRET}",
    }
    path = write_config(
        folder,
        broker,
        "secrets",
        source__bootstrap_servers=[f"127.0.0.1:{port}"],
        source__security=security,
        store={"type": "qdrant", "url": server.url, "api_key": "${STORE_SECRET}"},
        api__api_key="${API_SECRET}",
    )
    config = load_config(path, environ=SECRETS)
    create_topics(config.source, 2)
    try:
        with head_node(folder, **SECRETS) as cluster:
            known: Any = SimpleNamespace(config=config)
            app = CommandApp(path, broker, known, "--address", cluster.address, **cluster.environ)
            with app:
                app.pid = cluster.process.pid
                send(path)
                yield Secured(app, cluster, path)
    finally:
        server.stop()


def send(path: Path) -> None:
    """Sends good records, and bad ones."""
    source = load_config(path, environ=SECRETS).source
    with RecordProducer(source) as producer:
        for number in range(50):
            row = {"id": f"S-{number}", "title": "t", "body": "b", "updated_at": 1_700_000_000_000}
            producer.send("secrets.tickets", b"k", orjson.dumps(row) if number % 10 else b"{")
        producer.flush()


def assert_clean(text: str, shows: str) -> None:
    """Fails where a place shows a secret, or not even what it is for."""
    assert shows in text, f"shows no {shows!r}: {text[:500]}"
    assert [name for name, secret in SECRETS.items() if secret in text] == []


def test_no_verb_prints_a_secret(secured: Secured) -> None:
    config = str(secured.path)
    assert_clean(secured.run("check", config), "exit code 0")
    assert_clean(secured.run("check", config, "--json"), '"ok": true')
    assert_clean(secured.run("tasks", config, "--show"), "urgency")
    assert_clean(secured.run("serve-config", config), "import_path")
    wait_until(lambda: secured.app.status()["topics"]["secrets.tickets"]["received"] == 50, "all is received")
    assert_clean(secured.run("status", config, "--json"), '"received": 50')
    assert_clean(secured.run("verify", config, "--json"), '"equal": true')
    assert_clean(secured.run("dlq", "list", config), "invalid_json")


@pytest.mark.parametrize("name", list(SECRETS))
def test_a_wrong_secret_is_refused_and_not_repeated(secured: Secured, name: str) -> None:
    verb = "status" if name == "API_SECRET" else "check"
    text = secured.run(verb, str(secured.path), **{name: "planted-guess"})
    assert f"exit code {ExitCode.OK}" not in text.splitlines()
    assert "planted-guess" not in text
    assert_clean(text, "exit code")


def test_no_answer_of_the_api_holds_a_secret(secured: Secured) -> None:
    app = secured.app
    for path in (*OPEN, *GUARDED):
        for headers in ({}, {"api-key": "planted-guess"}, {"api-key": SECRETS["API_SECRET"]}):
            answer = httpx.get(f"{app.http.base_url}{path}", headers=headers, trust_env=False)
            entitled = path in OPEN or headers.get("api-key") == SECRETS["API_SECRET"]
            assert answer.status_code == (200 if entitled else 401), (path, answer.text[:200])
            assert_clean(f"{answer.headers}{answer.text}", "content-type")
    body = {"task": "urgency", "text": "t", "limit": 1}
    assert_clean(app.http.post("/v1/search", json=body).text, '"hits"')
    assert_clean(app.http.post("/v1/search", json={"task": SECRETS}).text, "invalid_request")


def test_rays_state_shows_variables_and_not_what_they_hold(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = secured.cluster
    shown = {name: cluster.get(f"/api/v0/{name}?detail=true&limit=10000") for name in STATE_API}
    assert {name: answer.status_code for name, answer in shown.items()} == dict.fromkeys(STATE_API, 200)
    assert_clean(shown["actors"].text, "ServeReplica:refract:Ingestor")
    for answer in shown.values():
        assert_clean(answer.text, "result")
    assert_clean(cluster.get("/api/serve/applications/").text, "refract")
    for path in ("/nodes?view=details", "/logical/actors", "/api/jobs/"):
        assert_clean(cluster.get(path).text, "")
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    assert_clean(_pickled(build_app(ConfigTree.read(secured.path))), "${KAFKA_SECRET}")


def test_no_log_and_no_command_line_holds_a_secret(secured: Secured) -> None:
    assert_clean(secured.app.output(), "ready after")
    logs = [path for path in secured.cluster.scratch.rglob("*") if path.is_file() and "logs" in path.parts]
    assert any("ServeReplica:refract:Ingestor" in path.read_text(errors="replace") for path in logs)
    for path in [*logs, *secured.path.parent.glob("*.log")]:
        assert_clean(path.read_text(errors="replace"), "")
    family = [psutil.Process(secured.cluster.process.pid), psutil.Process(secured.app.process.pid)]
    family += [child for process in family for child in process.children(recursive=True)]
    lines = [" ".join(process.cmdline()) for process in family if process.is_running()]
    assert_clean("\n".join(lines), "ServeReplica:refract:Ingestor")


def test_a_cluster_started_here_admits_nobody_without_its_token(folder: Path, broker: Broker) -> None:
    """Its ports are open to the network; Ray's own authentication is what keeps others out."""
    path = write_config(folder, broker, "alone")
    config = load_config(path)
    create_topics(config.source, 1)
    known: Any = SimpleNamespace(config=config)
    stranger = folder / "stranger"
    stranger.mkdir()
    with CommandApp(path, broker, known) as app, closing(app.http):
        [head] = [process for process in _family(app.process.pid) if process.name() == "gcs_server"]
        ports = {found.laddr.port for found in head.net_connections("tcp") if found.status == psutil.CONN_LISTEN}
        for port in ports:
            done = subprocess.run(  # noqa: S603 - our own program
                [sys.executable, "-c", f"import ray; ray.init('127.0.0.1:{port}'); print('inside')"],
                env=environment(
                    HOME=str(stranger), RAY_AUTH_MODE="disabled", RAY_gcs_rpc_server_reconnect_timeout_s="1"
                ),
                cwd=stranger,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
            )
            assert done.returncode != 0
            assert "inside" not in done.stdout
        assert replicas(app.pid, "Ingestor")
        [proxy] = [process for process in _family(app.process.pid) if "ProxyActor" in " ".join(process.cmdline())]
        served = [found.laddr for found in proxy.net_connections("tcp") if found.laddr.port == config.api.port]
        assert {address.ip for address in served} == {"127.0.0.1"}


def _family(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def _pickled(application: Any) -> str:
    """Returns what Serve sends to its controller for an application: every argument of every actor."""
    made: bytes = cloudpickle.dumps(application)  # type: ignore[no-untyped-call]  # Ray's
    return made.decode("latin-1")
