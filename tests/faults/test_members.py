"""Members of the group that die, stop, sleep, come and go: rows 1 to 9."""

import pytest

from tests.faults.harness import Rig
from tests.faults.results import fault_run

pytestmark = [pytest.mark.kafka]


def test_killed_between_upsert_and_commit(rig: Rig) -> None:
    with fault_run(2) as run, rig.worker() as first:
        first.wait_ready()
        rig.arm("after_upsert", "exit")
        rig.send(1_500)
        first.wait()
        assert rig.wait_struck("after_upsert") == first.pid
        run.healed()
        with rig.worker(1):
            rig.wait_progress(run)
            rig.check(run)
        assert run.duplicates > 0, "what was written and not committed is done again"
