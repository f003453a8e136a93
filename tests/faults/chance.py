"""Faults at random to one long-lived app: what, to whom, when and for how long follows from a seed.

Each run sends new versions, late older ones, deletes and records that can never be stored, over one
pool of keys; disturbs one or two processes or connections meanwhile; mends them; and asks the
oracle about everything. `python -m tests.faults --random 100` or `--hours 24`.
"""

import json
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from pipeline.errors import Reason
from tests.e2e.harness import wait_until
from tests.faults.app_rig import ROLES, AppRig
from tests.faults.harness import Ground
from tests.faults.proxy import CLEAR, Link, Proxy
from tests.faults.results import FaultRun, keep

NUM_KEYS = 2_000
NUM_RECORDS = 1_200
STREAM_S = 4.0
"""About as long as the app works on so many; faults begin within it."""

LONGEST_FAULT_S = 8.0
"""Beyond the session timeout, so that a stopped member loses its partitions."""

PATIENCE_S = 120.0
RANDOM_ROW = 0
"""Runs of no row of the table."""

progress = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Disturbance:
    """Something to do, and how to mend it."""

    name: str
    do: Callable[[], object]
    mend: Callable[[], object]


@dataclass
class Usage:
    """Memory and descriptors of one role's processes over time."""

    at_s: list[float] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)
    fds: list[int] = field(default_factory=list)


class Chance:
    """Disturbs an app again and again."""

    def __init__(self, rig: AppRig) -> None:
        self.rig = rig
        self.usage: dict[str, Usage] = {}
        self._versions = dict.fromkeys((f"K-{number}" for number in range(NUM_KEYS)), 0)

    def run(self, seed: int) -> dict[str, Any]:
        """One run; returns its line. Raises nothing: a run that fails is red."""
        chance = random.Random(seed)
        run = FaultRun(RANDOM_ROW, seed)
        chosen = self._choose(chance)
        begins_s = sorted(chance.uniform(0, STREAM_S) for _ in chosen)
        lasts_s = [chance.uniform(0.2, LONGEST_FAULT_S) for _ in chosen]
        begun_s = time.monotonic()
        try:
            self._send(chance)
            self._disturb(chosen, begins_s, lasts_s)
            run.healed()
            self.rig.wait_finished(PATIENCE_S)
            run.recovered()
            self.rig.check(run, PATIENCE_S)
            self.rig.wait_complete()
            run.finish()
        except AssertionError as error:
            run.notes.append(str(error)[:1_000])
        keep(run)
        self.note_usage()
        names = [
            f"{one.name} at {at:.1f} s for {last:.1f} s"
            for one, at, last in zip(chosen, begins_s, lasts_s, strict=True)
        ]
        line = {"seed": seed, "faults": names, "took_s": round(time.monotonic() - begun_s, 1)}
        figures = ("recovery_s", "duplicates", "lost", "doubled", "stale", "wrong", "passed")
        return line | {name: getattr(run, name) for name in figures} | ({} if run.passed else {"notes": run.notes})

    def note_usage(self) -> None:
        """Takes the memory and descriptors of the app's processes."""
        for role in ROLES:
            with suppress(psutil.NoSuchProcess):
                processes = self.rig.replicas(role)
                usage = self.usage.setdefault(role, Usage())
                usage.at_s.append(time.monotonic())
                usage.rss.append(max((process.memory_info().rss for process in processes), default=0))
                usage.fds.append(max((process.num_fds() for process in processes), default=0))

    def _send(self, chance: random.Random) -> None:
        journal = self.rig.journal
        for _ in range(NUM_RECORDS):
            key = chance.choice(list(self._versions)) if chance.random() < 0.9 else "K-0"
            dice = chance.random()
            if dice < 0.02:
                journal.poison(Reason.INVALID_JSON, b"{%d" % chance.randrange(10**9))
            elif dice < 0.1 and self._versions[key]:
                # An older state that comes late; of a version that was sent already it is the very copy.
                journal.ticket(key, chance.randrange(self._versions[key]) * 2 + 1, "late")
            else:
                self._versions[key] += 1
                journal.ticket(key, self._versions[key] * 2, deleted=dice > 0.95)
        journal.settle()

    def _disturb(self, chosen: Sequence[Disturbance], begins_s: Sequence[float], lasts_s: Sequence[float]) -> None:
        """Does and mends everything at its moment; mends what was done whatever happens."""
        start_s = time.monotonic()
        moments = [(begin, index, True) for index, begin in enumerate(begins_s)]
        moments += [(begins_s[index] + last, index, False) for index, last in enumerate(lasts_s)]
        done: set[int] = set()
        try:
            for at_s, index, begins in sorted(moments):
                time.sleep(max(0.0, start_s + at_s - time.monotonic()))
                if begins:
                    done.add(index)
                    chosen[index].do()
                else:
                    done.discard(index)
                    chosen[index].mend()
        finally:
            for index in done:
                chosen[index].mend()

    def _choose(self, chance: random.Random) -> list[Disturbance]:
        """Returns one or two disturbances of different things."""
        kinds = [self._of_process, self._of_store, self._of_broker, self._of_link]
        return [kind(chance) for kind in chance.sample(kinds, chance.choice([1, 1, 2]))]

    def _of_process(self, chance: random.Random) -> Disturbance:
        role = chance.choice(["Ingestor", "Embedder"])
        number, kill = chance.randrange(2), chance.random() < 0.6
        stopped: list[psutil.Process] = []

        def do() -> None:
            processes = wait_until(lambda: self.rig.replicas(role), f"there is an {role}")
            victim = processes[number % len(processes)]
            with suppress(psutil.NoSuchProcess):
                victim.send_signal(signal.SIGKILL if kill else signal.SIGSTOP)
                stopped.append(victim)

        def mend() -> None:
            for victim in stopped:
                with suppress(psutil.NoSuchProcess):
                    victim.send_signal(signal.SIGCONT)

        return Disturbance(f"{'kill' if kill else 'stop'} {role.lower()} {number}", do, mend)

    def _of_store(self, chance: random.Random) -> Disturbance:
        server = self.rig.ground.server
        if chance.random() < 0.6:
            return Disturbance("kill store", server.kill, server.start)
        return Disturbance("stop store", server.pause, server.resume)

    def _of_broker(self, chance: random.Random) -> Disturbance:
        broker = self.rig.ground.broker
        if chance.random() < 0.5:
            return Disturbance("kill broker", broker.kill, broker.start)
        return Disturbance("stop broker", broker.freeze, broker.thaw)

    def _of_link(self, chance: random.Random) -> Disturbance:
        name = chance.choice(["kafka", "qdrant"])
        proxy: Proxy = getattr(self.rig.ground, name)
        what = chance.choice(["reset", "down", "stall", "latency", "slow", "cut", "lost answers"])
        links = {
            "stall": Link(stalled=True),
            "latency": Link(latency_s=chance.uniform(0.1, 1.0)),
            "slow": Link(bytes_per_s=chance.uniform(20_000, 200_000)),
            "cut": Link(cut_after=chance.randrange(1, 50_000), cuts=chance.randrange(1, 6)),
            "lost answers": Link(swallowed=True),
        }

        def do() -> None:
            if what == "reset":
                proxy.reset()
            elif what == "down":
                proxy.down()
            elif what == "lost answers":
                proxy.set(down=links[what])
            else:
                proxy.set(up=links[what], down=links[what])

        def mend() -> None:
            if what in ("stall", "lost answers"):
                proxy.set(up=CLEAR, down=CLEAR)
                proxy.reset()  # the bytes in between are gone; what is left of the connections is of no use
            proxy.heal()

        return Disturbance(f"{name} connection: {what}", do, mend)


