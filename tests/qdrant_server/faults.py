"""Faults of the tests' server: a JSON file, read again on every call, says what goes wrong next."""

import json
import threading
import time
import uuid
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


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
    ignore: bool = False
    """Answers an upsert with `status` and does not carry it out: what an acknowledged write may come to."""
    holds: str = ""
    """Hits only upserts with a point one of whose payload texts contains this."""
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

    def num_hits(self) -> int:
        """Returns how many calls were hit so far, by any fault, in the life of the file."""
        hits = _hits(self._path)
        return hits.stat().st_size if hits.exists() else 0


class Faults:
    """The server's side: which fault, if any, hits a call. Thread-safe."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._used: Counter[str] = Counter()
        self._lock = threading.Lock()

    def next(self, method: str, request: Any = None) -> Fault | None:
        """Returns the fault that hits a call, and counts the hit."""
        if self._path is None or not self._path.exists():
            return None
        faults = [Fault(**entry) for entry in json.loads(self._path.read_text())]
        with self._lock:
            for fault in faults:
                is_left = fault.times < 0 or self._used[fault.id] < fault.times
                if is_left and fault.method in {method, "*"} and _holds(request, fault.holds):
                    self._used[fault.id] += 1
                    with _hits(self._path).open("ab") as hits:
                        hits.write(b".")
                    return fault
        return None


def _hits(path: Path) -> Path:
    """A byte for each hit; survives the server's death."""
    return path.with_suffix(".hits")


def _holds(request: Any, text: str) -> bool:
    if not text:
        return True
    return any(text in value.string_value for point in request.points for value in point.payload.values())


def pause(fault: Fault) -> None:
    """Waits as the fault says."""
    if fault.delay_s:
        time.sleep(fault.delay_s)
