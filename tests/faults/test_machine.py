"""The machine around the pipeline: Ray's messages, clocks, deployments, processors, and time itself."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from kafka import KafkaConsumer
from kafka.coordinator.assignors.range import RangePartitionAssignor

from tests.e2e.harness import NUM_PARTITIONS, wait_until
from tests.faults import chance
from tests.faults.app_rig import AppRig
from tests.faults.harness import Ground, Rig
from tests.faults.results import fault_run

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

SOAK_S = float(os.environ.get("REFRACT_FAULTS_SOAK_S", "120"))
MAX_GROWTH_MIB = 80
"""Of the largest process of a role, over a soak of minutes: caches fill, and a replaced process begins anew."""

HOUR_S = 3_600
CGROUP = Path("/sys/fs/cgroup/cpu/refract-faults")
PERIOD_US = 100_000
TENTH_US = PERIOD_US // 10

LOST_RPCS = {
    "CoreWorkerService.grpc_client.PushTask": {
        "num_failures": 30,
        "req_failure_prob": 2,
        "resp_failure_prob": 2,
        "in_flight_failure_prob": 2,
    }
}
"""Percent of the calls between actors that a process of Ray's drops itself: requests, answers, and both. At most 30."""


def test_clock_jumps(rig: Rig, tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("0")
    with fault_run(41) as run, rig.worker(0, "--clock", str(clock)) as member:
        member.wait_ready()
        for shift_s in (HOUR_S, -HOUR_S, 0):
            rig.send(800)
            rig.wait_midstream()
            beside = clock.with_suffix(".tmp")
            beside.write_text(str(shift_s))
            beside.rename(clock)
            run.healed()
            rig.wait_progress(run)
            rig.check(run)
        assert member.process.poll() is None
        assert member.state()["num_assigned"] == 2 * NUM_PARTITIONS, "no session ended over it"
        run.within(5)


def test_rolling_replacement(rig: Rig) -> None:
    new = rig.folder / "new.yaml"
    new.write_text(
        rig.path.read_text()
        .replace("commit_interval_s: 0.5", "commit_interval_s: 0.8\n  client_id: refract-new")
        .replace("max_batch_records: 64", "max_batch_records: 48")
    )
    with fault_run(47) as run, ExitStack() as members:
        old = [members.enter_context(rig.worker(number)) for number in range(2)]
        wait_until(lambda: all(member.held for member in old), "the old members hold partitions")
        keys = rig.send(3_000)
        rig.wait_midstream(0.05)
        for number, leaving in enumerate(old):
            fresh = members.enter_context(rig.worker(10 + number, config=new))
            wait_until(lambda fresh=fresh: fresh.held, "old and new hold partitions side by side")  # type: ignore[misc]
            for key in keys[number::50]:
                rig.journal.ticket(key, 2 + number)
            rig.journal.settle()
            run.healed()
            assert leaving.terminate() == 0, leaving.output()
        rig.wait_progress(run)
        rig.check(run)


def test_mixed_assignors_are_refused(rig: Rig) -> None:
    source = rig.journal.source
    other = KafkaConsumer(
        bootstrap_servers=source.bootstrap_servers,
        group_id=source.group_id,
        partition_assignment_strategy=[RangePartitionAssignor],
        enable_auto_commit=False,
    )
    try:
        other.subscribe([rig.journal.tickets])
        wait_until(
            lambda: other.poll(timeout_ms=100) is not None and other.assignment(), "another tool holds partitions"
        )
        with fault_run(47, seed=1) as run, rig.worker() as member:
            begun_s = time.monotonic()
            while member.process.poll() is None and time.monotonic() < begun_s + 30:
                other.poll(timeout_ms=100)
            assert member.process.poll() == 1, member.output()
            assert "another assignment strategy" in member.output()
            rig.compare(run)
    finally:
        other.close()


@pytest.fixture
def tenth() -> Iterator[Path]:
    """A control group with a tenth of a processor; needs root and the cpu controller of cgroup v1."""
    try:
        CGROUP.mkdir(exist_ok=True)
        (CGROUP / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (CGROUP / "cpu.cfs_quota_us").write_text(str(TENTH_US))
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    yield CGROUP
    CGROUP.rmdir()


def confine(group: Path, pid: int) -> None:
    (group / "cgroup.procs").write_text(str(pid))


def test_tenth_of_a_processor(make_rig: Callable[..., Rig], tenth: Path) -> None:
    rig = make_rig(source__session_timeout_ms=30_000, store__timeout_s=30)
    with fault_run(51) as run, rig.worker(0) as first, rig.worker(1) as second:
        wait_until(lambda: first.held and second.held, "both hold partitions")
        for member in (first, second):
            confine(tenth, member.pid)
        rig.send(1_500)
        rig.wait_midstream()
        first.stop()
        time.sleep(5)
        first.resume()
        rig.ground.broker.kill()
        rig.ground.broker.start()
        run.healed()
        rig.wait_progress(run, 240)
        rig.send(2_000)
        first.kill()
        run.healed()
        rig.wait_progress(run, 240)
        rig.check(run, 240)
        second.kill()
        wait_until(lambda: not (tenth / "cgroup.procs").read_text().strip(), "the group is empty")


@pytest.mark.ray
@pytest.mark.timeout(400)
def test_lost_rpcs_of_ray(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_testing_rpc_failure", json.dumps(LOST_RPCS))
    with AppRig(ground, "lost-rpcs") as rig, fault_run(34) as run:
        run.healed()
        rig.send(2_000)
        rig.wait_progress(run)
        rig.check(run)


@pytest.mark.ray
@pytest.mark.timeout(SOAK_S + 400)
def test_soak(ground: Ground) -> None:
    with AppRig(ground, "soak", **chance.changes()) as rig, fault_run(52) as run:
        soak = chance.Chance(rig)
        begun_s, seed = time.monotonic(), 10_000
        while time.monotonic() < begun_s + SOAK_S:
            line = soak.run(seed)
            assert line["passed"], line
            run.recovery_s = max(run.recovery_s or 0.0, line["recovery_s"])
            run.duplicates += line["duplicates"]
            seed += 1
        rig.check(run)
        for role, usage in soak.usage.items():
            half = len(usage.rss) // 2
            growth = max(usage.rss[half:]) - max(usage.rss[: half + 1])
            assert growth < MAX_GROWTH_MIB << 20, f"{role} grew by {growth >> 20} MiB"
        assert rig.sampler.num_looks > 100
