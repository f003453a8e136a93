"""Faults of the tests' server: a JSON file, read again on every call, says what goes wrong next."""

import json
import threading
import time
import uuid
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Fault:
    """What happens to the next calls of a method."""

    method: str
    """Service and call, "Points/Upsert"; "*" for every one."""
    times: int = 1
    """How many calls it hits; -1 for all."""
    code: str = ""
    """Name of the gRPC status to answer; empty lets the call answer normally."""
    detail: str = ""
    trailing: dict[str, str] = field(default_factory=dict)
    """Trailing metadata of the answer."""
    delay_s: float = 0.0
    """Waits so long before answering; the call is carried out first when `apply` is set."""
    apply: bool = False
    """Carries the call out before it fails."""
    status: str = ""
    """Name of the UpdateStatus of an otherwise normal answer."""
    exit: bool = False
    """Kills the process in place of an answer: the connection breaks."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


class FaultFile:
    """The tests' side: replaces the list of faults in one step."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def set(self, *faults: Fault) -> None:
        beside = self._path.with_suffix(".tmp")
        beside.write_text(json.dumps([asdict(fault) for fault in faults]))
        beside.replace(self._path)

    def clear(self) -> None:
        self.set()


class Faults:
    """The server's side: which fault, if any, hits a call. Thread-safe."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._used: Counter[str] = Counter()
        self._lock = threading.Lock()

    def next(self, method: str) -> Fault | None:
        if self._path is None or not self._path.exists():
            return None
        faults = [Fault(**entry) for entry in json.loads(self._path.read_text())]
        with self._lock:
            for fault in faults:
                if fault.method in {method, "*"} and (fault.times < 0 or self._used[fault.id] < fault.times):
                    self._used[fault.id] += 1
                    return fault
        return None


def pause(fault: Fault) -> None:
    """Waits as the fault says."""
    if fault.delay_s:
        time.sleep(fault.delay_s)
