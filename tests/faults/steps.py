"""Steps that rows about the store have in common."""

import time
from collections.abc import Callable

from tests.e2e.harness import wait_until
from tests.faults.harness import Rig, WorkerProcess
from tests.faults.results import FaultRun

SETTLE_S = 1.5
"""Longer than two commits are apart: what was finished before a fault is committed by then."""


def midstream(rig: Rig, count: int = 1_500) -> None:
    rig.send(count)
    rig.wait_midstream()


def retried(member: WorkerProcess, times: int = 1) -> None:
    """Returns when the member has repeated a call so often from now on."""
    before = member.state()["retries"]
    wait_until(lambda: member.state()["retries"] >= before + times, f"{times} repeated calls")


def stands_still(rig: Rig) -> None:
    """Fails when anything is committed for a while: nobody may take an unwritten record for finished."""
    time.sleep(SETTLE_S)
    before = rig.committed()
    time.sleep(2 * SETTLE_S)
    assert rig.committed() == before, "committed, and not stored"


def heal_and_check(rig: Rig, run: FaultRun, heal: Callable[[], object]) -> None:
    heal()
    run.healed()
    rig.wait_progress(run)
    rig.check(run)


def kept_its_place(member: WorkerProcess, held: list[tuple[str, int]]) -> None:
    state = member.state()
    assert member.process.poll() is None
    assert member.held == held
    assert state["dropped"] == 0, "no partition has gone and come back"
