"""A store server that dies, hangs, loses answers, or refuses: rows 21 to 28 and 50."""

import os
import signal
import time
from collections.abc import Callable, Iterator

import orjson
import pytest

from pipeline.errors import Reason
from tests.e2e.harness import wait_until
from tests.e2e.oracle import VERSION_0
from tests.faults.harness import STORE_TIMEOUT_S, Ground, Rig
from tests.faults.proxy import Link
from tests.faults.results import fault_run
from tests.faults.steps import heal_and_check, kept_its_place, midstream, retried, stands_still
from tests.qdrant_server.faults import Fault

pytestmark = [pytest.mark.kafka]

UPSERT = "Points/Upsert"
OUTAGE_S = float(os.environ.get("REFRACT_FAULTS_OUTAGE_S", "60"))
BYTES_IN_FLIGHT = 65_536
NUM_THREADS = 4
"""Batch threads of a worker, as `limits.max_concurrent_batches` has it."""


@pytest.fixture(autouse=True)
def _healed(ground: Ground) -> Iterator[None]:
    yield
    ground.server.mend()
    ground.heal()


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.faults) for seed in (0, 2, 3))])
def test_server_killed_during_upserts(rig: Rig, seed: int) -> None:
    """Even seeds: whenever it happens to be. Odd ones: applied, and dead before the answer."""
    server = rig.ground.server
    with fault_run(21, seed) as run, rig.worker() as member:
        for _ in range(2):
            midstream(rig)
            if seed % 2:
                server.faults.set(Fault(UPSERT, apply=True, exit=True))
                server.wait()
                server.faults.clear()
            else:
                server.kill()
            retried(member)
            heal_and_check(rig, run, server.start)