def slopes(usage: dict[str, Usage]) -> dict[str, dict[str, float]]:
    """Returns per role what memory (MiB) and descriptors gain in an hour, as a straight line through all samples."""
    found = {}
    for role, seen in usage.items():
        hours = [at_s / 3600 for at_s in seen.at_s]
        if len(set(hours)) > 1:
            found[role] = {
                "rss_mib_per_h": round(statistics.linear_regression(hours, [rss / 2**20 for rss in seen.rss]).slope, 1),
                "fds_per_h": round(statistics.linear_regression(hours, seen.fds).slope, 1),
                "rss_mib": round(seen.rss[-1] / 2**20),
                "fds": seen.fds[-1],
            }
    return found


def changes() -> dict[str, Any]:
    """Settings under which the records of one run keep the app busy for some seconds."""
    return {
        "models__hash__overrides": {"delay_ms_per_batch": 100},
        "models__hash__model": "null:64",
        "limits__max_batch_records": 32,
    }


def main(count: int | None, hours: float | None, first_seed: int, json_path: Path | None) -> int:
    """Runs so many faults, or for so long; prints each as it ends. Returns the exit code."""
    end_s = time.monotonic() + hours * 3600 if hours else None
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="refract-chance-") as folder, Ground(Path(folder)) as ground:
        progress.print("starting the app")
        with AppRig(ground, "chance", **changes()) as rig:
            chance = Chance(rig)
            seed = first_seed
            while seed - first_seed < (count or sys.maxsize) and (end_s is None or time.monotonic() < end_s):
                line = chance.run(seed)
                lines.append(line)
                verdict = "equal" if line["passed"] else f"NOT EQUAL: {line['notes']}"
                progress.print(f"seed {seed}: {', '.join(line['faults'])}; {line['took_s']} s; {verdict}")
                seed += 1
                _write(json_path, lines, chance)
    red = [line["seed"] for line in lines if not line["passed"]]
    for role, slope in slopes(chance.usage).items():
        print(f"{role}: {slope}")  # noqa: T201 - the result
    print(f"{len(lines)} runs from seed {first_seed}, {len(red)} red {red or ''}")  # noqa: T201
    return 1 if red else 0


def _write(path: Path | None, lines: Sequence[dict[str, Any]], chance: Chance) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {"rows": lines, "slopes": slopes(chance.usage)}
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
