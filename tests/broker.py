"""The real broker of the tests: `infra/kafka.sh` as a context manager, and what tests ask of a cluster."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kafka import KafkaAdminClient

SCRIPT = Path(__file__).parent.parent / "infra" / "kafka.sh"


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Broker:
    """A broker in a directory of its own. It keeps its data and ports over `stop`, `kill` and `start`."""

    def __init__(self, directory: Path, properties: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.port = free_port()
        self.controller_port = free_port()
        self._properties = dict(properties or {})

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        properties = self.directory / "extra.properties"
        properties.write_text("".join(f"{key}={value}\n" for key, value in self._properties.items()))
        self._run("start", "--port", self.port, "--controller-port", self.controller_port, "--properties", properties)
        return self

    def set_properties(self, properties: Mapping[str, str]) -> None:
        """Adds lines for the next start."""
        self._properties |= properties

    def advertise(self, port: int, listens_on: int) -> None:
        """Adds, from the next start on, a listener whose clients are told to come to `port`, a proxy's.

        The listener itself is at `listens_on`; the broker's own port stays what it is.
        """
        self.set_properties(
            {
                "listeners": f"PLAINTEXT://127.0.0.1:{self.port},PROXIED://127.0.0.1:{listens_on},"
                f"CONTROLLER://127.0.0.1:{self.controller_port}",
                "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port},PROXIED://127.0.0.1:{port}",
                "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT",
            }
        )

    def stop(self) -> None:
        self._run("stop")

    def kill(self) -> None:
        """kill -9."""
        self._run("kill")

    def freeze(self) -> None:
        """SIGSTOP: connections stay, answers do not come."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    @property
    def pid(self) -> int:
        return int((self.directory / "pid").read_text())

    def admin(self) -> Any:
        """A client for what a test arranges; close it."""
        return KafkaAdminClient(bootstrap_servers=self.bootstrap_servers)

    def create_topic(self, name: str, partitions: int = 1, configs: Mapping[str, str] | None = None) -> str:
        admin = self.admin()
        try:
            topic = {"num_partitions": partitions, "replication_factor": 1, "configs": dict(configs or {})}
            admin.create_topics({name: topic}, wait_for_metadata=True)
        finally:
            admin.close()
        return name

    def committed(self, group: str) -> dict[tuple[str, int], int]:
        """The group's committed offsets of source topics."""
        admin = self.admin()
        try:
            offsets = admin.list_group_offsets(group)[group]
        finally:
            admin.close()
        return {
            tuple(partition): known.offset
            for partition, known in offsets.items()
            if known.offset >= 0 and not partition.topic.endswith("-dead")
        }

    def _run(self, verb: str, *options: object) -> None:
        arguments = [str(SCRIPT), verb, "--dir", str(self.directory), *map(str, options)]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)  # noqa: S603 - our own script
        if done.returncode:
            raise RuntimeError(f"kafka.sh {verb}: exit code {done.returncode}\n{done.stderr}")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def unique(name: str) -> str:
    """A topic or group name that no other test uses."""
    return f"{name}-{time.time_ns()}"