@pytest.mark.faults
def test_server_hangs_for_long(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(limits__max_in_flight_bytes=BYTES_IN_FLIGHT)
    with fault_run(22) as run, rig.worker() as member:
        midstream(rig, 3_000)
        before, held = member.state(), member.held
        rig.ground.server.pause()
        try:
            time.sleep(OUTAGE_S / 2)
            halfway = member.state()
            time.sleep(OUTAGE_S / 2)
            after = member.state()
            kept_its_place(member, held)
        finally:
            rig.ground.server.resume()
            run.healed()
        assert after["received"] == halfway["received"] < 3_000, "paused at the bound on bytes in flight"
        assert not after["ready"]
        calls = after["retries"] - before["retries"]
        assert 0 < calls <= NUM_THREADS * (OUTAGE_S / STORE_TIMEOUT_S + 1), "calls are bounded by their time-outs"
        rig.wait_progress(run)
        assert run.recovery_s is not None
        assert run.recovery_s < 10 + STORE_TIMEOUT_S
        rig.check(run)


@pytest.mark.parametrize("seed", [1, pytest.param(0, marks=pytest.mark.faults)])
def test_answer_to_an_upsert_is_lost(rig: Rig, seed: int) -> None:
    """Even seed: the connection breaks when the answer comes. Odd: the answer never comes."""
    proxy = rig.ground.qdrant
    with fault_run(23, seed) as run, rig.worker() as member:
        midstream(rig)
        cut = proxy.counts["cut"]
        proxy.set(down=Link(swallowed=True) if seed % 2 else Link(cut_after=0, cuts=2))
        retried(member, 2)
        assert seed % 2 or proxy.counts["cut"] > cut
        proxy.reset()
        heal_and_check(rig, run, proxy.heal)
        assert member.state()["stale"] == 0, "a repeated write of the same version is none that lost"


@pytest.mark.faults
@pytest.mark.parametrize(("seed", "status"), list(enumerate(["WaitTimeout", "Acknowledged"])))
def test_answer_that_is_no_completion(rig: Rig, seed: int, status: str) -> None:
    """The answer says 200, and nothing was written."""
    faults = rig.ground.server.faults
    with fault_run(24, seed) as run, rig.worker() as member:
        midstream(rig)
        faults.set(Fault(UPSERT, times=-1, status=status, ignore=True))
        retried(member, 2)
        stands_still(rig)
        heal_and_check(rig, run, faults.clear)


@pytest.mark.faults
def test_rate_limit_that_says_how_long(rig: Rig) -> None:
    pause_s = 3.0
    faults = rig.ground.server.faults
    with fault_run(25) as run, rig.worker() as member:
        midstream(rig)
        hits, began_s = faults.num_hits(), time.monotonic()
        faults.set(
            Fault(
                UPSERT,
                times=-1,
                code="RESOURCE_EXHAUSTED",
                detail="Rate limiting exceeded",
                trailing={"retry-after": str(pause_s)},
            )
        )
        retried(member)
        time.sleep(2.5 * pause_s)
        hits, elapsed_s = faults.num_hits() - hits, time.monotonic() - began_s
        # Each thread writes to two collections at once, then waits.
        assert 0 < hits <= 2 * NUM_THREADS * (elapsed_s / pause_s + 1)
        heal_and_check(rig, run, faults.clear)


@pytest.mark.faults
def test_rate_limit_that_no_pause_satisfies(rig: Rig) -> None:
    faults = rig.ground.server.faults
    detail = "Rate limiting exceeded: request larger than rate limiter capacity, please try to split your request"
    with fault_run(25, seed=1) as run, rig.worker() as member:
        midstream(rig)
        hits, retries = faults.num_hits(), member.state()["retries"]
        faults.set(Fault(UPSERT, times=6, code="RESOURCE_EXHAUSTED", detail=detail))
        run.healed()
        wait_until(lambda: faults.num_hits() == hits + 6, "six requests were refused")
        rig.wait_progress(run)
        rig.check(run)
        assert member.state()["retries"] == retries, "halves were sent, not the same again"


REFUSALS = [
    ("INTERNAL", "Service internal error: No space left on device: WAL buffer size exceeds available disk space", 26),
    ("RESOURCE_EXHAUSTED", "Quota exceeded: collection storage", 27),
    ("UNAVAILABLE", "Service unavailable: Shard 0 is not available", 27),
]


@pytest.mark.faults
@pytest.mark.parametrize(("seed", "refusal"), list(enumerate(REFUSALS)))
def test_server_refuses_for_a_while(rig: Rig, seed: int, refusal: tuple[str, str, int]) -> None:
    code, detail, row = refusal
    faults = rig.ground.server.faults
    with fault_run(row, seed) as run, rig.worker() as member:
        midstream(rig)
        held = member.held
        faults.set(Fault(UPSERT, times=-1, code=code, detail=detail))
        retried(member, 4)
        stands_still(rig)
        wait_until(lambda: not member.state()["ready"], "not ready while the store refuses")
        kept_its_place(member, held)
        heal_and_check(rig, run, faults.clear)


@pytest.mark.faults
def test_one_point_of_a_batch_is_refused(make_rig: Callable[..., Rig]) -> None:
    """The server refuses every request that holds it: 255 are written, one is a letter."""
    rig = make_rig(limits__max_batch_records=256)
    journal, faults = rig.journal, rig.ground.server.faults
    refused = {"id": "refused", "title": "refuse me", "body": "b", "updated_at": VERSION_0, "status": "open"}
    faults.set(Fault(UPSERT, times=-1, code="INVALID_ARGUMENT", detail="Wrong input: payload", holds="refuse me"))
    with fault_run(28) as run:
        for number in range(255):
            journal.ticket(f"beside-{number}", 1)
            if number == 100:
                journal.poison(Reason.REFUSED_BY_STORE, orjson.dumps(refused), key=b"refused")
        journal.settle()
        run.healed()
        with rig.worker() as member:
            rig.wait_finished()
            run.recovered()
            rig.compare(run)
            assert faults.num_hits() > 0
            assert member.state()["letters"] == 1


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(2))
def test_only_the_way_to_the_store_is_cut(rig: Rig, seed: int) -> None:
    """Even seed: half-open, nothing comes back. Odd: refused. Both for longer than a session."""
    proxy = rig.ground.qdrant
    with fault_run(50, seed) as run, rig.worker(0) as first, rig.worker(1) as second:
        wait_until(lambda: first.held and second.held, "both hold partitions")
        midstream(rig)
        held = [first.held, second.held]
        if seed % 2:
            proxy.down()
        else:
            stalled = Link(stalled=True)
            proxy.set(up=stalled, down=stalled)
        time.sleep(15)
        for member, partitions in zip((first, second), held, strict=True):
            kept_its_place(member, partitions)
        heal_and_check(rig, run, proxy.heal)


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(2))
def test_server_stopped_and_a_member_killed_meanwhile(rig: Rig, seed: int) -> None:
    """Two faults at once: what the hanging server took still counts, whoever sent it."""
    server = rig.ground.server
    with fault_run(22, seed + 1) as run, rig.worker(0) as first, rig.worker(1) as second:
        wait_until(lambda: first.held and second.held, "both hold partitions")
        midstream(rig)
        server.pause()
        try:
            (first if seed else second).process.send_signal(signal.SIGKILL)
            time.sleep(8)
        finally:
            heal_and_check(rig, run, server.resume)
