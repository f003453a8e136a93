"""infra/kafka.sh: its exit codes are what Makefile and tests rely on."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.broker import SCRIPT, Broker, free_port

pytestmark = pytest.mark.kafka


def run(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603 - our own script
        [str(SCRIPT), *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("arguments", [(), ("dance",), ("start", "--port"), ("start", "--speed", "9")])
def test_wrong_usage_is_explained(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = run(*arguments, KAFKA_HOME=str(tmp_path))
    assert done.returncode == 2
    assert "infra/kafka.sh start" in done.stderr


def test_status_tells_whether_a_broker_runs_and_stop_of_none_is_fine(broker: Broker, tmp_path: Path) -> None:
    assert run("status", "--dir", broker.directory).returncode == 0
    assert run("status", "--dir", tmp_path).returncode == 1
    assert run("stop", "--dir", tmp_path).returncode == 0


def test_starting_a_running_broker_again_changes_nothing(broker: Broker) -> None:
    pid = broker.pid
    assert run("start", "--dir", broker.directory, "--port", broker.port).returncode == 0
    assert broker.pid == pid


def test_a_pid_that_now_belongs_to_another_program_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text(str(os.getpid()))
    assert run("kill", "--dir", tmp_path).returncode == 0
    assert run("status", "--dir", tmp_path).returncode == 1


def test_a_taken_port_is_named(broker: Broker, tmp_path: Path) -> None:
    assert broker.pid
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("start", "--dir", tmp_path, "--port", port)
    assert done.returncode == 1
    assert f"port {port} is taken" in done.stderr


def test_a_broker_that_cannot_start_says_why(broker: Broker, tmp_path: Path) -> None:
    assert broker.pid
    properties = tmp_path / "extra.properties"
    properties.write_text("num.network.threads=none\n")
    done = run("start", "--dir", tmp_path / "d", "--port", free_port(), "--properties", properties)
    assert done.returncode == 1
    assert "num.network.threads" in done.stderr


def test_without_java_it_names_what_to_install(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "dirname", "cksum", "cut", "mkdir", "flock", "id", "sed"):
        found = shutil.which(name)
        assert found
        (tools / name).symlink_to(found)
    done = run("fetch", PATH=str(tools), KAFKA_HOME=str(tmp_path / "home"))
    assert done.returncode == 3
    assert "default-jre-headless maven" in done.stderr
