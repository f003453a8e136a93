"""A Ray cluster of the tests: a head node as a process, with token authentication, on ports nobody else uses."""

import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

import httpx

from tests.broker import free_port
from tests.e2e.harness import PATIENCE_S, ROOT, end, environment, replicas, start_python, wait_until


@dataclass(frozen=True, slots=True)
class Cluster:
    """A head node of its own, on ports nobody else uses."""

    address: str
    dashboard: str
    process: subprocess.Popen[bytes]
    environ: Mapping[str, str]
    """What lets a client in."""
    scratch: Path
    """Where Ray keeps its sessions, logs first of all."""

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

    def get(self, path: str) -> httpx.Response:
        """Asks the dashboard, as its pages and Ray's state API do."""
        token = self.environ["RAY_AUTH_TOKEN"]
        return httpx.get(
            f"{self.dashboard}{path}", headers={"authorization": f"Bearer {token}"}, timeout=60, trust_env=False
        )

    def has_app(self) -> bool:
        return bool(replicas(self.process.pid, ""))


@contextmanager
def head_node(folder: Path, **environ: str) -> Iterator[Cluster]:
    """Yields a running head node; its actors have `environ`."""
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
    environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
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
        yield Cluster(f"127.0.0.1:{port}", url, process, environ, scratch)
    finally:
        end(process, grace_s=0)
        rmtree(scratch, ignore_errors=True)
