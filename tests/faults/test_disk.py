"""Disks that are full and memory that is short: rows 26, 39 and 40."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.e2e.harness import wait_until
from tests.faults.harness import Ground, Rig
from tests.faults.results import fault_run
from tests.faults.steps import heal_and_check, kept_its_place, midstream, retried, stands_still
from tests.qdrant_server.process import QdrantServer

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

MIN_FREE = 64 << 20
MEMORY = Path("/sys/fs/cgroup/memory/refract-faults")
MEMORY_LEFT = 24 << 20
"""What a member may take beyond what it has once it holds its partitions."""


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """A file system of its own in memory; needs root."""
    path.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)  # noqa: S603 - the system's command
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)  # noqa: S603, S607 - as above


def fill(disk: Path, leave: int = 0) -> Path:
    """Writes a file that takes everything but so many bytes; returns it."""
    filler = disk / "filler"
    found = os.statvfs(disk)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize - leave)
    return filler


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """A ground whose store server has a small disk."""
    folder = tmp_path_factory.mktemp("disk")
    with small_disk(folder / "qdrant", "768m") as disk:
        made = Ground(folder)
        made.server = QdrantServer(disk, "--min-free", str(MIN_FREE))
        with made:
            yield made


def test_disk_of_the_server_is_full(rig: Rig) -> None:
    with fault_run(26, seed=10) as run, rig.worker() as member:
        midstream(rig)
        held = member.held
        filler = fill(rig.ground.server.path, MIN_FREE // 2)
        retried(member, 4)
        assert "No space left on device" in member.output()
        stands_still(rig)
        kept_its_place(member, held)
        heal_and_check(rig, run, filler.unlink)


def test_disk_of_the_logs_is_full(rig: Rig, tmp_path: Path) -> None:
    """A line that cannot be written is lost; a record is not."""
    with small_disk(tmp_path / "logs", "64k") as disk, fault_run(40) as run:
        log = disk / "worker.log"
        (rig.folder / "worker-0.log").symlink_to(log)
        with rig.worker() as member:
            member.wait_ready()
            begun = log.stat().st_size
            filler = fill(disk)
            rig.send(1_500)
            rig.wait_midstream()
            rig.ground.server.kill()  # every repeated call wants to say so
            retried(member, 8)
            assert log.stat().st_size < begun + 8_192, "the disk was not full"
            rig.ground.server.start()
            run.healed()
            rig.wait_progress(run)
            rig.check(run)
            assert member.process.poll() is None
            filler.unlink()
            assert member.terminate() == 0


@pytest.fixture
def memory() -> Iterator[Path]:
    """A control group whose members may take a little more memory; needs root and the controller of cgroup v1."""
    try:
        MEMORY.mkdir(exist_ok=True)
        (MEMORY / "memory.limit_in_bytes").write_text(str(MEMORY_LEFT))
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    yield MEMORY
    wait_until(lambda: not (MEMORY / "cgroup.procs").read_text().strip(), "the group is empty")
    with suppress(OSError):
        MEMORY.rmdir()


def test_memory_is_short(make_rig: Callable[..., Rig], memory: Path) -> None:
    """The kernel kills the member in the middle of large records; another one, with room, ends what it began."""
    rig = make_rig(limits__max_in_flight_bytes=256 << 20)
    with fault_run(39) as run, rig.worker() as member:
        member.wait_ready()
        (memory / "cgroup.procs").write_text(str(member.pid))
        for number in range(1_500):
            rig.journal.ticket(f"large-{number}", 1, body=" ".join([str(number)] * 4_000))
        rig.journal.settle()
        assert member.wait() == -signal.SIGKILL
        assert rig.num_committed() < rig.journal.num_records()
        run.healed()
        with rig.worker(1):
            rig.wait_progress(run)
            rig.check(run)
