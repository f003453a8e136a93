"""The tests' server as a child process that can be killed and started again."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

from tests.qdrant_server.faults import FaultFile

READY_S = 30.0
ROOT = Path(__file__).resolve().parents[2]


class QdrantServer:
    """One server on one directory. A restart keeps the port, so that clients come back by themselves."""

    def __init__(self, path: Path, *arguments: str) -> None:
        self.path = path
        self._arguments = arguments
        self._fault_path = path.with_name(f"{path.name}-faults.json")
        self._process: subprocess.Popen[str] | None = None
        self.faults = FaultFile(self._fault_path)
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [
                *(sys.executable, "-m", "tests.qdrant_server", "--path", str(self.path)),
                *("--port", str(self.port), "--faults", str(self._fault_path)),
                *("--parent", str(os.getpid()), *self._arguments),
            ],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        watchdog = threading.Timer(READY_S, self._process.kill)
        watchdog.start()
        line = self._process.stdout.readline().split()
        watchdog.cancel()
        assert line[:1] == ["ready"], "the tests' server did not start"
        self.port = int(line[1])
        return self

    def kill(self) -> None:
        """Ends the process as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends the process in order."""
        self._end(signal.SIGTERM)

    def restart(self, *arguments: str) -> None:
        """Ends the process in order and starts it with other arguments."""
        self.stop()
        self._arguments = arguments
        self.start()

    def pause(self) -> None:
        """Freezes the process: connections stay open and nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def mend(self) -> None:
        """Brings the server back, whatever state a test has left it in; its faults are over."""
        self.faults.clear()
        if self._process is not None and self._process.poll() is None:
            self.resume()
        else:
            self.start()

    def wait(self) -> None:
        """Returns when the process has ended by itself."""
        assert self._process is not None
        self._process.wait(READY_S)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
            self._process.wait(READY_S)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None
