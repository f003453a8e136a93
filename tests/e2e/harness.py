"""The whole application under test: its configuration, its processes, its API, and waiting for it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import psutil
import yaml

from actors.supervisor import RunningApp
from pipeline.config.load import load_config
from pipeline.config.pipeline import Config
from pipeline.interfaces import PointReader
from pipeline.sources.client.admin import create_topics
from tests.broker import Broker, free_port
from tests.e2e.oracle import Journal
from tests.faults.results import FaultRun, TooLateError

ROOT = Path(__file__).parents[2]
PATIENCE_S = 90.0
"""Deadline of every wait. What is waited for takes seconds; other work may have the processors."""

POLL_S = 0.2
NUM_PARTITIONS = 4

Result = TypeVar("Result")


def wait_until(condition: Callable[[], Result], what: str, *, timeout_s: float = PATIENCE_S) -> Result:
    """Polls until the condition holds and returns its value; fails with `what`, and the last value, at the deadline."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {timeout_s:.0f} s: {what} (last: {result!r})")
        time.sleep(POLL_S)


def write_config(
    folder: Path,
    broker: Broker,
    name: str,
    ticket_tasks: Sequence[str] = ("urgency", "technical_issue"),
    **changes: Any,
) -> Path:
    """Writes the tests' configuration; `changes` replace whole sections, or `a__b=1` one key of one.

    Topics have the pipeline's name in front. `tickets` have versions of their own and two tasks; of
    `events`, the later offset is newer.
    """
    tree: dict[str, Any] = {
        "pipeline": name,
        "source": {
            "bootstrap_servers": [broker.bootstrap_servers],
            "group_id": name,
            "dead_letter_topic": f"{name}.dead-letters",
            "session_timeout_ms": 6_000,
            "heartbeat_interval_ms": 1_000,
            "commit_interval_s": 0.5,
            "topics": {
                f"{name}.tickets": {
                    "key": "id",
                    "text": "{title}\n\n{body}",
                    "version": "updated_at",
                    "version_type": "time",
                    "delete_when": {"field": "status", "equals": "deleted"},
                    "payload": ["title", "urgency", "language", "minutes", "open"],
                    "tasks": list(ticket_tasks),
                },
                f"{name}.events": {"text": "{message}", "tasks": ["audit"]},
            },
        },
        "models": {"hash": {"model": "null:384", "num_cpus": 0.5}},
        "tasks": {
            "urgency": {"model": "hash", "instruction": "How urgent is this"},
            "technical_issue": {"model": "hash", "instruction": "What is broken"},
            "audit": {"model": "hash", "instruction": "What happened"},
        },
        "store": {"type": "edge", "path": str(folder / "store")},
        "api": {"port": free_port()},
        "limits": {"max_record_bytes": 65_536},
    }
    for place, value in changes.items():
        *parents, last = place.split("__")
        section = tree
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path


def replicas(root: int, name: str) -> list[psutil.Process]:
    """Returns the replicas of a deployment among the descendants of a process: nobody else's Ray is touched."""
    found = []
    for process in psutil.Process(root).children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if f"ServeReplica:refract:{name}" in " ".join(process.cmdline()):
                found.append(process)
    return found


class AppUnderTest:
    """The API of a running app, its processes, and the promise."""

    def __init__(self, path: Path, broker: Broker, journal: Journal) -> None:
        self.path = path
        self.config: Config = journal.config
        self.broker = broker
        self.journal = journal
        self.pid = os.getpid()
        """Whose descendants the replicas are."""
        key = self.config.api.api_key
        self.http = httpx.Client(
            base_url=f"http://{self.config.api.host}:{self.config.api.port}",
            headers={} if key is None else {"api-key": key.get_secret_value()},
            timeout=60,
            trust_env=False,
        )

    def status(self) -> dict[str, Any]:
        answer = self.http.get("/v1/status")
        return dict(answer.json()) if answer.is_success else {}

    def tickets(self) -> dict[str, Any]:
        """Returns what the status says of the tickets' topic."""
        return dict(self.status()["topics"][self.journal.tickets])

    def ready(self) -> bool:
        with suppress(httpx.TransportError):
            return self.http.get("/readyz").is_success
        return False

    def wait_ready(self) -> None:
        wait_until(self.ready, "the app is ready")

    def processes(self, name: str) -> list[psutil.Process]:
        """Returns the replicas of a deployment."""
        return replicas(self.pid, name)

    def kill(self, name: str) -> psutil.Process:
        """Kills a replica with -9 and returns its process."""
        victim = self.processes(name)[0]
        victim.send_signal(signal.SIGKILL)
        return victim

    def wait_replaced(self, name: str, victim: psutil.Process, num_replicas: int = 1) -> None:
        """Returns when Serve has put another process in the place of a killed one."""

        def replaced() -> bool:
            pids = {process.pid for process in self.processes(name)}
            return len(pids) >= num_replicas and victim.pid not in pids

        wait_until(replaced, f"{name} is replaced")

    def committed(self) -> dict[tuple[str, int], int]:
        """Returns the group's offsets, without those of partitions where it only noted the beginning."""
        return committed(self.broker, self.config)

    def num_committed(self) -> int:
        """Records the group has finished."""
        return sum(self.committed().values())

    def wait_midstream(self, share: float = 0.15) -> None:
        """Returns when a part of what was sent since the last check is finished, and fails when all of it is."""
        total = self.journal.num_records()
        start = self.finished

        def some_done() -> bool:
            return self.num_committed() >= start + share * (total - start)

        wait_until(some_done, "a part of the records is finished")
        if self.num_committed() >= total:
            raise TooLateError("everything is finished already: send more records")

    finished = 0
    """Records finished at the last `check`."""

    def wait_finished(self) -> None:
        """Returns when the group stands at the end of every partition."""
        self.journal.settle()
        try:
            wait_until(lambda: self.committed() == self.journal.ends, "every offset is committed")
        except AssertionError as error:
            raise AssertionError(f"{error}; ends {self.journal.ends}, status {self.status()}") from None
        self.finished = self.num_committed()


