"""How Ray is brought up for the app: what is refused before, what goes on beside it, what is put right afterwards."""

import logging
import signal
import socket
import sys
from typing import Any

import pytest

from actors import boot as start
from pipeline.errors import ConfigError
from tests.broker import free_port
from tests.config_trees import parsed


class FakeRay:
    """Stands for a cluster with two processors; taking it up does what Ray does to its caller's process."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def connect(self, _address: str | None, _namespace: str, _needed: Any, **_: Any) -> None:
        self.calls.append("connect")
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        logging.getLogger("ray.serve").setLevel(logging.INFO)

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def shutdown(self) -> None:
        self.calls.append("shutdown")


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    made = FakeRay()
    monkeypatch.setattr(start, "connect", made.connect)
    monkeypatch.setattr("ray.cluster_resources", made.cluster_resources)
    monkeypatch.setattr("ray.shutdown", made.shutdown)
    return made


def test_serve_is_imported_and_silent_and_signals_are_the_callers(
    ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "actors.supervisor", raising=False)
    before = signal.getsignal(signal.SIGTERM)
    start.start_ray(parsed(api__port=free_port()), None, lambda _: None)
    assert ray.calls == ["connect"]
    assert "actors.supervisor" in sys.modules
    assert logging.getLogger("ray.serve").level == logging.ERROR
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_port_in_use_is_refused_before_ray_starts(ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "PORT_WAIT_S", 0.3)
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"api\.port: 127\.0\.0\.1:{port} cannot be used"):
            start.start_ray(parsed(api__port=port), None, said.append)
    assert [line.split(" for ")[0] for line in said] == ["waiting up to 0 s"]
    assert ray.calls == []


def test_what_a_cluster_has_not_is_refused_and_the_cluster_left(ray: FakeRay) -> None:
    with pytest.raises(ConfigError, match=r"asks for 3 GPUs in all \(models\.\*\.replicas times num_gpus"):
        start.start_ray(parsed(models__null__num_gpus=3), "auto", lambda _: None)
    assert ray.calls == ["connect", "shutdown"]
