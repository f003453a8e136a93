"""Ray's own processes, a hanging encoder, and an API under more load than it takes: rows 33, 38 and 49."""

import signal
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress

import httpx
import numpy as np
import psutil
import pytest

from actors.embedder import HANG_S
from pipeline.cli.exits import ExitCode
from tests.e2e.harness import CommandApp, wait_until
from tests.faults.app_rig import AppRig
from tests.faults.harness import Ground, Rig
from tests.faults.results import fault_run

pytestmark = [pytest.mark.kafka, pytest.mark.ray, pytest.mark.faults]

END_S = 120.0
"""Longest time in which a command whose Ray is gone must have ended, for its supervisor to start another."""

REPLACED_S = 75.0
"""Beyond the time that counts as a hang: three health checks, Serve's grace for what is in flight, a new start."""

NUM_STARTS = 3
NUM_CLIENTS = 40
FLOOD_S = 20.0


def family(root: int, name: str) -> list[psutil.Process]:
    """Returns the processes of a name below a process: nobody else's Ray is touched."""
    found = []
    for process in psutil.Process(root).children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if process.name().startswith(name):
                found.append(process)
    return found


def start_again(stack: ExitStack, rig: Rig, ground: Ground) -> None:
    """Starts the command as a supervisor does: a start that takes Ray too long has exit code 3, and is repeated."""
    for attempt in range(1, NUM_STARTS + 1):
        app = CommandApp(rig.path, ground.broker, rig.journal)
        try:
            stack.enter_context(app)
        except AssertionError:
            if app.process.returncode != ExitCode.UNREACHABLE or attempt == NUM_STARTS:
                raise
        else:
            return


@pytest.mark.timeout(500)
@pytest.mark.parametrize(("seed", "name"), [(0, "raylet"), (1, "gcs_server")])
def test_process_of_ray_is_killed(rig: Rig, ground: Ground, seed: int, name: str) -> None:
    """`refract run` ends by itself, and the one that is started in its place goes on from Kafka."""
    with fault_run(33, seed) as run:
        with CommandApp(rig.path, ground.broker, rig.journal) as app:
            rig.send(4_000)
            rig.wait_midstream(0.1)
            (victim,) = family(app.pid, name)
            left = psutil.Process(app.pid).children(recursive=True)
            victim.send_signal(signal.SIGKILL)
            run.healed()
            wait_until(lambda: app.process.poll() is not None, f"the command ends: {app.output()}", timeout_s=END_S)
            assert app.process.returncode not in (0, -signal.SIGKILL)
            psutil.wait_procs(left, timeout=END_S)
        rig.send(500)  # without gcs_server the actors may have come to the end of the others before they noticed
        with ExitStack() as stack:
            start_again(stack, rig, ground)
            rig.wait_progress(run)
            rig.check(run)


@pytest.mark.timeout(500)
def test_encoder_hangs(ground: Ground) -> None:
    with AppRig(ground, "hanging") as rig, fault_run(38) as run:
        before = {process.pid for process in rig.replicas("Embedder")}
        rig.arm("forward", f"sleep {10 * HANG_S}")
        rig.send(500)
        hanging = rig.wait_struck("forward")
        run.healed()
        assert hanging in before
        wait_until(
            lambda: hanging not in {process.pid for process in rig.replicas("Embedder")},
            "the hanging replica is gone",
            timeout_s=HANG_S + REPLACED_S,
        )
        rig.wait_complete()
        rig.wait_finished()
        run.recovered()
        rig.check(run)


class Client(threading.Thread):
    """Asks for the neighbours of known texts as fast as it is answered."""

    def __init__(self, rig: AppRig, keys: list[str], stop: threading.Event) -> None:
        super().__init__()
        self._rig, self._keys, self._halt = rig, keys, stop
        self.answers: Counter[int] = Counter()
        self.wrong: list[str] = []
        self.admitted_s: list[float] = []
        self.refused_s: list[float] = []
        self.start()

    def run(self) -> None:
        with httpx.Client(base_url=self._rig.app.http.base_url, timeout=30, trust_env=False) as http:
            for number in range(10**9):
                if self._halt.is_set():
                    return
                self._ask(http, self._keys[number % len(self._keys)])

    def _ask(self, http: httpx.Client, key: str) -> None:
        text = self._rig.journal.expected("urgency", key).text
        begun_s = time.monotonic()
        try:
            answer = http.post("/v1/search", json={"task": "urgency", "text": text, "limit": 1})
        except httpx.TransportError:
            self.answers[0] += 1
            return
        took_s = time.monotonic() - begun_s
        self.answers[answer.status_code] += 1
        if answer.status_code == 200:
            self.admitted_s.append(took_s)
            hit = answer.json()["hits"][0]
            if hit["key"] != key or hit["score"] < 0.999:
                self.wrong.append(f"{key}: {hit['key']} with {hit['score']}")
        elif answer.status_code == 500:
            # Serve's answer to what was under way in a replica that was killed. Ours would be a bug.
            if "json" in answer.headers.get("content-type", ""):
                self.wrong.append(answer.text)
        else:
            self.refused_s.append(took_s)
            time.sleep(0.05)  # as long as a refused client waits at least


@pytest.mark.timeout(400)
def test_api_is_flooded_and_replicas_die(ground: Ground) -> None:
    with AppRig(ground, "flooded", api__max_concurrent_requests=8) as rig, fault_run(49) as run:
        keys = rig.send(500)
        rig.check(run)
        stop = threading.Event()
        clients = [Client(rig, keys, stop) for _ in range(NUM_CLIENTS)]
        try:
            time.sleep(FLOOD_S / 2)
            rig.send(1_000)
            for role in ("Api", "Embedder"):
                rig.replicas(role)[0].send_signal(signal.SIGKILL)
                run.healed()
                rig.wait_complete()
                wait_until(rig.app.ready, "the API answers again")
                run.recovered()
            time.sleep(FLOOD_S / 2)
        finally:
            stop.set()
            for client in clients:
                client.join()
        answers = sum((client.answers for client in clients), Counter())
        assert [wrong for client in clients for wrong in client.wrong] == []
        assert set(answers) <= {0, 200, 429, 500, 503}, answers
        assert answers[0] + answers[500] <= NUM_CLIENTS, answers
        assert min(answers[200], answers[429]) > 50, answers
        admitted = np.concatenate([client.admitted_s for client in clients])
        refused = np.concatenate([client.refused_s for client in clients])
        run.notes.append(
            f"{dict(answers)}; admitted p50 {np.median(admitted):.2f} s, p99 {np.percentile(admitted, 99):.2f} s; "
            f"refused p50 {np.median(refused):.3f} s"
        )
        assert np.median(refused) < np.median(admitted)
        rig.check(run)
