"""Members of the group that die, sleep, come and go: rows 2 to 9."""

import os
import random
import signal
import time
from collections.abc import Callable

import pytest

from pipeline.config.source import SourceConfig
from pipeline.errors import Reason
from tests.e2e.harness import NUM_PARTITIONS, wait_until
from tests.faults.harness import SESSION_TIMEOUT_S, Rig, WorkerProcess
from tests.faults.results import TooLateError, fault_run
from tests.integration.members import Member

pytestmark = [pytest.mark.kafka]

STORM_S = float(os.environ.get("REFRACT_FAULTS_STORM_S", "30"))
"""Two minutes are asked for; `REFRACT_FAULTS_STORM_S=120` takes them."""

JOIN_LEAVE_S = 2.0
ALL_PARTITIONS = 2 * NUM_PARTITIONS
"""Of both topics."""

RECOVERY_S = SESSION_TIMEOUT_S + 5.0
"""From a member's death until others read its partitions."""
STARTUP_S = 10.0
"""A member that is started only after the kill has its imports before it."""

NOTICED_S = 30.0


def passer_by(rig: Rig, instance: int) -> Member:
    """A member that reads what it is given, finishes nothing, and so commits nothing."""
    source: SourceConfig = rig.journal.source
    return Member(source, instance, hold=lambda _: True)


def wait_alone(worker: WorkerProcess) -> None:
    wait_until(lambda: len(worker.held) == ALL_PARTITIONS, "one member holds everything")


def num_tickets(rig: Rig, member: WorkerProcess) -> int:
    return sum(topic == rig.journal.tickets for topic, _ in member.held)


def wait_half(member: Member | WorkerProcess) -> None:
    wait_until(lambda: len(member.held) == NUM_PARTITIONS, "half of the partitions move")


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
        run.within(RECOVERY_S + STARTUP_S)


def test_killed_between_dead_letter_and_commit(rig: Rig) -> None:
    with fault_run(3) as run, rig.worker() as first:
        first.wait_ready()
        rig.arm("after_dead_letter", "exit")
        for number in range(20):
            rig.journal.poison(Reason.INVALID_JSON, b"{%d" % number)
        rig.send(400)
        first.wait()
        assert rig.wait_struck("after_dead_letter") == first.pid
        run.healed()
        with rig.worker(1):
            rig.wait_progress(run)
            rig.check(run)
        letters = rig.journal.stored_letters()
        assert len(letters) > len(rig.journal.letters), "the letters whose offsets were not committed are sent again"


def test_stopped_beyond_its_session_and_resumed(rig: Rig) -> None:
    with fault_run(4) as run, rig.worker(0) as first, rig.worker(1) as second:
        for member in (first, second):
            wait_half(member)
        # Either may hold no partition but the events', in which nothing is sent.
        other, sleeper = sorted((first, second), key=lambda member: num_tickets(rig, member))
        keys = rig.send(2_000)
        rig.wait_midstream()
        sleeper.stop()
        committed = rig.committed() or {}
        if all(committed.get(place, 0) >= rig.journal.ends.get(place, 0) for place in sleeper.held):
            raise TooLateError("the sleeper has finished what it holds")
        run.healed()
        wait_alone(other)
        run.recovered()
        for key in keys:
            rig.journal.ticket(key, 2)  # newer than what the sleeper holds
        rig.journal.settle()
        sleeper.resume()
        rig.check(run)
        wait_until(lambda: sleeper.held and other.held, "the sleeper takes part again")
        run.within(RECOVERY_S)


def test_old_batch_arrives_after_the_newer_version(rig: Rig) -> None:
    with fault_run(5) as run, rig.worker(0) as zombie:
        zombie.wait_ready()
        rig.arm("after_embed", "stop")
        keys = rig.send(200)
        assert rig.wait_struck("after_embed") == zombie.pid
        run.healed()
        with rig.worker(1) as owner:
            wait_alone(owner)
            for key in keys:
                rig.journal.ticket(key, 2)
            rig.wait_finished()
            run.recovered()
            before = zombie.state()["stale"]
            rig.arm("after_upsert", "pass")
            zombie.resume()
            assert rig.wait_struck("after_upsert") == zombie.pid, "the old batch reaches the store"
            wait_until(lambda: zombie.state()["stale"] > before, "and is refused there as older")
            rig.check(run)


