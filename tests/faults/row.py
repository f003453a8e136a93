"""One line of the fault table: what is broken, how, what must come of it, and the tests that show it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """Without `tests` the row cannot run on one machine of ours, and `reason` says why."""

    number: int
    fault: str
    how: str
    """How the fault is made."""
    expected: str
    tests: tuple[str, ...] = ()
    """Ids of tests, each of which records its runs with `results.fault_run`."""
    reason: str = ""
    is_smoke: bool = False
    """Whether `make test` runs it, too."""
