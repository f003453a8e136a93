"""A broker that is away, slow, garbled, or whose answers are lost on the way: rows 11 and 14 to 16."""

import os
import time
from collections.abc import Callable, Iterator

import pytest

from pipeline.errors import Reason
from tests.e2e.harness import NUM_PARTITIONS, wait_until
from tests.faults.harness import Ground, Rig
from tests.faults.proxy import CLEAR, Link
from tests.faults.results import fault_run

pytestmark = [pytest.mark.kafka]

OUTAGE_S = float(os.environ.get("REFRACT_FAULTS_OUTAGE_S", "60"))
"""Ten minutes are asked for; `REFRACT_FAULTS_OUTAGE_S=600` takes them."""

MAX_GROWTH_BYTES = 40 << 20
"""What a member may gain in memory while a broker is away: its clients' buffers, once."""

MAX_RECONNECT_S = 10.0
LONGEST_CALL_S = 30.0
"""Twice the time-out of a request."""


@pytest.fixture(autouse=True)
def _healed(ground: Ground) -> Iterator[None]:
    yield
    ground.heal()


@pytest.mark.faults
def test_broker_away_for_long(rig: Rig) -> None:
    with fault_run(11) as run, rig.worker(0) as first, rig.worker(1) as second:
        members = (first, second)
        wait_until(lambda: all(member.held for member in members), "both hold partitions")
        rig.send(3_000)
        rig.wait_midstream()
        before = {member.pid: member.state() for member in members}
        rig.ground.broker.kill()
        try:
            end_s = time.monotonic() + OUTAGE_S
            red = [False, False]
            while time.monotonic() < end_s:
                time.sleep(0.5)
                red = [not member.state()["ready"] for member in members]
            assert red == [True, True], "a member without its broker is not ready"
        finally:
            rig.ground.broker.start()
            run.healed()
        rig.wait_progress(run)
        assert [member.process.poll() for member in members] == [None, None], "nobody has ended"
        growth = max(member.state()["rss"] - before[member.pid]["rss"] for member in members)
        assert growth < MAX_GROWTH_BYTES
        run.within(MAX_RECONNECT_S)
        rig.check(run)


def test_answer_to_a_commit_is_lost(rig: Rig) -> None:
    with fault_run(14) as run, rig.worker() as member:
        member.wait_ready()
        rig.send(800)
        rig.wait_midstream()
        rig.arm("before_commit", "sleep 1")
        rig.wait_struck("before_commit")
        before = rig.num_committed()
        rig.ground.kafka.set(down=Link(swallowed=True))
        wait_until(lambda: rig.num_committed() > before, "the broker applies a commit whose answer nobody gets")
        rig.ground.kafka.reset()
        rig.ground.kafka.set(down=CLEAR)
        run.healed()
        rig.wait_progress(run)
        rig.check(run)


def test_answer_to_a_dead_letter_is_lost(rig: Rig) -> None:
    with fault_run(14, seed=1) as run, rig.worker() as member:
        member.wait_ready()
        rig.journal.poison(Reason.INVALID_JSON, b"{first")  # the producer connects
        rig.check(run)
        rig.arm("after_upsert", "sleep 1")
        rig.journal.poison(Reason.INVALID_JSON, b"{second")
        rig.send(10)
        rig.wait_struck("after_upsert")
        rig.ground.kafka.set(down=Link(swallowed=True))
        wait_until(lambda: len(rig.journal.stored_letters()) == 2, "the broker takes a letter and nobody hears of it")
        rig.ground.kafka.reset()
        rig.ground.kafka.set(down=CLEAR)
        run.healed()
        rig.wait_progress(run)
        rig.check(run)
        assert len(rig.journal.stored_letters()) == 2, "one letter each: the repetition has the same sequence"


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(3))
def test_garbled_bytes(make_rig: Callable[..., Rig], seed: int) -> None:
    rig = make_rig(limits__max_batch_records=16)
    with fault_run(15, seed) as run, rig.worker() as member:
        member.wait_ready()
        rig.ground.kafka.seed = seed
        flipped = rig.ground.kafka.counts["flipped"]
        rig.ground.kafka.set(down=Link(flip_every=1 << 20))
        # Records so large that nearly every bit on the wire is one of theirs, under the batch's checksum: what stands
        # outside of it (offsets in answers, positions) only TLS protects.
        for number in range(400):
            rig.journal.ticket(f"G-{number}", 1, body=f"{number} " + "x" * 60_000)
        rig.journal.settle()
        wait_until(lambda: rig.ground.kafka.counts["flipped"] >= flipped + 3, "bits are flipped")
        rig.ground.kafka.set(down=CLEAR)
        run.healed()
        rig.wait_progress(run)
        rig.check(run)
        assert member.process.poll() is None
        assert "is rebuilt" in member.output(), "a checksum was found wrong"
        assert member.state()["slowest_turn_s"] < LONGEST_CALL_S


@pytest.mark.faults
def test_slow_link(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(
        source__session_timeout_ms=30_000, source__heartbeat_interval_ms=3_000, source__max_partition_fetch_bytes=4_096
    )
    with fault_run(16) as run, rig.worker() as member:
        member.wait_ready()
        wait_until(lambda: len(member.held) == 2 * NUM_PARTITIONS, "the member holds everything")
        slow = Link(latency_s=1.0, bytes_per_s=1_000)  # each way: 2 s from request to answer
        rig.ground.kafka.set(up=slow, down=slow)
        run.healed()
        rig.send(60)
        rig.wait_progress(run)
        rig.check(run)
        assert member.state()["num_assigned"] == 2 * NUM_PARTITIONS, "no rebalance"
        assert member.state()["slowest_turn_s"] < LONGEST_CALL_S
