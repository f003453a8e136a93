"""What a row of the fault table came to: measured by the test that ran it, never written by hand."""

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.e2e.differences import Difference, Harm

RESULTS = "REFRACT_FAULT_RESULTS"
"""Environment variable: the file that each run of a row adds a line to. Without it nothing is kept."""

ALL = "REFRACT_FAULTS"
"""Environment variable: `all` runs every row, as `make faults` does; without it only the smoke rows are run."""

MAX_KEPT = 5


class TooLateError(AssertionError):
    """The fault met nothing in flight, so the run shows nothing of the promise, neither way; pytest repeats it."""


@dataclass
class FaultRun:
    """One run of one row, while it happens. `lost`, `doubled`, `stale` and `wrong` come from the oracle alone."""

    row: int
    seed: int = 0
    recovery_s: float | None = None
    """From the moment the fault ended (or the kill) until records were finished again; None where nothing recovers."""
    duplicates: int = 0
    """Records embedded more than once."""
    lost: int = 0
    doubled: int = 0
    stale: int = 0
    wrong: int = 0
    notes: list[str] = field(default_factory=list)
    passed: bool = False
    test: str = field(default_factory=lambda: os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0])
    _healed_s: float = field(default_factory=time.monotonic, repr=False)
    _is_compared: bool = field(default=False, repr=False)

    def healed(self) -> None:
        """Starts the clock of the recovery: call it at the kill, or when the fault ends."""
        self._healed_s = time.monotonic()

    def recovered(self) -> None:
        """Stops the clock. Of several faults in one run the slowest recovery counts."""
        self.recovery_s = max(self.recovery_s or 0.0, round(time.monotonic() - self._healed_s, 2))

    def within(self, limit_s: float) -> None:
        """Fails when the recovery took longer; three times as long where `make test` may share the machine."""
        assert self.recovery_s is not None, f"row {self.row} has not recovered"
        allowed_s = limit_s if os.environ.get(ALL) == "all" else 3 * limit_s
        assert self.recovery_s <= allowed_s, f"row {self.row} recovered in {self.recovery_s} s, allowed {allowed_s}"

    def compared(self, differences: Iterable[Difference]) -> None:
        """Adds what the oracle has found; may be called several times, at least once."""
        self._is_compared = True
        for difference in differences:
            setattr(self, difference.harm, getattr(self, difference.harm) + 1)
            if len(self.notes) < MAX_KEPT:
                self.notes.append(f"{difference.harm}: {difference}")

    def finish(self) -> None:
        """Fails unless the oracle was asked and has found nothing."""
        assert self._is_compared, f"row {self.row} ended without asking the oracle"
        harms = {harm: getattr(self, harm) for harm in Harm if getattr(self, harm)}
        assert not harms, f"row {self.row}, seed {self.seed}: {harms}; {self.notes}"
        self.passed = True


@contextmanager
def fault_run(row: int, seed: int = 0) -> Iterator[FaultRun]:
    """Runs a row: `with fault_run(3, seed) as run`. Passes only when the oracle was asked and found nothing."""
    run = FaultRun(row, seed)
    try:
        yield run
        run.finish()
    except TooLateError:
        raise
    except BaseException as error:
        run.notes.append(f"{type(error).__name__}: {error}"[:500])
        keep(run)
        raise
    keep(run)


def keep(run: FaultRun) -> None:
    """Adds the run as a line to the file that the environment names."""
    if path := os.environ.get(RESULTS):
        figures = {name: value for name, value in asdict(run).items() if not name.startswith("_")}
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(figures) + "\n")