@pytest.mark.faults
def test_slow_encoder_keeps_its_membership(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(
        source__max_poll_interval_ms=10_000,
        models__hash__overrides={"delay_ms_per_batch": 6_000},  # for each of two tasks: longer than the interval
    )
    with fault_run(6) as run, rig.worker(0) as only:
        wait_alone(only)
        rig.send(20)
        begun_s = time.monotonic()
        rig.check(run)
        assert time.monotonic() - begun_s > 10
        assert only.state()["num_assigned"] == ALL_PARTITIONS, "no partition ever went and came back"
        assert only.state()["received"] == 20


@pytest.mark.faults
def test_loop_that_hangs_beyond_the_poll_interval(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(source__max_poll_interval_ms=10_000)
    with fault_run(6, seed=1) as run, rig.worker(0) as hanging, rig.worker(1) as other:
        wait_until(lambda: hanging.held and other.held, "both hold partitions")
        rig.send(2_000)
        rig.wait_midstream()
        rig.arm("before_poll", "sleep 14")
        struck = rig.wait_struck("before_poll")
        run.healed()
        survivor = other if struck == hanging.pid else hanging
        wait_alone(survivor)
        run.recovered()
        rig.check(run)
        wait_until(lambda: hanging.held and other.held, "the member that hung takes part again")


@pytest.mark.faults
def test_rebalance_storm(rig: Rig) -> None:
    with fault_run(7) as run, rig.worker(0) as first, rig.worker(1) as second:
        wait_until(lambda: first.held and second.held, "both hold partitions")
        begun_s, rounds = time.monotonic(), 0
        stored = rig.num_committed()
        while time.monotonic() < begun_s + STORM_S:
            rig.send(300)
            with passer_by(rig, 100 + rounds):
                time.sleep(JOIN_LEAVE_S)
            rounds += 1
        assert rig.num_committed() > stored, "records are finished during the storm"
        assert rounds >= STORM_S / (JOIN_LEAVE_S + 4)
        run.healed()
        rig.send(200)
        rig.wait_progress(run)
        rig.check(run)


@pytest.mark.faults
def test_partition_gone_and_back_while_its_batch_is_in_flight(rig: Rig) -> None:
    with fault_run(8) as run, rig.worker(0) as member:
        wait_alone(member)
        rig.arm("after_embed", "sleep 12")
        rig.send(1_000)
        assert rig.wait_struck("after_embed") == member.pid
        for number in range(2):
            with passer_by(rig, 100 + number) as other:
                wait_half(other)
            wait_alone(member)
        assert member.state()["num_assigned"] >= ALL_PARTITIONS + NUM_PARTITIONS
        run.healed()
        rig.wait_progress(run)
        rig.check(run)
        assert run.duplicates > 0, "what was in flight belongs to an older epoch and is done again"


@pytest.mark.faults
def test_second_member_with_the_same_instance_id(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(source__group_instance_id="fixed")
    with fault_run(9) as run, rig.worker(0) as first:
        wait_alone(first)
        rig.send(1_000)
        rig.wait_midstream()
        with rig.worker(0) as second:
            run.healed()
            assert first.wait() == 1, first.output()
            assert "group_instance_id" in first.output()
            wait_alone(second)
            run.recovered()
            run.within(NOTICED_S)
            rig.check(run)


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_a_random_moment(rig: Rig, seed: int) -> None:
    """Row 1 without Serve: members alone, where a kill can hit any instruction."""
    chance = random.Random(seed)
    with fault_run(1, seed) as run, rig.worker(0) as first, rig.worker(1) as second:
        wait_until(lambda: first.held and second.held, "both hold partitions")
        rig.send(2_000)
        rig.wait_midstream(0.05)
        time.sleep(chance.random())
        victim = chance.choice([first, second])
        os.kill(victim.pid, signal.SIGKILL)
        run.healed()
        wait_alone(first if victim is second else second)
        run.recovered()
        rig.check(run)
        run.within(RECOVERY_S)