class InProcessApp(AppUnderTest):
    """The app started by this process, so that its store can be read while it runs."""

    def __init__(self, path: Path, broker: Broker, journal: Journal) -> None:
        super().__init__(path, broker, journal)
        self._running = RunningApp(path)

    def __enter__(self) -> Self:
        self._running.start(lambda _: None)
        try:
            self.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self._running.stop(lambda _: None)

    def store(self) -> PointReader:
        """Returns the store as the app's owner of its directory gives it."""
        return self._running.store()

    def check(self) -> None:
        """The promise: when everything is finished, store and dead-letter topic equal the source, per task."""
        self.wait_finished()
        assert self.journal.store_differences(self.store()) == []
        assert self.journal.letter_differences() == []

    def compare(self, run: FaultRun) -> None:
        """The same for a row of the fault table, which counts what it finds."""
        self.wait_finished()
        run.compared(self.journal.compare(self.store()))


class CommandApp(AppUnderTest):
    """The app as a process of its own: `refract run CONFIG`."""

    def __init__(self, path: Path, broker: Broker, journal: Journal, *options: str, **environ: str) -> None:
        super().__init__(path, broker, journal)
        self._log = path.with_name(f"run-{time.time_ns()}.log")
        self.process = start_python("-m", "pipeline.cli", "run", str(path), *options, log=self._log, **environ)
        self.pid = self.process.pid
        self._left_behind: list[psutil.Process] = []

    def __enter__(self) -> Self:
        try:
            self.wait_ready()
        except BaseException:
            self.__exit__()  # what is left running would slow down, or answer for, every test that follows
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        end(self.process)
        kill_all(self._left_behind)

    def wait_ready(self) -> None:
        """Returns when the command says so: at first its port may still be answered by the run before it."""
        wait_until(lambda: "ready after" in self.output() or self.process.poll() is not None, "the command is ready")
        assert self.process.poll() is None, self.output()

    def terminate(self) -> int:
        """SIGTERM, as an orchestrator sends it; returns the exit code."""
        self.process.terminate()
        return self.process.wait(PATIENCE_S)

    def interrupt(self) -> int:
        """Ctrl-C, which a terminal sends to the whole process group; returns the exit code."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(PATIENCE_S)

    def kill_command(self) -> None:
        """kill -9 of the command; what it started has to notice by itself."""
        self._left_behind = psutil.Process(self.pid).children(recursive=True)
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def output(self) -> str:
        return self._log.read_text(errors="replace")


def start_python(*arguments: str, log: Path, **environ: str) -> subprocess.Popen[bytes]:
    """Starts Python in the checkout, as the leader of a process group; both outputs go to the file."""
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment(**environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def environment(**environ: str) -> dict[str, str]:
    """Returns the environment of a process in the checkout, installed or not."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", **environ}


def end(process: subprocess.Popen[bytes], *, grace_s: float = 30) -> None:
    """Ends a process and all it started, whatever state a failed test left it in."""
    if process.poll() is None:
        family = psutil.Process(process.pid).children(recursive=True)
        if grace_s:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(grace_s)
        process.kill()
        kill_all(family)
        process.wait(PATIENCE_S)


def kill_all(processes: Sequence[psutil.Process]) -> None:
    """Kills the processes that still run, and only those: psutil knows a recycled pid."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def committed(broker: Broker, config: Config) -> dict[tuple[str, int], int]:
    """Returns the offsets a group has committed above the beginning of a partition."""
    return {partition: offset for partition, offset in broker.committed(config.source.group_id).items() if offset}


@contextmanager
def journal_of(path: Path) -> Iterator[Journal]:
    """Creates the configuration's topics and yields a journal for them."""
    config = load_config(path)
    create_topics(config.source, NUM_PARTITIONS)
    journal = Journal(config)
    try:
        yield journal
    finally:
        journal.close()


def refused(answer: httpx.Response, status: int, codes: str | Sequence[str]) -> str:
    """Checks that an answer is a refusal in the API's one form; returns its message."""
    assert answer.status_code == status, f"{answer.status_code}: {answer.text[:300]}"
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message"}
    assert body["error"]["code"] in ([codes] if isinstance(codes, str) else codes), body
    assert body["error"]["message"]
    return str(body["error"]["message"])
